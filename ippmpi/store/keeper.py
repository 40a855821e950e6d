"""The store: takes records on the loop's thread, writes them on its own, and says when they are safe.

Everything that is queued goes into one transaction (group commit). After the first record of a
transaction the thread waits a moment for more: nobody waits for a commit but the acknowledgement,
and a commit per record would compete with the loop for the processor.

When more comes than can be written, ``keep`` takes its time, so that the queue does not grow without bound.

A store that cannot write (full disk) does not stop the work: the error is logged, the records of
that transaction are marked lost as soon as something can be written again, and their senders are
told that they are done, since they could do no better by sending again.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from ippmpi import clock
from ippmpi.core.effects import Found, Job, Keep, Purge
from ippmpi.core.restoring import Past
from ippmpi.store import database
from ippmpi.store.consulting import consult
from ippmpi.store.missed import Missed, Point
from ippmpi.store.records import RequestRecord, Selection, StoreLimits
from ippmpi.store.reopening import reopen
from ippmpi.wire.messages import EngineRecord, EnginesChanged, Reply

log = logging.getLogger(__name__)

Callback = Callable[[], None]

GATHER_S = 0.025
"""How long a transaction waits for more records. Nothing but acknowledgements is later for it."""

PRUNE_EVERY_S = 60.0
DROP_EVERY_S = 0.5
"""How often pruning is tried while the store is over a limit: what runs cannot be dropped, and looking has a price."""

CALM_S = 5.0
"""A store that failed is called well again after so long without a failure: at the brink every other write fails."""

MOST_QUEUED = 2_000
"""Records that may wait to be written before whoever brings more is held up."""

LONGEST_HOLD_S = 0.05
HUNG_S = 2.0
"""Nobody is held up when nothing was written for so long: a disk that hangs must not stop the work."""

LOST_REMEMBERED = 10_000
CLOSE_TIMEOUT_S = 30.0

_T = TypeVar("_T")
_Entry = tuple[float, database.Kept, Callback]


class _Question(NamedTuple):
    """Something to be read once all that was queued before it is written.

    ``read`` is called on the storage thread, and what it returns is handed over on the loop's.
    """

    read: Callable[[database.Database], Callback]
    otherwise: Callback


NO_RECORDS = "this controller records no requests: its setting store is 'none'"


class Store:
    """Records of one controller, in one file. ``keep`` belongs to the loop's thread; reading to any."""

    def __init__(
        self,
        path: Path,
        call_soon: Callable[[Callback], None],
        limits: StoreLimits | None = None,
        *,
        restore: bool = False,
        records: bool = True,
    ) -> None:
        """Open or make the file at *path* and start the thread; *call_soon* is the loop's.

        Without *records* only the engines are kept, no requests and replies.

        With *restore* ``past`` is what a controller that was killed has left in it; a file that is damaged is put
        aside, and what can be read goes on.

        Raises:
            sqlite3.Error: the file cannot be made, or is not a store.
        """
        self._path = path
        self._call_soon = call_soon
        self._records = records
        self._limits = limits or StoreLimits()
        self.past = Past()
        if restore:
            self._database, self.past = reopen(path, self._limits)
        else:
            self._database = database.Database(path, self._limits)
        self._queue: queue.SimpleQueue[_Entry | _Question | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._hurry = threading.Event()
        self._lost: dict[str, None] = {}
        self._question: _Question | None = None
        self._owed: dict[int, EngineRecord | None] = {}  # engines that have joined, or (None) left, and are not written
        self._next_prune = time.monotonic() + PRUNE_EVERY_S
        self._next_drop = 0.0
        self._prune_later = False  # even if nothing more comes to be written
        self._writable = True
        self._turned = time.monotonic()
        self._failed = 0.0
        self.losses = 0  # how often something was dropped that somebody may still ask for
        self._thread = threading.Thread(target=self._run, name="ippmpi-store", daemon=True)
        self._thread.start()

    def keep(self, record: Keep, done: Callback) -> None:
        """Write what is in *record*; *done* is called on the loop's thread once that is so (or lost)."""
        message = record.message
        if not isinstance(message, database.Kept):
            kinds = "Submit, Reply, Replies, Output, Display and EnginesChanged"
            raise TypeError(f"the store keeps {kinds}, not {type(message).__name__}")
        if not self._records and not isinstance(message, EnginesChanged):
            self._call_soon(done)
            return
        self._queue.put((clock.now(), message, done))
        if self._queue.qsize() > MOST_QUEUED:
            self._hold_up()
        if isinstance(message, EnginesChanged):
            self._hurry.set()  # rare, and what a controller that is restored cannot do without

    def _hold_up(self) -> None:
        """Let the storage thread have the processor until it has caught up, but not for long."""
        until = time.monotonic() + LONGEST_HOLD_S
        while self._queue.qsize() > MOST_QUEUED and time.monotonic() < min(until, self._turned + HUNG_S):
            time.sleep(0.001)

    def select(self, selection: Selection, found: Callable[[list[RequestRecord]], None], *, whole: bool) -> None:
        """Hand the requests that *selection* wants to *found*, on the loop's thread.

        All that was kept before this call is among them, nothing that is kept after it. With *whole* each comes with
        its replies and its output. If the store cannot be read, that is logged and there are none.
        """
        nothing: list[RequestRecord] = []
        self._ask(lambda db: db.select(selection, whole=whole), found, nothing)

    def replies(self, task: str, found: Callable[[list[Reply]], None]) -> None:
        """Hand the replies to a task to *found*, as ``select`` does, with keys of the spool for large values."""
        nothing: list[Reply] = []
        self._ask(lambda db: db.replies(task), found, nothing)

    def latest(self, found: Callable[[Point], None]) -> None:
        """Hand the point behind all that was kept before this call to *found*, as ``select`` does."""
        self._ask(lambda db: db.latest(), found, Point())

    def missed(self, client: str, after: Point, found: Callable[[Missed], None]) -> None:
        """Hand some of what was kept about a client's tasks behind *after* to *found*, as ``select`` does."""
        self._ask(lambda db: db.missed(client, after), found, Missed([], after))

    def consult(self, job: Job, found: Callable[[Found], None]) -> None:
        """Do *job* and hand its outcome to *found*, as ``select`` does. Without records most have no answer."""
        if not self._records and not isinstance(job, Purge):
            self._call_soon(functools.partial(found, Found(error=NO_RECORDS)))
            return
        self._ask(lambda db: consult(db, job), found, Found(error="the store cannot be read or written"))

    def when_written(self, done: Callback) -> None:
        """Call *done* on the loop's thread once all that was kept before this call is written (or lost)."""
        self._queue.put(_Question(lambda _: done, done))

    def _ask(self, read: Callable[[database.Database], _T], found: Callable[[_T], None], otherwise: _T) -> None:
        def call(db: database.Database) -> Callback:
            return functools.partial(found, read(db))

        self._queue.put(_Question(call, functools.partial(found, otherwise)))

    @property
    def queued(self) -> int:
        """How many records wait to be written."""
        return self._queue.qsize()

    @property
    def writable(self) -> bool:
        """Whether what is kept now is likely to be found again."""
        return self._writable and self._records

    def load(self) -> list[RequestRecord]:
        """Return all requests that are written, in the order of their arrival, without their replies."""
        with contextlib.closing(database.connect(self._path)) as db:
            return list(database.read_requests(db))

    def result(self, task: str) -> RequestRecord | None:
        """Return one request with its replies as far as they are written; None if the store does not know it."""
        with contextlib.closing(database.connect(self._path)) as db:
            return database.read_request(db, task)

    def close(self) -> None:
        """Write what is queued, then close the file; the last ``done`` calls are handed to the loop."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._hurry.set()
        self._queue.put(None)
        self._thread.join(CLOSE_TIMEOUT_S)
        if self._thread.is_alive():  # the disk hangs: the process must end all the same
            log.error(
                "the store %s did not finish within %.0f s; its last records are lost", self._path, CLOSE_TIMEOUT_S
            )
            return
        self._database.close()

    # --- the storage thread ------------------------------------------------------------------

    def _run(self) -> None:
        while self._turn():
            pass

    def _turn(self) -> bool:
        """Write one transaction; return whether there may be more. Keeps nothing while it waits for the next."""
        entries, more = self._gather()
        self._turned = time.monotonic()
        if entries:
            self._write(entries)
            self._call_soon(functools.partial(_call_all, [entry[2] for entry in entries]))
        elif self._prune_later:
            self._prune()
        question, self._question = self._question, None
        if question is not None:
            self._call_soon(self._look_up(question))
        return more

    def _look_up(self, question: _Question) -> Callback:
        try:
            return question.read(self._database)
        except (sqlite3.Error, msgspec.DecodeError) as error:
            log.error("cannot read the store %s: %s", self._path, error)
            self.losses += 1
            return question.otherwise

    def _gather(self) -> tuple[list[_Entry], bool]:
        """Wait for records; return them, and whether there may be more. A question ends the gathering."""
        entries: list[_Entry] = []
        patience_s = DROP_EVERY_S if self._prune_later else None
        with contextlib.suppress(queue.Empty):
            while True:
                entry = self._queue.get_nowait() if entries else self._queue.get(timeout=patience_s)
                if entry is None:
                    return entries, False
                if isinstance(entry, _Question):
                    self._question = entry
                    return entries, True
                if not entries and not self._closing.is_set():
                    self._hurry.wait(GATHER_S)
                    self._hurry.clear()
                entries.append(entry)
        return entries, True

    def _write(self, entries: list[_Entry]) -> None:
        try:
            self._database.write([*self._debts(), *(entry[:2] for entry in entries)], self._lost)
            self._lost.clear()
            self._owed.clear()
            self._report(None)
        except (sqlite3.Error, ValueError, OverflowError) as error:
            self._lose(entries)
            self._report(error)
        self._prune()

    def _debts(self) -> list[tuple[float, database.Kept]]:
        """Return what is to be written before anything else: a restored controller needs to know the engines."""
        if not self._owed:
            return []
        joined = [record for record in self._owed.values() if record is not None]
        left = [engine for engine, record in self._owed.items() if record is None]
        return [(clock.now(), EnginesChanged(joined, left, [""] * len(left)))]

    def _lose(self, entries: list[_Entry]) -> None:
        self.losses += 1
        for _, message, _ in entries:
            if isinstance(message, EnginesChanged):
                self._owed |= {record.id: record for record in message.joined} | dict.fromkeys(message.left)
            else:
                self._lost[message.task] = None
        while len(self._lost) > LOST_REMEMBERED:
            del self._lost[next(iter(self._lost))]

    def _report(self, error: Exception | None) -> None:
        """Log a change for the worse or the better, not every failure."""
        now = time.monotonic()
        if error is not None:
            self._failed = now
            if self._writable:
                self._writable = False
                log.error(
                    "cannot write the store %s: %s; the work goes on, but its records are lost until there is room",
                    self._path,
                    error,
                )
        elif not self._writable and now - self._failed >= CALM_S:
            self._writable = True
            log.warning("the store %s can be written again", self._path)

    def _prune(self) -> None:
        now = time.monotonic()
        if now < self._next_prune and not (self._database.full and now >= self._next_drop):
            self._prune_later = self._database.full
            return
        self._prune_later = False
        self._next_prune = now + PRUNE_EVERY_S
        self._next_drop = now + DROP_EVERY_S
        try:
            dropped = self._database.prune()
        except sqlite3.Error as error:
            log.error("cannot drop old records from the store %s: %s", self._path, error)
        else:
            if dropped:
                self.losses += 1
                log.info("dropped the %d oldest finished requests from the store", dropped)


def _call_all(dones: list[Callback]) -> None:
    for done in dones:
        done()
