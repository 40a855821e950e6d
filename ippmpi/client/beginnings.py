"""Functions that run on every engine that joins, before other work of this client: ``DirectView.on_start``."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from ippmpi.client.collector import Collector
from ippmpi.wire.messages import EnginesChanged
from ippmpi.wire.pickling import Blob

if TYPE_CHECKING:
    from ippmpi.client.requests import Requests

log = logging.getLogger(__name__)

METHOD = "on_start"


class Beginnings:
    """What one client has registered, in order."""

    def __init__(self, requests: Requests) -> None:
        """Run by way of *requests*; *requests* says who joins."""
        self._requests = requests
        self._functions: list[Callable[[Iterable[int]], object]] = []
        self._lock = threading.RLock()  # an engine either is there already or joins later

    def add(self, targets: frozenset[int] | None, blob: Blob, label: str, client: object) -> Collector:
        """Run the call in *blob* on the engines of *targets* (None: all), now and whenever one joins.

        Return the results of those that are there now.
        """

        def begin(joined: Iterable[int], keep: object = None) -> Collector:
            ids = sorted(i for i in joined if targets is None or i in targets)
            parts = self._requests.parts(ids, METHOD, label, tasks=0)
            collector = Collector(parts, METHOD, keep)
            if ids:
                collector.on_end(lambda: _report(collector))
                self._requests.submit("apply", [blob], collector)
                collector.release()
            return collector

        with self._lock:
            self._functions.append(begin)
            return begin(self._requests.engines.ids, client)

    def clear(self) -> None:
        """Run none of them on engines that join from now on."""
        with self._lock:
            self._functions.clear()

    def take(self, message: EnginesChanged, *, whole: bool) -> None:
        """Take news of engines, and begin with new ones before anybody else can name them. I/O thread."""
        engines = self._requests.engines
        engines.note_joins(message.joined)
        with self._lock:
            if self._functions:
                known = {(e.id, e.world, e.host, e.pid) for e in engines.records.values()} if whole else set()
                joined = [e.id for e in message.joined if (e.id, e.world, e.host, e.pid) not in known]
                for begin in self._functions:
                    begin(joined)
            engines.change(message, whole=whole)


def _report(collector: Collector) -> None:
    """Log what failed: on engines that join later, nobody waits for it."""
    for part in collector.parts:
        if part.failed:
            log.warning("on_start failed on engine %s: %s", part.engine, part.error)
