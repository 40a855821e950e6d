"""A map whose tasks are made while it runs, of as many items as measured times say.

The first tasks are single items, sent by the caller; a thread sends the others as replies come. After ``HOLD_S`` all
that is left is sent, so that no map waits for long in a client that may lose its connection, or be killed.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol

from ippmpi.client.chunks import ChunkPart
from ippmpi.client.collector import Collector
from ippmpi.client.failures import RemoteTaskAborted
from ippmpi.client.items import Items
from ippmpi.client.pace import AHEAD, FIRST, Pace
from ippmpi.client.requests import Requests
from ippmpi.wire.messages import Placement

HOLD_S = 1.0
"""Seconds in which the sizes of tasks are decided by what came back so far."""


class View(Protocol):
    """Who maps."""

    def note(self, task: str) -> None:
        """Remember a task that was sent."""


class Growing(Collector):
    """The parts of one map: ``parts`` grows until it is ``whole``."""

    def __init__(self, requests: Requests, items: Items, placement: Placement, label: str, view: View) -> None:
        """Be ready to send *items* by *requests*; *view* lives as long as this does."""
        self.chunks: list[ChunkPart] = []
        super().__init__(self.chunks, "map", view)
        self._view = view
        self.length = len(items)
        self.whole = self.length == 0
        self._requests = requests
        self._items = items
        self._placement = placement
        self._label = label
        self._pace = Pace()
        self._learned = 0  # places in ``order``
        self._next = 0  # the first item that has not been sent
        self._deadline = time.monotonic() + HOLD_S

    # --- sending -----------------------------------------------------------------------------

    def start(self) -> None:
        """Send the first tasks, and have the others sent."""
        self._requests.maps.add(self)
        self.on_end(lambda: self._requests.maps.discard(self))
        try:
            for _ in range(min(self.length, FIRST * self._engines())):
                self._send(1)
            if self.whole:
                self.release()
            else:
                threading.Thread(target=self._feed, name="ippmpi map", daemon=True).start()
        except BaseException:  # Ctrl-C, or a client that is closed: do not leave half a map behind
            self._give_up()
            raise

    def _engines(self) -> int:
        return self._requests.candidates(self._placement)

    def _feed(self) -> None:
        """Send the rest. The thread of this map."""
        try:
            while self._wait_for_room():
                self._send(self._pace.size(self.length - self._next, self._engines()))
        except Exception as problem:  # a closed client, or no memory: it is the outcome
            self._give_up()
            self.break_off(problem)
        self.release()

    def _wait_for_room(self) -> bool:
        """Wait until one more task may be sent; return whether there is one."""
        with self.changed:
            self.changed.wait_for(self._has_room, max(0.0, self._deadline - time.monotonic()))
            aborted = self._learn()
        if aborted:  # by ``Client.abort()``, which means everything
            self.withdraw()
        return not self.whole and self.problem is None

    def _has_room(self) -> bool:
        under_way = len(self.chunks) - len(self.order)
        late = time.monotonic() >= self._deadline
        return late or self.whole or self.problem is not None or under_way < AHEAD * self._engines()

    def _learn(self) -> bool:
        """Look how long the tasks took that have come since; return whether one was aborted."""
        news = [self.chunks[index] for index in self.order[self._learned :]]
        self._learned += len(news)
        for chunk in news:
            if chunk.error is None or chunk.failures:
                self._pace.learn(chunk.size, chunk.completed - chunk.started)
        return any(isinstance(chunk.error, RemoteTaskAborted) for chunk in news)

    def _send(self, wanted: int) -> None:
        start = self._next
        stop = start + self._items.most(start, wanted)
        blob = self._items.blob(start, stop)
        with self.changed:
            if self.whole or self.problem is not None:
                return  # withdrawn meanwhile
            self._add(stop)
            self._requests.submit_balanced(blob, self, len(self.chunks) - 1, self._placement)
        self._view.note(self.chunks[-1].task)

    def _add(self, stop: int) -> None:
        self.chunks.append(self._requests.chunk(self._label, self._next, stop - self._next))
        self._next = stop
        self.whole = stop == self.length
        self.changed.notify_all()

    def _give_up(self) -> None:
        with self.changed:
            self.whole = True
        self._requests.maps.discard(self)
        sent = [chunk.task for chunk in self.chunks if not chunk.done]
        if sent and self._requests.problem is None:
            self._requests.interrupt(sent)

    # --- asked by any thread -----------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Whether every part came, or none will any more."""
        return self.problem is not None or (self.whole and len(self.order) == len(self.parts))

    @property
    def size(self) -> int:
        """How many results there will be."""
        return self.length

    @property
    def progress(self) -> int:
        """How many of them are there."""
        return sum(self.chunks[index].size for index in list(self.order))

    def complete(self) -> None:
        """Have all that is left sent now, since somebody needs to know all parts."""
        with self.changed:
            self._deadline = 0.0
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.whole or self.problem is not None)

    def withdraw(self) -> None:
        """Send no more: what is left is one part, which is aborted."""
        with self.changed:
            if self.whole or self.problem is not None:
                return
            self._add(self.length)
            index = len(self.chunks) - 1
            self.chunks[index].task = ""  # the hub never hears of it
        why = "this map was taken back before the item was sent"
        error = RemoteTaskAborted("TaskAborted", why, engine_info={"method": self.method})
        self._requests.transport.call_soon(lambda: self.take([(index, error)]))
        if self._requests.problem is not None:  # then the I/O thread may have ended
            self.break_off(self._requests.problem)

    def describe_missing(self, timeout_s: float) -> str:
        """Say what has not come within *timeout_s* seconds, and from whom."""
        came = f"{self.progress} of {self.length} results"
        return f"{self.method}: {came} came within {timeout_s:g} s; missing: {self.whom()}"
