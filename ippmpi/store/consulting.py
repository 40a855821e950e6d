"""Questions to the store that ipyparallel's users know: search, history, purge, and requests to be sent again."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from ippmpi.core.effects import Found, History, Job, Originals, Purge, Search
from ippmpi.core.matching import matches
from ippmpi.store.database import Database, read_request, read_requests
from ippmpi.store.records import RequestRecord
from ippmpi.wire.messages import Output

MOST_BYTES = 16_000_000
"""Of one answer."""

RECORD_BYTES = 500

PLACES = 6
"""Of times: those of a datetime, so that one that was found is equal to itself in the next question."""


def consult(database: Database, job: Job) -> Found:
    """Do *job*."""
    db = database.connection
    if isinstance(job, History):
        return Found([task for (task,) in db.execute("SELECT task FROM requests ORDER BY submitted, rowid")])
    if isinstance(job, Originals):
        return _originals(db, job.tasks)
    return _purge(database, job) if isinstance(job, Purge) else _search(db, job)


# --- search --------------------------------------------------------------------------------------


class _Row:
    """One request under the keys that are asked for; replies and output are read when they are needed."""

    def __init__(self, db: sqlite3.Connection, record: RequestRecord) -> None:
        self._db = db
        self._record = record
        self._read = False

    @property
    def whole(self) -> RequestRecord:
        """The request with its replies and output."""
        if not self._read:
            self._read = True
            self._record = read_request(self._db, self._record.task) or self._record
        return self._record

    def value(self, key: str) -> object:
        """Return the value of a key of ``effects.KEYS``."""
        plain = {"msg_id": "task", "client_uuid": "client", "label": "label", "op": "op"}
        if key in plain:
            return getattr(self._record, plain[key])
        return getattr(self, f"_{key}")()

    def _state(self) -> str:
        return self._record.state.value

    def _queue(self) -> str:
        return "mux" if self._record.targets else "task"

    def _submitted(self) -> float:
        return round(self._record.submitted, PLACES)

    def _received(self) -> float | None:
        finished = self._record.finished
        return None if finished is None else round(finished, PLACES)

    def _engines(self) -> list[int]:
        return self._record.targets or [reply.engine for reply in self.whole.replies if reply.engine >= 0]

    def _started(self) -> float | None:
        return min((round(reply.started, PLACES) for reply in self.whole.replies if reply.started), default=None)

    def _completed(self) -> float | None:
        return max((round(reply.completed, PLACES) for reply in self.whole.replies), default=None)

    def _error(self) -> str | None:
        failures = [reply.failure for reply in self.whole.replies if reply.failure is not None]
        return f"{failures[0].ename}: {failures[0].evalue}" if failures else None

    def _stdout(self) -> str:
        return self._text("stdout")

    def _stderr(self) -> str:
        return self._text("stderr")

    def _text(self, stream: str) -> str:
        pieces = [o.text for o in self.whole.outputs if isinstance(o, Output) and o.stream == stream]
        return b"".join(pieces).decode(errors="replace")


def _search(db: sqlite3.Connection, job: Search) -> Found:
    found: list[dict[str, object]] = []
    room = MOST_BYTES
    for record in _candidates(db, job.query):
        row = _Row(db, record)
        if not matches(job.query, row.value):
            continue
        found.append({key: row.value(key) for key in job.keys})
        room -= RECORD_BYTES + sum(len(value) for value in found[-1].values() if isinstance(value, str))
        if room < 0:
            return Found(error=f"the answer has more than {MOST_BYTES} bytes: ask for fewer keys, or of fewer tasks")
    return Found(found)


def _candidates(db: sqlite3.Connection, query: dict[str, Any]) -> Iterator[RequestRecord]:
    task = query.get("msg_id")
    if isinstance(task, str):
        record = read_request(db, task)
        return iter(() if record is None else (record,))
    return read_requests(db)


# --- the others ----------------------------------------------------------------------------------


def _originals(db: sqlite3.Connection, tasks: Sequence[str]) -> Found:
    messages = []
    for task in tasks:
        row = db.execute("SELECT message FROM requests WHERE task = ?", (task,)).fetchone()
        if row is None:
            return Found(error=f"no task {task!r} is stored")
        if row[0] is None:
            return Found(
                error=f"the request {task!r} is not kept: its function and arguments were too large, or are lost"
            )
        messages.append(row[0])
    return Found(messages)


def _purge(database: Database, job: Purge) -> Found:
    """Forget requests that have ended; nothing is forgotten if one of those that are named has not."""
    db = database.connection
    named = list(job.tasks or ())
    for task in named:
        row = db.execute("SELECT finished FROM requests WHERE task = ?", (task,)).fetchone()
        if row is None:
            return Found(error=f"no task {task!r} is stored")
        if row[0] is None:
            return Found(error=f"task {task!r} has not ended: wait for it, or abort it")
    if job.tasks is None:
        named = [task for (task,) in db.execute("SELECT task FROM requests WHERE finished IS NOT NULL")]
    for engine in job.engines:
        query = "SELECT task FROM requests JOIN replies USING (task) WHERE finished IS NOT NULL AND engine = ?"
        named += [task for (task,) in db.execute(query, (engine,))]
    chosen = list(dict.fromkeys(named))
    database.forget(chosen)
    return Found(len(chosen), "", chosen)
