"""The first failure of a call on many ranks is shown while it waits for the others, not when the last one is there.

In a call of MPI the others may wait for ever for the one that failed. What was shown is not shown in full again when
it is raised.
"""

from __future__ import annotations

import time
from typing import Protocol

from ippmpi import clock
from ippmpi.client.collector import Collector
from ippmpi.client.display import say
from ippmpi.client.reasons import engines_text
from ippmpi.errors import RemoteError

GRACE_S = 0.3
"""For so long after a failure is waited for the others: most calls end at once, and then nothing need be shown."""

LOOK_S = 0.2
"""How often is looked for a failure. To be woken by each of 10,000 results would cost more."""


class Waits(Protocol):
    """A result."""

    @property
    def collector(self) -> Collector:
        """Its parts."""

    def wait(self, timeout: float | None = -1) -> bool:
        """Wait for all of them; return whether they are there."""

    def read_part(self, index: int) -> RemoteError | None:
        """Return the error of one part that is there."""


class FirstError:
    """What has been told of the first failure of one *result* while others are waited for."""

    def __init__(self, result: Waits, *, shown: bool = False) -> None:
        """*shown*: somebody else shows the failure itself."""
        self._result = result
        self._collector = result.collector
        self._shown = shown
        self.told = False

    def due_in(self) -> float | None:
        """Return in how many seconds there is something to tell; None: nothing, as far as is known."""
        collector = self._collector
        if self.told or collector.ended or not collector.failed or collector.problem is not None:
            return None
        return max(0.0, min(GRACE_S, collector.parts[self._first()].received + GRACE_S - clock.now()))

    def _first(self) -> int:
        return next(index for index in list(self._collector.order) if self._collector.parts[index].failed)

    def tell(self) -> None:
        """Show the first failure, and who has not answered."""
        self.told = True
        collector, first = self._collector, self._first()
        error = self._result.read_part(first)
        others = sum(part.failed for part in list(collector.parts)) - 1
        lines = []
        if not self._shown and error is not None and not error.was_shown:
            lines += [f"{collector.called or collector.method} has failed, others go on:", *error.render_traceback()]
            error.mark_shown()
        more = f"; {others} more failed" if others > 0 else ""
        lines.append(f"Not answered yet: {_left(collector)}{more}. Ctrl-C stops waiting.")
        say("\n".join(lines))

    def tell_end(self) -> None:
        """Say, if something was told, that all have answered."""
        if self.told and self._collector.problem is None:
            failed = sum(part.failed for part in self._collector.parts)
            say(f"All have answered: {failed} of {len(self._collector.parts)} failed.")

    def tell_interrupt(self) -> None:
        """Say, if something was told, what goes on, and how to end it."""
        if self.told and not self._collector.ended:
            task = next((part.task for part in self._collector.parts if not part.done), "")
            how = f"client.get_result({task!r}).cancel() ends that"
            say(f"Stopped waiting; what is not answered goes on ({_left(self._collector)}). {how}.")


def _left(collector: Collector) -> str:
    """Name those that have not answered."""
    parts = [part for part in list(collector.parts) if not part.done]
    engines = [part.engine for part in parts if part.engine is not None]
    if len(engines) == len(parts) == collector.size - collector.progress:
        return engines_text(engines)
    return f"{collector.size - collector.progress} of {collector.size} results"


def wait_and_tell(result: Waits, timeout_s: float | None) -> bool:
    """Wait for *result*, telling of its first failure; return whether all was there in time."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    first = FirstError(result)
    try:
        while True:
            due = first.due_in()
            if due == 0:
                first.tell()
            step = None if first.told else LOOK_S if due is None else max(due, 0.01)
            if deadline is not None:
                left = max(0.0, deadline - time.monotonic())
                step = left if step is None else min(step, left)
            if result.wait(step):
                first.tell_end()
                return True
            if deadline is not None and time.monotonic() >= deadline:
                return False
    except KeyboardInterrupt:
        first.tell_interrupt()
        raise
