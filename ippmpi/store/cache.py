"""Cached results, for the controller's loop: what is asked is done in order by a thread of its own.

The file is opened, and the thread started, when the first call with a key comes. A cache that cannot be read or written
costs nothing but time: it finds nothing, which is logged.
"""

from __future__ import annotations

import itertools
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ippmpi.core.effects import Cached, CacheJob, Found
from ippmpi.store.cachefile import CacheFile, CacheLimits, Value

log = logging.getLogger(__name__)

Callback = Callable[[], None]

IDLE_S = 1.0
"""After so long without work, uses are written down."""

PRUNE_S = 3600.0
"""How often it is looked whether something is too old."""

MOST_TOGETHER = 500
"""Requests that are done in one transaction."""

CLOSE_S = 10.0

_Work = tuple[Callable[[CacheFile], Callback], Callback]


class Cache:
    """Everything but ``close`` returns at once; answers come on the loop's thread."""

    def __init__(self, folder: Path, call_soon: Callable[[Callback], None], limits: CacheLimits | None = None) -> None:
        """Use *folder*, once there is something to do; *call_soon* is the loop's."""
        self._folder = folder
        self._call_soon = call_soon
        self._limits = limits or CacheLimits()
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._file: CacheFile | None = None
        self._works = True
        self._next_prune = 0.0
        self._numbers = itertools.count(1)

    # --- asked by the loop's thread ----------------------------------------------------------

    def get(self, digest: str, folder: Path, found: Callable[[Value | None], None]) -> None:
        """Hand the value under *digest*, if there is one, to *found*; a large one is a new file in *folder*."""
        target = folder / f"content-cached-{os.getpid()}-{next(self._numbers)}"  # a name that the spool tidies away

        def work(file: CacheFile) -> Callback:
            return partial(found, file.get(digest, target))

        def otherwise() -> None:
            target.unlink(missing_ok=True)
            found(None)

        self._put((work, otherwise))

    def put(self, digest: str, name: str, value: bytes | Path, size: int, done: Callback) -> None:
        """Keep *value*, a large one from its file; *done* is called when that is so, or cannot be."""

        def work(file: CacheFile) -> Callback:
            if not file.put(digest, name, value, size):
                log.info("a result of %s with %d bytes is too large to be cached", name, size)
            return done

        self._put((work, done))

    def consult(self, job: CacheJob, found: Callable[[Found], None]) -> None:
        """Do *job* and hand its outcome to *found*."""

        def work(file: CacheFile) -> Callback:
            if isinstance(job, Cached):
                value: object = {"entries": file.list(job.limit, job.name), "counts": file.counts()}
            else:
                value = file.drop(job.digests, job.names, everything=job.everything)
            return partial(found, Found(value))

        self._put((work, partial(found, Found(error=f"the cache in {self._folder} cannot be read or written"))))

    def _put(self, work: _Work) -> None:
        self._queue.put(work)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="ippmpi-cache", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Finish what is queued; its last answers are handed to the loop. May be repeated."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(CLOSE_S)
            self._thread = None

    # --- the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        finally:
            if self._file is not None:
                self._try(lambda file: file.close())

    def _turn(self) -> bool:
        """Do what is queued, together; return whether more may come."""
        owes = self._file is not None and self._file.owes
        try:
            works = [self._queue.get(timeout=IDLE_S if owes else None)]
        except queue.Empty:
            self._try(lambda file: file.note_uses())
            return True
        while works[-1] is not None and len(works) < MOST_TOGETHER and not self._queue.empty():
            works.append(self._queue.get())
        for answer in self._do([work for work in works if work is not None]):
            self._call_soon(answer)
        if time.monotonic() >= self._next_prune and works[-1] is not None:
            self._next_prune = time.monotonic() + PRUNE_S
            self._try(lambda file: file.prune())
        return works[-1] is not None

    def _do(self, works: list[_Work]) -> list[Callback]:
        answers: list[Callback] = []

        def all_of_them(file: CacheFile) -> None:
            with file.together():
                answers.extend(work(file) for work, _ in works)

        if self._try(all_of_them):
            return answers
        return [otherwise for _, otherwise in works]

    def _try(self, call: Callable[[CacheFile], object]) -> bool:
        try:
            if self._file is None:
                self._file = CacheFile(self._folder, self._limits)
            call(self._file)
        except (sqlite3.Error, OSError) as error:
            if self._works:
                self._works = False
                text = "cannot use the cache in %s: %s; calls run as if nothing were cached"
                log.warning(text, self._folder, error)
            return False
        self._works = True
        return True
