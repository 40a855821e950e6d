"""The future of one call: waiting for it, ending it. What its value is, ``results.py`` says."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, Protocol

from ippmpi.client.collector import Collector
from ippmpi.client.conditions import LateFuture
from ippmpi.client.contents import Flat
from ippmpi.client.engines import Engines
from ippmpi.client.failures import composite
from ippmpi.client.fields import Fields
from ippmpi.client.parts import Part
from ippmpi.errors import RemoteError
from ippmpi.wire import pickling
from ippmpi.wire.messages import Message

ANSWER_S = 10.0
"""How long the hub may take for an answer that needs no engine."""


class Sent(Protocol):
    """A task under way."""

    @property
    def collector(self) -> Collector:
        """All parts of its call."""


class Owner(Protocol):
    """What a result needs of its client."""

    engines: Engines
    show_first_error: bool

    @property
    def pending(self) -> Mapping[str, Sent]:
        """The tasks that have not ended."""

    @property
    def reachable(self) -> bool:
        """Whether there is a connection to the controller now."""

    def ask(self, question: Callable[[int], Message]) -> Future[Any]:
        """Ask the controller."""

    def inside(self) -> bool:
        """Say whether this is the I/O thread."""

    def interrupt(self, tasks: list[str]) -> Future[Any]:
        """End tasks, running or not."""

    def abort(self, tasks: list[str] | None, targets: list[int] | None) -> Future[Any]:
        """Take back tasks that have not started."""


Unpickle = Callable[[Part, Flat], Any]


def unpickle(part: Part, pickled: Flat) -> Any:  # noqa: ARG001 - one of several such functions
    """Unpickle the value of one part as it is."""
    return pickling.unpack(pickled)


def seconds(timeout: float | None) -> float | None:
    """Return *timeout*, or None (no limit) if it is negative."""
    return None if timeout is None or timeout < 0 else timeout


class CallFuture(Fields, LateFuture):
    """A ``concurrent.futures.Future`` that is resolved once all parts of a call have come.

    It is resolved with None or an error; the value is unpickled by the thread that asks for it.
    """

    def __init__(
        self,
        owner: Owner,
        collector: Collector,
        *,
        single: bool = False,
        unpickle: Unpickle = unpickle,
        return_exceptions: bool = False,
    ) -> None:
        """Be the future of *collector*'s parts. *single*: there is one, and its bare value is the result."""
        super().__init__()
        self._owner = owner
        self._collector = collector
        self._single = single
        self._unpickle = unpickle
        self._return_exceptions = return_exceptions
        collector.on_end(self._end)

    def _end(self) -> None:  # I/O thread
        collector = self._collector
        if collector.problem is not None:
            self.resolve(collector.problem)
        elif collector.failed and not self._return_exceptions:  # concurrent.futures.wait looks at this
            self.resolve(self._raisable(self._errors()))
        else:
            self.resolve(None)

    @abstractmethod
    def get(self, timeout: float | None = None) -> Any:
        """Wait and return the value."""

    # --- parts -------------------------------------------------------------------------------

    @property
    def collector(self) -> Collector:
        """The parts of this result; not meant for users."""
        return self._collector

    def read_part(self, index: int) -> RemoteError | None:
        """Unpickle the value of one part that is there; return its error, if it has one. Not meant for users."""
        return self._collector.parts[index].read(self._unpickle)

    def _read(self, parts: Iterable[Part]) -> tuple[list[Any], list[RemoteError]]:
        """Return values, with errors in the places of those that failed, and these errors."""
        values: list[Any] = []
        errors: list[RemoteError] = []
        for part in parts:
            error = part.read(self._unpickle)
            if error is not None:
                errors.append(error)
            values.append(part.value if error is None else error)
        return values, errors

    def _errors(self) -> list[RemoteError]:
        """Return the failures that have come."""
        return [part.error for part in self._collector.parts if part.error is not None]

    def _raisable(self, errors: list[RemoteError]) -> RemoteError:
        if self._single:
            return errors[0].with_traceback(None)  # without the frames of those who asked before
        return composite(errors, len(self._collector.parts), self._collector.method)

    # --- waiting -----------------------------------------------------------------------------

    def _wait_all(self, timeout: float | None) -> bool:
        if self.done():
            return True
        self._check_thread()
        try:
            super().exception(seconds(timeout))
        except TimeoutError:
            return False
        return True

    def _wait_for(self, ready: Callable[[], bool], timeout: float | None) -> bool:
        if not self.done():
            self._check_thread()
        return self._collector.wait(ready, seconds(timeout))

    def _check_thread(self) -> None:
        if self._owner.inside():
            raise RuntimeError(
                f"{self!r}: waiting here would never end, since this is the thread that receives results "
                "(a done-callback); hand the work to another thread"
            )

    @property
    def owner(self) -> bool:
        """True: a result belongs to whoever holds it, and no other place keeps it."""
        return True

    def ready(self) -> bool:
        """Say whether all results are there."""
        return self.done()

    def successful(self) -> bool:
        """Say whether all results are values; RuntimeError if they are not there yet."""
        if not self.done():
            raise RuntimeError(f"{self!r} is not ready; wait() first")
        return not self._collector.failed and not self._read(self._collector.parts)[1]

    @property
    def progress(self) -> int:
        """The number of results that are there."""
        return len(self._collector.order)

    @property
    def sent(self) -> bool:
        """Whether the arguments are no longer needed here: arrays among them may be changed."""
        return self._collector.sent

    def wait_for_send(self, timeout: float | None = -1) -> None:
        """Wait until ``sent``; TimeoutError if it takes longer."""
        if not self._collector.wait_sent(seconds(timeout)):
            raise TimeoutError(f"{self._collector.method}: the arguments were not sent within {timeout:g} s")

    def wait_for_output(self, timeout: float | None = -1) -> bool:
        """Wait until all output is there. It always comes before the result."""
        return self._wait_all(timeout)

    # --- the Future interface ----------------------------------------------------------------

    def result(self, timeout: float | None = None) -> Any:
        """Same as ``get``."""
        return self.get(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait and return the error that ``get`` would raise, or None."""
        if not self._wait_all(timeout):
            raise TimeoutError(self._collector.describe_missing(timeout or 0))
        try:
            self.get()
        except Exception as error:  # exactly what get() would raise
            return error
        return None

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait in a coroutine; cancelling that cancels the call."""
        import asyncio

        return asyncio.wrap_future(self).__await__()

    def cancel(self) -> bool:
        """End the call on the engines: interrupt it where it runs, take it back where it waits.

        Returns False if all results are there. Results still come: a value if it was faster, else
        ``TaskAborted`` or the ``KeyboardInterrupt`` of the engine's code.
        """
        if self.done():
            return False
        self._collector.withdraw()
        self._owner.interrupt(self.msg_ids)
        return True

    def abort(self) -> None:
        """Take back what has not started, and wait for the hub's word; RuntimeError if nothing is left to abort."""
        if self.done():
            raise RuntimeError(f"{self!r} has ended; there is nothing to abort")
        self._collector.withdraw()
        try:
            self._owner.abort(self.msg_ids, None).result(ANSWER_S)
        except TimeoutError:
            raise TimeoutError(f"the controller did not answer 'abort' within {ANSWER_S:g} s") from None

    def __repr__(self) -> str:
        """Show what was called and how it stands."""
        state = "pending"
        if self.done():
            state = "failed" if self._collector.failed else "finished"
        return f"<{type(self).__name__}({self._collector.called or self._collector.method}): {state}>"
