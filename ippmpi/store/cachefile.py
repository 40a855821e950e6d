"""The cache of results on disk: one SQLite file, and a file for each large value. One thread at a time.

Several controllers of one user may share the folder: each statement is good by itself, and a value's file has its
digest as its name. What was used longest ago goes first.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ippmpi import clock
from ippmpi.connection import check_private_folder
from ippmpi.handed import copy
from ippmpi.store.database import connect

FILE = "cache.sqlite"
VALUES = "values"
SCHEMA_VERSION = 1

SCHEMA = """
CREATE TABLE IF NOT EXISTS cached (
    digest TEXT PRIMARY KEY, name TEXT NOT NULL, size INTEGER NOT NULL, created REAL NOT NULL, used REAL NOT NULL,
    hits INTEGER NOT NULL, content BLOB
);
CREATE INDEX IF NOT EXISTS cached_used ON cached (used);
"""

PUT = "INSERT OR REPLACE INTO cached VALUES (?, ?, ?, ?, ?, 0, ?)"
LOOK = "SELECT size, content FROM cached WHERE digest = ?"
USE = "UPDATE cached SET used = max(used, ?), hits = hits + ? WHERE digest = ?"
LIST = "SELECT digest, name, size, created, used, hits FROM cached"

ROW_BYTES = 200
"""What an entry costs besides its value, for the limit on bytes."""

LARGEST_PART = 4
"""A value may take one part in so many of the whole."""

PRUNE_TO = 0.9
"""Once over a limit, drop until this fraction of it is left, so that pruning is rare."""

STRAY_S = 86400.0
"""A value's file that has no entry is removed when it is so old: another controller may be about to enter it."""


@dataclass(frozen=True, slots=True)
class CacheLimits:
    """What is kept at most; ``age_s`` counts from the last use."""

    entries: int = 100_000
    bytes: int = 1 << 30
    age_s: float = 30 * 86400.0


@dataclass(frozen=True, slots=True)
class Value:
    """What was found: ``content``, or (None) a file of ``size`` bytes that is at ``path`` now, and is the caller's."""

    size: int
    content: bytes | None = None
    path: Path | None = None


class CacheFile:
    """The entries. Methods raise sqlite3.Error or OSError if the disk is full, or broken."""

    def __init__(self, folder: Path, limits: CacheLimits) -> None:
        """Open what is in *folder*, which is made if it is missing. A damaged file is put aside.

        Raises:
            OSError: the folder cannot be made, or is not only this user's.
            sqlite3.Error: the file cannot be used.
        """
        check_private_folder(folder)
        self._values = folder / VALUES
        self._values.mkdir(mode=0o700, exist_ok=True)
        self._limits = limits
        self._used: dict[str, tuple[float, int]] = {}
        try:
            self._db = self._open(folder / FILE)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):  # locked, full, or not to be opened: it may be all right
                raise
            (folder / FILE).rename(folder / f"{FILE}.damaged-{time.time_ns()}")
            self._db = self._open(folder / FILE)
        self._count = self._bytes = 0
        self._recount()
        self._remove_strays()

    def _open(self, path: Path) -> sqlite3.Connection:
        db = connect(path)
        try:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, SCHEMA_VERSION):
                raise sqlite3.OperationalError(f"it is a cache of version {version}, this is version {SCHEMA_VERSION}")
            db.executescript(SCHEMA)
            if version != SCHEMA_VERSION:
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        except BaseException:
            db.close()
            raise
        return db

    @property
    def owes(self) -> bool:
        """Whether there is something to write down (``note_uses``)."""
        return bool(self._used)

    # --- values ------------------------------------------------------------------------------

    def get(self, digest: str, target: Path) -> Value | None:
        """Return the value under *digest*; a large one is put at *target*, where nothing may be."""
        row = self._db.execute(LOOK, (digest,)).fetchone()
        if row is None:
            return None
        size, content = row
        if content is None:
            try:
                _link(self._values / digest, target, size)
            except FileNotFoundError:  # another controller has just dropped it
                self._db.execute("DELETE FROM cached WHERE digest = ?", (digest,))
                return None
        _, hits = self._used.get(digest, (0.0, 0))
        self._used[digest] = clock.now(), hits + 1
        return Value(size, content, None if content is not None else target)

    def put(self, digest: str, name: str, value: bytes | Path, size: int) -> bool:
        """Keep *value*, a large one from the file where it is, of *size* bytes; say whether it is small enough."""
        if size > self._limits.bytes // LARGEST_PART or not self._limits.entries:
            return False
        content = value if isinstance(value, bytes) else None
        if isinstance(value, Path):
            self._keep_file(value, digest, size)
        now = clock.now()
        self._db.execute(PUT, (digest, name, size, now, now, content))
        self._count += 1
        self._bytes += size + ROW_BYTES
        if self._count > self._limits.entries or self._bytes > self._limits.bytes:
            self.prune()
        return True

    def _keep_file(self, source: Path, digest: str, size: int) -> None:
        """Write under another name, then rename: who finds a file finds all of it."""
        fresh = self._values / f"new-{os.getpid()}-{digest}"
        fresh.unlink(missing_ok=True)
        try:
            _link(source, fresh, size)
            fresh.replace(self._values / digest)
        finally:
            fresh.unlink(missing_ok=True)

    # --- looking, dropping -------------------------------------------------------------------

    def list(self, limit: int, name: str = "") -> list[dict[str, object]]:
        """Return the entries, of functions called *name* if one is given; those used last first."""
        self.note_uses()
        where = "WHERE name = ?" if name else ""
        query = f"{LIST} {where} ORDER BY used DESC LIMIT ?"
        keys = ("digest", "name", "size", "created", "used", "hits")
        return [
            dict(zip(keys, row, strict=True)) for row in self._db.execute(query, (*([name] if name else []), limit))
        ]

    def counts(self) -> dict[str, object]:
        """Return how much is there, and the limits."""
        self._recount()
        limits = self._limits
        most = {"most_entries": limits.entries, "most_bytes": limits.bytes, "age_s": limits.age_s}
        return {"entries": self._count, "bytes": self._bytes, **most, "folder": str(self._values.parent)}

    def drop(self, digests: Sequence[str], names: Sequence[str] = (), *, everything: bool = False) -> int:
        """Drop entries by digest, by the name of the function, or all; return how many."""
        chosen = list(digests)
        for name in names:
            chosen += [found for (found,) in self._db.execute("SELECT digest FROM cached WHERE name = ?", (name,))]
        if everything:
            chosen = [found for (found,) in self._db.execute("SELECT digest FROM cached")]
        dropped = self._drop(list(dict.fromkeys(chosen)))
        self._recount()
        return dropped

    def _drop(self, digests: Sequence[str]) -> int:
        dropped = 0
        with self._transaction():
            for digest in digests:
                self._used.pop(digest, None)
                dropped += self._db.execute("DELETE FROM cached WHERE digest = ?", (digest,)).rowcount
        for digest in digests:
            if digest.isalnum():  # else no digest of ours
                (self._values / digest).unlink(missing_ok=True)
        return dropped

    def prune(self) -> int:
        """Drop what is too old, and while there is too much what was used longest ago; return how many."""
        self.note_uses()
        self._recount()
        full = self._count > self._limits.entries or self._bytes > self._limits.bytes
        most = PRUNE_TO if full else 1.0
        oldest = clock.now() - self._limits.age_s
        chosen, count, size = [], self._count, self._bytes
        for digest, value_bytes, used in self._db.execute("SELECT digest, size, used FROM cached ORDER BY used"):
            if used >= oldest and count <= most * self._limits.entries and size <= most * self._limits.bytes:
                break
            chosen.append(digest)
            count, size = count - 1, size - value_bytes - ROW_BYTES
        dropped = self._drop(chosen) if chosen else 0
        self._recount()
        return dropped

    def note_uses(self) -> None:
        """Write down what was used since the last time."""
        if self._used:
            uses = [(at, hits, digest) for digest, (at, hits) in self._used.items()]
            self._used.clear()
            with self._transaction():
                self._db.executemany(USE, uses)

    def _recount(self) -> None:
        query = f"SELECT count(*), coalesce(sum(size + {ROW_BYTES}), 0) FROM cached"
        self._count, self._bytes = self._db.execute(query).fetchone()

    def _remove_strays(self) -> None:
        known = {digest for (digest,) in self._db.execute("SELECT digest FROM cached WHERE content IS NULL")}
        for path in self._values.iterdir():
            if path.name not in known:
                with contextlib.suppress(FileNotFoundError):
                    if clock.now() - path.stat().st_ctime > STRAY_S:
                        path.unlink()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        outer = self._db.in_transaction  # the caller's
        if outer:
            yield
            return
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # a full disk may have ended it already
                self._db.execute("ROLLBACK")
            raise

    def together(self) -> contextlib.AbstractContextManager[None]:
        """Do what is done inside in one transaction."""
        return self._transaction()

    def close(self) -> None:
        """Write down the last uses, and close the file."""
        try:
            self.note_uses()
        finally:
            self._db.close()


def _link(source: Path, target: Path, size: int) -> None:
    """Let *target* be the file *source* too, of *size* bytes, or a copy if it is on another disk."""
    if source.stat().st_size != size:
        raise FileNotFoundError(f"{source} has not {size} bytes")
    try:
        os.link(source, target)
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        _copy(source, target, size)


def _copy(source: Path, target: Path, size: int) -> None:
    read = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        written = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            copy(read, written, 0, size)
        finally:
            os.close(written)
    finally:
        os.close(read)
