"""Opening the store of a controller that was killed, whatever has become of its file."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from pathlib import Path

import msgspec

from ippmpi.core.restoring import Past
from ippmpi.errors import ProtocolError
from ippmpi.store.database import Database, connect
from ippmpi.store.records import StoreLimits

log = logging.getLogger(__name__)

DAMAGES = (sqlite3.Error, msgspec.MsgspecError, ProtocolError, ValueError, TypeError, OverflowError)

NO_ROOM = ("SQLITE_FULL", "SQLITE_IOERR_SHM", "SQLITE_IOERR_WRITE")
"""What SQLite's errors are called when the disk is full: the file is as good as before."""

TABLES = ("requests", "replies", "outputs", "engines")
LOG_FILES = ("", "-wal", "-shm")


def reopen(path: Path, limits: StoreLimits) -> tuple[Database, Past]:
    """Open the store at *path* and read it; if it is damaged, put it aside and copy what can be read to a new one.

    Raises:
        sqlite3.Error, OSError: not even a new file can be made, or the disk is full. Then nothing was changed.
    """
    try:
        return _opened(path, limits)
    except DAMAGES as error:
        if getattr(error, "sqlite_errorname", "").startswith(NO_ROOM):
            raise
        aside = _put_aside(path)
        log.error("the store %s is damaged (%s): it is kept as %s, what can be read of it goes on", path, error, aside)
    with contextlib.suppress(*DAMAGES):
        _copy(aside, path, limits)
        return _opened(path, limits)
    log.error("nothing in it can be used; starting with an empty store")
    _put_aside(path)
    return _opened(path, limits)


def _opened(path: Path, limits: StoreLimits) -> tuple[Database, Past]:
    database = Database(path, limits, restore=True)
    try:
        return database, database.past()
    except BaseException:
        database.close()
        raise


def _put_aside(path: Path) -> Path:
    aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
    for ending in LOG_FILES:  # the log belongs to the file of its name
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{path}{ending}", f"{aside}{ending}")
    return aside


def _copy(source: Path, target: Path, limits: StoreLimits) -> None:
    """Copy rows, table by table, as far as they can be read."""
    Database(target, limits, restore=True).close()
    with contextlib.closing(sqlite3.connect(source)) as old, contextlib.closing(connect(target)) as new:
        old.execute("PRAGMA writable_schema = ON")  # else SQLite refuses a file that is shorter than it says
        for table in TABLES:
            rows = 0
            with contextlib.suppress(sqlite3.Error):
                for row in old.execute(f"SELECT * FROM {table}"):
                    new.execute(f"INSERT OR IGNORE INTO {table} VALUES ({', '.join('?' * len(row))})", row)
                    rows += 1
            log.warning("%d rows of %s were saved", rows, table)
