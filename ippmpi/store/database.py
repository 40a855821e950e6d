"""The tables of the store, and every SQL statement on them. One connection, one thread at a time."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from ippmpi import clock
from ippmpi.core.restoring import Past, PastTask
from ippmpi.ids import Peer
from ippmpi.store import missed
from ippmpi.store.bundles import Row, outcomes_of, replies_of, row_of, row_of_bundle
from ippmpi.store.missed import Missed, Point
from ippmpi.store.records import ReplyRecord, RequestRecord, RequestState, Selection, StoreLimits
from ippmpi.wire.frames import decode, encode
from ippmpi.wire.messages import Content, Display, EngineRecord, EnginesChanged, Output, Replies, Reply, Submit

Kept = Submit | Reply | Replies | Output | Display | EnginesChanged
"""What can be written."""

SCHEMA_VERSION = 5

# message: the whole request, until it has ended, and a small one also later; spooled: the value's key in the spool,
# or 0; engines: those that are there now. They are what a controller needs that was started again.
# a row of replies may stand for several, see bundles.py
# replies are an ordinary table: blobs of up to 64 KB in a WITHOUT ROWID tree would make every look-up slow
SCHEMA = """
CREATE TABLE IF NOT EXISTS requests (
    task TEXT PRIMARY KEY, client TEXT NOT NULL, op TEXT NOT NULL, label TEXT NOT NULL, targets TEXT NOT NULL,
    expected INTEGER NOT NULL, submitted REAL NOT NULL, finished REAL, lost INTEGER NOT NULL DEFAULT 0,
    size INTEGER NOT NULL, message BLOB
);
CREATE INDEX IF NOT EXISTS requests_finished ON requests (finished) WHERE finished IS NOT NULL;
CREATE TABLE IF NOT EXISTS replies (
    task TEXT NOT NULL, engine INTEGER NOT NULL, failure TEXT, content BLOB, size INTEGER NOT NULL,
    started REAL NOT NULL, completed REAL NOT NULL, spooled INTEGER NOT NULL, attempt INTEGER NOT NULL,
    count INTEGER NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS replies_task ON replies (task, engine);
CREATE TABLE IF NOT EXISTS outputs (
    task TEXT NOT NULL, engine INTEGER NOT NULL, stream TEXT NOT NULL, data BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS outputs_task ON outputs (task);
CREATE TABLE IF NOT EXISTS engines (engine INTEGER PRIMARY KEY, record BLOB NOT NULL);
"""

DISPLAY = ""
"""The name in ``outputs.stream`` of what is no stream."""

ADD_REQUEST = "INSERT OR IGNORE INTO requests VALUES (?, ?, ?, ?, ?, ?, ?, NULL, 0, ?, ?)"

ADD_ENDED = """INSERT INTO requests VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?)
ON CONFLICT (task) DO UPDATE SET finished = coalesce(finished, excluded.finished), message = excluded.message"""
"""One that is written together with its only reply; much faster than ``ADD_REQUEST`` and ``CLOSE_REQUEST``."""

ADD_REPLY = "INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

ADD_OUTPUT = """INSERT INTO outputs SELECT ?1, ?2, ?3, ?4
WHERE EXISTS (SELECT 1 FROM requests WHERE task = ?1)"""

SMALL = 16 * 1024
"""Bytes of a request that is kept with its function and arguments when it has ended, so that it can be sent again."""

CLOSE_REQUEST = f"""UPDATE requests SET size = size + ?2, (finished, message) = (
SELECT CASE WHEN total(count) >= expected THEN coalesce(finished, ?3) ELSE finished END,
CASE WHEN total(count) < expected OR length(message) <= {SMALL} THEN message END
FROM replies WHERE replies.task = ?1) WHERE task = ?1"""

ADD_ENGINE = "INSERT OR REPLACE INTO engines VALUES (?, ?)"
DROP_ENGINE = "DELETE FROM engines WHERE engine = ?"

MARK_LOST = """INSERT INTO requests VALUES (?1, ?2, '', '', '[]', 0, ?3, ?3, 1, ?4, NULL)
ON CONFLICT (task) DO UPDATE SET lost = 1, finished = coalesce(finished, ?3)"""

LIST = """SELECT task, client, op, label, targets, submitted, finished, lost,
EXISTS (SELECT 1 FROM replies r WHERE r.task = q.task AND failure IS NOT NULL) FROM requests q"""

ROW_BYTES = 200
"""What a row costs besides its texts and blobs, for the limit on bytes."""

PRUNE_TO = 0.9
"""Once over a limit, drop until this fraction of it is left, so that pruning is rare."""


def client_of(task: str) -> str:
    """Return the client's part of a task id."""
    return task.rpartition("-")[0]


class Database:
    """The file. Whoever uses it sees to it that it is one thread at a time."""

    def __init__(self, path: Path, limits: StoreLimits, *, restore: bool = False) -> None:
        """Open or make the file; unless *restore*, what a former controller left unfinished is lost from now on.

        Raises:
            sqlite3.Error: the file cannot be made, or is not a store.
        """
        self._limits = limits
        self._db = connect(path)
        try:
            self._prepare(restore)
        except BaseException:
            self._db.close()
            raise

    def _prepare(self, restore: bool) -> None:
        limits = self._limits
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, SCHEMA_VERSION):
            raise sqlite3.DatabaseError(f"it is a store of version {version}, this is version {SCHEMA_VERSION}")
        self._db.executescript(SCHEMA)
        if version != SCHEMA_VERSION:  # else nothing is written: the disk may be full
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        page = self._db.execute("PRAGMA page_size").fetchone()[0]
        self._db.execute(f"PRAGMA max_page_count = {limits.file_bytes // page}")
        if restore:
            (found,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok" or not _has_our_tables(self._db):
                raise sqlite3.DatabaseError(found if found != "ok" else "its tables are not those of a store")
        else:
            self._db.execute("UPDATE requests SET lost = 1, finished = ? WHERE finished IS NULL", (clock.now(),))
            self._db.execute("DELETE FROM replies WHERE task NOT IN (SELECT task FROM requests)")
            self._db.execute("DELETE FROM engines")
            self._db.execute("UPDATE replies SET spooled = 0 WHERE spooled")
        self._count = self._bytes = 0
        self._recount()

    def past(self) -> Past:
        """Return all that a controller needs to go on where another one was killed.

        Raises:
            sqlite3.Error, msgspec.DecodeError, ProtocolError: the file is damaged.
        """
        return read_past(self._db)

    def write(self, records: Iterable[tuple[float, Kept]], lost: Iterable[str] = ()) -> None:
        """Write all *records* (each with its time) and mark the tasks in *lost*, in one transaction.

        Raises:
            sqlite3.Error: nothing was written.
        """
        records = list(records)
        requests, ended, replies, closed, added = _rows(records)
        outputs = _output_rows(records, closed)
        marks = [(task, client_of(task), clock.now(), ROW_BYTES) for task in lost]
        with self._transaction() as db:
            db.executemany(ADD_REQUEST, requests)
            db.executemany(ADD_ENDED, ended)
            db.executemany(ADD_REPLY, replies)
            db.executemany(ADD_OUTPUT, outputs)
            db.executemany(CLOSE_REQUEST, [(task, size, clock.now()) for task, size in closed.items()])
            db.executemany(MARK_LOST, marks)
            for _, message in records:
                if type(message) is EnginesChanged:
                    db.executemany(ADD_ENGINE, [(r.id, msgspec.msgpack.encode(r)) for r in message.joined])
                    db.executemany(DROP_ENGINE, [(engine,) for engine in message.left])
        self._count += len(requests) + len(ended) + len(marks)
        self._bytes += added + sum(closed.values())

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # a full disk may have ended it already
                self._db.execute("ROLLBACK")
            raise

    @property
    def full(self) -> bool:
        """Whether the number of requests or their bytes are over the limit."""
        return self._count > self._limits.requests or self._bytes > self._limits.bytes

    def prune(self) -> int:
        """Drop the requests that finished first until the limits are kept; return how many.

        Raises:
            sqlite3.Error: nothing was dropped.
        """
        limits = self._limits
        if self.full:
            self._recount()  # requests that came twice, or had been lost, were counted twice
        if self.full:
            return self._drop(int(limits.requests * PRUNE_TO), int(limits.bytes * PRUNE_TO))
        return self._drop(limits.requests, limits.bytes)

    def _recount(self) -> None:
        query = "SELECT count(*), coalesce(sum(size), 0) FROM requests"
        self._count, self._bytes = self._db.execute(query).fetchone()

    def _drop(self, requests: int, size: int) -> int:
        oldest = clock.now() - self._limits.age_s
        chosen: list[tuple[str]] = []
        count, total = self._count, self._bytes
        query = "SELECT task, size, finished FROM requests WHERE finished IS NOT NULL ORDER BY finished"
        with contextlib.closing(self._db.execute(query)) as rows:
            for task, row_bytes, finished in rows:
                if count <= requests and total <= size and finished >= oldest:
                    break
                chosen.append((task,))
                count -= 1
                total -= row_bytes
        if chosen:
            self._delete(chosen)
            self._count, self._bytes = count, total
        return len(chosen)

    def _delete(self, tasks: list[tuple[str]]) -> None:
        with self._transaction() as db:
            for table in ("replies", "outputs", "requests"):
                db.executemany(f"DELETE FROM {table} WHERE task = ?", tasks)

    def forget(self, tasks: Iterable[str]) -> None:
        """Drop these requests, with their replies and output.

        Raises:
            sqlite3.Error: nothing was dropped.
        """
        self._delete([(task,) for task in tasks])
        self._recount()

    @property
    def connection(self) -> sqlite3.Connection:
        """For reading, by the one thread that uses this object."""
        return self._db

    def select(self, selection: Selection, *, whole: bool) -> list[RequestRecord]:
        """Return the requests that *selection* wants; with *whole*, those it names, with replies and output."""
        if whole:
            found = [read_request(self._db, task) for task in selection.tasks or ()]
            return [record for record in found if record is not None]
        return select_requests(self._db, selection)

    def latest(self) -> Point:
        """See ``missed.latest``."""
        return missed.latest(self._db)

    def missed(self, client: str, after: Point) -> Missed:
        """See ``missed.read``."""
        return missed.read(self._db, client, after)

    def replies(self, task: str) -> list[Reply]:
        """See ``read_replies``."""
        return read_replies(self._db, task)

    def close(self) -> None:
        """Fold the log into the file and close it."""
        self._db.close()


def connect(path: Path) -> sqlite3.Connection:
    """Open the file for any thread, with the write-ahead log that lets readers and the writer work side by side."""
    db = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")  # safe against any kill; a power cut may cost the last commits
        db.execute("PRAGMA journal_size_limit = 16777216")
    except sqlite3.Error:
        db.close()
        raise
    return db


def _has_our_tables(db: sqlite3.Connection) -> bool:
    """Say whether the tables have the columns that they should: SQLite cannot know that a name of one is damaged."""
    query = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
    with contextlib.closing(sqlite3.connect(":memory:")) as right:
        right.executescript(SCHEMA)
        return db.execute(query).fetchall() == right.execute(query).fetchall()


_Request = tuple[str, str, str, str, str, int, float, int, bytes]
"""Task, client, op, label, targets, expected, submitted, size, message."""


def _rows(
    records: Iterable[tuple[float, Kept]],
) -> tuple[list[_Request], list[tuple[object, ...]], list[Row], dict[str, int], int]:
    """Return the rows of requests, of those that have ended, and of replies; the bytes by which each request that is
    there grows, and those of new ones.
    """  # fmt: skip
    requests: dict[str, _Request] = {}
    ended: list[tuple[object, ...]] = []
    replies: list[Row] = []
    closed: dict[str, int] = {}
    added = 0
    now = clock.now()
    for at, m in records:
        if type(m) is Submit:
            row = _request_row(m, at)
            requests[m.task] = row
            added += row[7]
            if any(content.transfer for content in m.contents):
                closed.setdefault(m.task, 0)  # it is written when its contents are whole; it may have ended by then
        elif isinstance(m, Reply | Replies):
            reply = row_of_bundle(m) if isinstance(m, Replies) else row_of(m)
            replies.append(reply)
            kept = len(reply[3] or b"") + len(reply[2] or "") + ROW_BYTES
            new = requests.get(m.task)
            if new is not None and new[5] == 1 and m.task not in closed:
                del requests[m.task]
                ended.append(_ended_row(new, now, kept))
                added += kept
            else:
                closed[m.task] = closed.get(m.task, 0) + kept
    return list(requests.values()), ended, replies, closed, added


def _request_row(m: Submit, at: float) -> _Request:
    targets = msgspec.json.encode(m.targets).decode() if m.targets else "[]"
    expected = len(m.targets) if m.placement is None else 1
    message = encode(m)
    size = len(targets) + len(m.label) + ROW_BYTES + (len(message) if len(message) <= SMALL else 0)
    return m.task, client_of(m.task), m.op, m.label, targets, expected, at, size, message


def _ended_row(request: _Request, finished: float, grows: int) -> tuple[object, ...]:
    *first, size, message = request
    return *first, finished, size + grows, message if len(message) <= SMALL else None


def _output_rows(records: Iterable[tuple[float, Kept]], closed: dict[str, int]) -> list[tuple[object, ...]]:
    """Return the rows of what tasks printed and displayed; add their bytes to *closed*."""
    rows: list[tuple[object, ...]] = []
    for _, m in records:
        if type(m) is Output:
            stream, data = m.stream, m.text
        elif type(m) is Display:
            stream, data = DISPLAY, m.data
        else:
            continue
        rows.append((m.task, m.engine, stream, data))
        closed[m.task] = closed.get(m.task, 0) + len(data) + ROW_BYTES
    return rows


# --- reading -------------------------------------------------------------------------------------


def read_requests(db: sqlite3.Connection) -> Iterator[RequestRecord]:
    """Yield all requests, in the order of their arrival, without their replies."""
    for row in db.execute(f"{LIST} ORDER BY submitted, rowid"):
        yield _request(row)


def read_request(db: sqlite3.Connection, task: str) -> RequestRecord | None:
    """Return one request with its replies, or None if there is none of that name."""
    row = db.execute(f"{LIST} WHERE task = ?", (task,)).fetchone()
    if row is None:
        return None
    replies = tuple(sorted(map(_reply, read_replies(db, task)), key=lambda reply: reply.engine))
    query = "SELECT engine, stream, data FROM outputs WHERE task = ? ORDER BY rowid"
    return replace(_request(row), replies=replies, outputs=tuple(_output(task, *r) for r in db.execute(query, (task,))))


def select_requests(db: sqlite3.Connection, selection: Selection) -> list[RequestRecord]:
    """Return the youngest requests that *selection* wants, in the order of their arrival, without their replies.

    ``engines`` is filled in.
    """
    found: list[RequestRecord] = []
    if selection.tasks is not None:
        records = (record for task in selection.tasks if (record := read_request(db, task)) is not None)
    else:
        records = (_request(row) for row in db.execute(f"{LIST} ORDER BY submitted DESC, rowid DESC"))
    for record in records:
        if len(found) >= selection.limit:
            break
        if selection.wants(record):
            found.append(record)
    if selection.tasks is None:
        found.reverse()
    return [replace(r, engines=r.targets or _engines(db, r.task), replies=(), outputs=()) for r in found]


def _engines(db: sqlite3.Connection, task: str) -> list[int]:
    return [row[0] for row in db.execute("SELECT engine FROM replies WHERE task = ? AND engine >= 0", (task,))]


def _output(task: str, engine: int, stream: str, data: bytes) -> Output | Display:
    return Display(task, engine, data) if stream == DISPLAY else Output(task, engine, stream, data)


def read_past(db: sqlite3.Connection) -> Past:
    """Return what a controller needs to go on; see ``Database.past``."""
    decode_record = msgspec.msgpack.Decoder(EngineRecord).decode
    engines = [decode_record(record) for (record,) in db.execute("SELECT record FROM engines ORDER BY engine")]
    ends: dict[str, dict[int, bool]] = {}
    # contents may be a gigabyte together: only those that stand for several replies are read
    query = "SELECT task, engine, failure IS NULL, CASE WHEN engine < -1 THEN content END FROM replies"
    for task, engine, succeeded, bundle in db.execute(query):
        ends.setdefault(task, {}).update([(engine, bool(succeeded))] if bundle is None else outcomes_of(bundle))
    tasks = []
    for task, client, finished, message in db.execute(
        "SELECT task, client, finished, message FROM requests ORDER BY rowid"
    ):
        submit = None if finished is not None or message is None else decode(message)
        if isinstance(submit, Submit | None):
            tasks.append(PastTask(task, Peer(f"client:{client}"), ends.pop(task, {}), submit))
    tasks = _in_order(tasks)
    early = [reply for task in ends for reply in read_replies(db, task)]
    large = db.execute("SELECT task, engine, size, spooled FROM replies WHERE spooled ORDER BY rowid")
    spooled = [Reply(task, engine, Content(b"", size, key)) for task, engine, size, key in large]
    return Past(engines, tasks, early, spooled)


def _in_order(tasks: list[PastTask]) -> list[PastTask]:
    """Return *tasks* with those of each client in the order of submission: large ones were written when whole."""
    places: dict[str, list[int]] = {}
    for place, task in enumerate(tasks):
        places.setdefault(task.owner, []).append(place)
    ordered = list(tasks)
    for mine in places.values():
        for place, task in zip(mine, sorted((tasks[p] for p in mine), key=_number), strict=True):
            ordered[place] = task
    return ordered


def _number(task: PastTask) -> int:
    number = task.task.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


def read_replies(db: sqlite3.Connection, task: str) -> list[Reply]:
    """Return the replies to one task, as they were sent but for the keys of spooled contents."""
    rows = db.execute("SELECT * FROM replies WHERE task = ?", (task,))
    return [reply for row in rows for reply in replies_of(row)]


def _request(row: Sequence[object]) -> RequestRecord:
    task, client, op, label, targets, submitted, finished, lost, failed = row
    if lost:
        state = RequestState.LOST
    elif finished is None:
        state = RequestState.PENDING
    else:
        state = RequestState.FAILED if failed else RequestState.OK
    fields = (task, client, op, label, msgspec.json.decode(str(targets), type=list[int]), submitted, finished, state)
    return RequestRecord(*fields)  # type: ignore[arg-type]  # the columns are typed by the schema


def _reply(reply: Reply) -> ReplyRecord:
    content = reply.content
    value = None if content.inline == b"" and content.size else content.inline
    size = content.size or len(content.inline)
    return ReplyRecord(reply.engine, reply.failure, value, size, reply.started, reply.completed)
