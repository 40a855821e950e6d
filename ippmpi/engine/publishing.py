"""What tasks publish while they run, on its way to the agent: the latest values, not more often than useful.

The main thread (or any thread of the user's) pickles and hands over; the rest belongs to the link's loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from ippmpi import clock
from ippmpi.wire.messages import Published
from ippmpi.wire.pickling import pack

MOST_BYTES = 1_000_000
"""Of the pickled values of one call: they travel among the control messages, which nothing may hold up for long."""

EVERY_S = 0.05
"""Between two messages of one engine."""

BYTES_PER_S = 2e6
"""After a large message the next one waits longer, so that there are no more bytes a second than these."""


class Performer(Protocol):
    """Who runs the tasks (``Runner``)."""

    engine: int
    task: str


class Publishing:
    """Collects what is published, and sends it together."""

    def __init__(
        self,
        performer: Performer,
        send: Callable[[Published], None],
        call_soon: Callable[[Callable[[], None]], None],
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        """Send by *send*, on the loop of *call_soon* and *call_later*."""
        self._performer = performer
        self._send = send
        self._call_soon = call_soon
        self._call_later = call_later
        self._task = ""
        self._values: dict[str, bytes] = {}
        self._free_at = 0.0
        self._waits = False

    def publish(self, data: Mapping[str, object]) -> None:
        """Take values for the task that runs; see ``datapub.publish_data``. Any thread."""
        task = self._performer.task
        if not task:
            raise RuntimeError("publish_data() is for the task that runs on this engine; none runs now")
        "".join(data).encode()  # here, not where the message is made: that thread is needed
        values = {name: pack(value).join() for name, value in data.items()}
        size = sum(map(len, values.values()))
        if size > MOST_BYTES:
            raise ValueError(f"{size} bytes are too many to publish at once (at most {MOST_BYTES}); pull them instead")
        self._call_soon(partial(self._take, task, values))

    # --- the loop ------------------------------------------------------------------------------

    def _take(self, task: str, values: dict[str, bytes]) -> None:
        if task != self._task or sum(map(len, (*self._values.values(), *values.values()))) > MOST_BYTES:
            self.flush()
        self._task = task
        self._values |= values
        wait_s = self._free_at - clock.now()
        if wait_s <= 0:
            self.flush()
        elif not self._waits:
            self._waits = True
            self._call_later(min(wait_s, EVERY_S + MOST_BYTES / BYTES_PER_S), self._on_time)

    def _on_time(self) -> None:
        self._waits = False
        self.flush()

    def flush(self) -> None:
        """Send what waits. To be called before the reply of its task is sent."""
        if self._values:
            values, self._values = self._values, {}
            self._free_at = clock.now() + EVERY_S + sum(map(len, values.values())) / BYTES_PER_S
            self._send(Published(self._task, self._performer.engine, values))
