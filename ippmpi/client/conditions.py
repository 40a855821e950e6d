"""Locks and futures that make their condition only when somebody waits.

A thousand results are often asked for when all are there, and a condition is ten objects, which the
garbage collector would visit again and again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class Changes:
    """A lock that may be taken again by its holder, and a condition on it once somebody has waited."""

    __slots__ = ("_condition", "_lock")

    def __init__(self) -> None:
        """Start free."""
        self._lock = threading.RLock()
        self._condition: threading.Condition | None = None

    def __enter__(self) -> None:
        """Take the lock."""
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        """Let go."""
        self._lock.release()

    def notify_all(self) -> None:
        """Have those who wait look again; the lock must be held."""
        if self._condition is not None:
            self._condition.notify_all()

    def wait_for(self, predicate: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Wait until *predicate* is true, for at most *timeout_s* seconds; return it. The lock must be held."""
        if self._condition is None:
            self._condition = threading.Condition(self._lock)
        return self._condition.wait_for(predicate, timeout_s)


_making = threading.Lock()


class LateFuture(Future[Any]):
    """A ``concurrent.futures.Future`` whose condition, and what goes with it, is made when it is asked for.

    The standard class uses the attributes below, and ``_condition`` before any other. ``resolve`` is the one place
    where it can do without.
    """

    _state: str
    _result: Any
    _exception: BaseException | None

    def __init__(self) -> None:  # the base would make the condition
        """Start pending."""
        self._state = "PENDING"
        self._result = self._exception = None
        self._made: threading.Condition | None = None

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override] # an attribute of the base
        if self._made is None:
            with _making:
                if self._made is None:
                    self._waiters: list[Any] = []
                    self._done_callbacks: list[Any] = []
                    self._made = threading.Condition()
        return self._made

    def done(self) -> bool:
        """Say whether there is an outcome."""
        return self._state == "FINISHED"

    def resolve(self, error: BaseException | None) -> None:
        """Set the outcome: *error*, or none."""
        with _making:
            if self._made is None:  # so nobody waits, and nobody wants to be called
                self._exception = error
                self._state = "FINISHED"
                return
        if error is None:
            self.set_result(None)
        else:
            self.set_exception(error)
