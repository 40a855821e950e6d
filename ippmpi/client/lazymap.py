"""A map whose items are taken from their iterator only as results are asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any, Self

from ippmpi.client.results import AsyncResult
from ippmpi.errors import RemoteError

HELD = 100
"""How many times the limit may be finished and wait for a slow one before them, or for the caller."""


class LazyMapIterator(Iterator[Any]):
    """Yields the values of a lazy map; at most ``limit`` tasks are under way at a time.

    The items' iterator runs in the thread that asks for values. What it raises is raised here, after
    the values of all items before.
    """

    def __init__(
        self,
        submit: Callable[[tuple[Any, ...]], AsyncResult],
        items: Iterator[tuple[Any, ...]],
        *,
        ordered: bool,
        limit: int | None,
        return_exceptions: bool,
    ) -> None:
        """Submit the first items at once."""
        self._submit = submit
        self._items = items
        self._ordered = ordered
        self._limit = limit
        self._return_exceptions = return_exceptions
        self._results: deque[AsyncResult] = deque()  # not yet yielded (ordered only)
        self._finished: SimpleQueue[AsyncResult] = SimpleQueue()
        self._early: deque[AsyncResult] = deque()  # finished, not yet yielded (unordered only)
        self._running = 0
        self._held = 0  # submitted, not yet yielded
        self._exhausted = False
        self._problem: Exception | None = None
        self._fill()

    def _fill(self) -> None:
        while not self._exhausted and self._has_room():
            try:
                item = next(self._items)
            except StopIteration:
                self._exhausted = True
                return
            except Exception as problem:  # whatever the user's iterator raises
                self._exhausted, self._problem = True, problem
                return
            result = self._submit(item)
            self._running += 1
            self._held += 1
            if self._ordered:
                self._results.append(result)
            result.add_done_callback(self._finished.put)  # type: ignore[arg-type] # it gets itself

    def _has_room(self) -> bool:
        if self._limit is None:
            return True
        return self._running < self._limit and self._held < HELD * self._limit

    def __iter__(self) -> Self:
        """Return itself."""
        return self

    def __next__(self) -> Any:
        """Wait for the next value and return it."""
        result = self._next_ordered() if self._ordered else self._next_finished()
        if result is None:
            if self._problem is not None:
                problem, self._problem = self._problem, None
                raise problem
            raise StopIteration
        self._held -= 1
        try:
            return result.get()
        except RemoteError as error:
            if self._return_exceptions:
                return error
            raise

    def _next_ordered(self) -> AsyncResult | None:
        self._take_finished(wait=False)
        while self._results and not self._results[0].done():
            self._take_finished(wait=True)
        return self._results.popleft() if self._results else None

    def _next_finished(self) -> AsyncResult | None:
        self._take_finished(wait=False)
        if not self._early and self._running:
            self._take_finished(wait=True)
        return self._early.popleft() if self._early else None

    def _take_finished(self, *, wait: bool) -> None:
        """Count what has finished, and submit as many again."""
        while wait or not self._finished.empty():
            result = self._finished.get()
            wait = False
            self._running -= 1
            if not self._ordered:
                self._early.append(result)
        self._fill()

    def cancel(self) -> None:
        """Take no more items; values of what is under way still come."""
        self._exhausted = True
