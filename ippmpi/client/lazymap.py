"""A map whose items are taken from their iterator only as results are asked for."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any, NamedTuple, Self

from ippmpi.client.caching import Keys, key_of
from ippmpi.client.chunks import ChunkPart, unpickle_items
from ippmpi.client.collector import Collector
from ippmpi.client.growing import View
from ippmpi.client.items import Items
from ippmpi.client.maps import call_each
from ippmpi.client.pace import AHEAD, FIRST, Pace
from ippmpi.client.requests import Requests
from ippmpi.errors import RemoteError
from ippmpi.wire.messages import CacheKey, Placement
from ippmpi.wire.pickling import Blob

HELD = 100
"""How many items, times the limit, may be finished and wait for a slow one before them, or for the caller."""

READ_S = 0.005
"""Items that come slowly are sent after so long, even if more would fit into their task."""

ENDLESS = 10**9

Row = tuple[Any, ...]


class Packed(NamedTuple):
    """One task to be sent: ``size`` items from number ``first`` on."""

    blob: Blob
    first: int
    size: int
    key: CacheKey | None = None


class Sent(NamedTuple):
    """One task under way."""

    part: ChunkPart
    collector: Collector


class Sender:
    """Makes tasks of items and sends them, all under the same conditions."""

    def __init__(
        self,
        requests: Requests,
        function: Callable[..., Any],
        placement: Placement,
        *,
        label: str,
        view: View,
        keys: Keys | None = None,
    ) -> None:
        """Send calls of *function* by *requests*. *view* lives as long as they do. *keys*: they are cached."""
        self._requests = requests
        self._function = function
        self._placement = placement
        self._label = label
        self._view = view
        self._keys = keys
        self.single = placement.retries > 0 or keys is not None  # whether a task is one item

    def engines(self) -> int:
        """Return how many engines there are to do it."""
        return self._requests.candidates(self._placement)

    def packed(self, rows: list[Row], first: int) -> list[Packed]:
        """Pickle *rows*, whose first has number *first*: as one task, if they are not too large.

        Raises what pickling raises.
        """
        columns = [list(column) for column in zip(*rows, strict=True)]
        if self.single:  # a failure must be the task's, to be tried again, and not to be cached
            key = key_of(self._keys, columns)
            blob = self._requests.pack((call_each, (self._function, False, *columns), {}))
            return [Packed(blob, first, len(rows), key)]
        items = Items(self._function, columns, len(rows), first, self._requests.pack)
        tasks, start = [], 0
        while start < len(items):
            stop = start + items.most(start, len(items) - start)
            tasks.append(Packed(items.blob(start, stop), first + start, stop - start))
            start = stop
        return tasks

    def send(self, task: Packed) -> Sent:
        """Send a task."""
        part = self._requests.chunk(self._label, task.first, task.size)
        collector = Collector([part], "map", self._view)
        self._requests.submit_balanced(task.blob, collector, 0, self._placement, cache=task.key)
        collector.release()
        self._view.note(part.task)
        return Sent(part, collector)


class _Raises(NamedTuple):
    """Stands where a value would be."""

    error: RemoteError


class LazyMapIterator(Iterator[Any]):
    """Yields the values of a lazy map; only so many tasks are under way, and so many items taken, at a time.

    The items' iterator runs in the thread that asks for values. What it raises is raised here, after
    the values of all items before; so is what an item raises that cannot be pickled.
    """

    def __init__(
        self,
        sender: Sender,
        items: Iterator[Row],
        *,
        ordered: bool,
        limit: int | None,
        return_exceptions: bool,
    ) -> None:
        """Send the first items at once. *limit*: tasks of one item under way, 0: any number; None: adaptive."""
        self._sender = sender
        self._items = items
        self._ordered = ordered
        self._limit = limit
        self._return_exceptions = return_exceptions
        self._pace = Pace()
        self._sent: deque[Sent] = deque()  # not yet yielded (ordered only)
        self._finished: SimpleQueue[Sent] = SimpleQueue()
        self._early: deque[Sent] = deque()  # finished, not yet yielded (unordered only)
        self._values: deque[Any] = deque()  # those of the task that is being yielded
        self._running = 0  # tasks
        self._held = 0  # items in tasks that have not been opened
        self._taken = 0
        self._exhausted = False
        self._problem: Exception | None = None
        self._fill()

    # --- taking and sending items ------------------------------------------------------------

    def _fill(self) -> None:
        until = time.monotonic() + READ_S
        while not self._exhausted and (size := self._room()):
            first = self._taken
            self._send(self._take(size, until), first)
            late = time.monotonic() > until
            if late and self._has_value():
                return
            if late:
                until = time.monotonic() + READ_S

    def _room(self) -> int:
        """Return how many items the next task should have; 0: it should wait."""
        if self._limit == 0:
            return 1
        if self._limit is not None:
            return int(self._running < self._limit and self._held < HELD * self._limit)
        engines = self._sender.engines()
        size = 1 if self._sender.single else min(self._pace.size(ENDLESS, engines), HELD // AHEAD)
        tasks = engines * (AHEAD if size > 1 else FIRST)
        return size if self._running < tasks and self._held + size <= HELD * engines else 0

    def _take(self, size: int, until: float) -> list[Row]:
        rows: list[Row] = []
        while len(rows) < size:
            try:
                rows.append(next(self._items))
            except StopIteration:
                self._exhausted = True
                break
            except Exception as problem:  # whatever the user's iterator raises
                self._exhausted, self._problem = True, problem
                break
            if time.monotonic() > until:
                break
        self._taken += len(rows)
        return rows

    def _send(self, rows: list[Row], first: int) -> bool:
        """Send *rows*, or those before the first that cannot be pickled, which is the end; return whether all were."""
        if not rows:
            return True
        try:
            tasks = self._sender.packed(rows, first)
        except Exception as problem:  # whatever the user's classes raise
            if len(rows) > 1:
                return all(self._send([row], first + place) for place, row in enumerate(rows))
            self._exhausted, self._problem = True, problem
            return False
        for task in tasks:
            self._note(self._sender.send(task))
        return True

    def _note(self, sent: Sent) -> None:
        self._running += 1
        self._held += sent.part.size
        if self._ordered:
            self._sent.append(sent)
        sent.collector.on_end(lambda: self._finished.put(sent))

    # --- yielding values ---------------------------------------------------------------------

    def __iter__(self) -> Self:
        """Return itself."""
        return self

    def __next__(self) -> Any:
        """Wait for the next value and return it."""
        if not self._finished.empty():
            self._take_finished(wait=False)
        while not self._values:
            sent = self._next_ordered() if self._ordered else self._next_finished()
            if sent is None:
                problem, self._problem = self._problem, None
                if problem is not None:
                    raise problem
                raise StopIteration
            self._open(sent)
        value = self._values.popleft()
        if type(value) is _Raises:
            if self._return_exceptions:
                return value.error
            raise value.error
        return value

    def _open(self, sent: Sent) -> None:
        """Get the values of a task that has ended."""
        self._held -= sent.part.size
        if sent.collector.problem is not None:
            raise sent.collector.problem
        sent.part.read(unpickle_items)
        errors = sent.part.item_errors()
        values = sent.part.items()
        self._values.extend(
            values if not errors else [_Raises(errors[i]) if i in errors else v for i, v in enumerate(values)]
        )

    def _has_value(self) -> bool:
        if self._values or self._early or (not self._ordered and not self._finished.empty()):
            return True
        return bool(self._sent) and self._sent[0].collector.ended

    def _next_ordered(self) -> Sent | None:
        self._take_finished(wait=False)
        while self._sent and not self._sent[0].collector.ended:
            self._take_finished(wait=True)
        return self._sent.popleft() if self._sent else None

    def _next_finished(self) -> Sent | None:
        self._take_finished(wait=False)
        if not self._early and self._running:
            self._take_finished(wait=True)
        return self._early.popleft() if self._early else None

    def _take_finished(self, *, wait: bool) -> None:
        """Count what has finished, learn from it, and send as much again."""
        while wait or not self._finished.empty():
            sent = self._finished.get()
            wait = False
            self._running -= 1
            part = sent.part
            if part.done and (part.error is None or part.failures):
                self._pace.learn(part.size, part.completed - part.started)
            if not self._ordered:
                self._early.append(sent)
        self._fill()

    def cancel(self) -> None:
        """Take no more items; values of what is under way still come."""
        self._exhausted = True
