"""What was stored about one client's tasks behind a point, in pages: for a client that was too slow, or away."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from ippmpi.store.bundles import message_of
from ippmpi.wire.messages import Display, Output, Replies, Reply

PAGE_BYTES = 4 << 20
PAGE_ROWS = 2000

OUTPUTS = """SELECT o.rowid, o.task, o.engine, o.stream, o.data FROM outputs o JOIN requests q ON q.task = o.task
WHERE o.rowid > ? AND q.client = ? ORDER BY o.rowid LIMIT ?"""

REPLIES = """SELECT r.rowid, r.* FROM replies r JOIN requests q ON q.task = r.task
WHERE r.rowid > ? AND r.spooled = 0 AND q.client = ? ORDER BY r.rowid LIMIT ?"""


class Point(NamedTuple):
    """The last row of each table that counts as sent."""

    output: int = 0
    reply: int = 0


class Missed(NamedTuple):
    """Some of what comes behind a point, and the point behind that. Nothing, if there is no more."""

    messages: list[Output | Display | Reply | Replies]
    point: Point


def latest(db: sqlite3.Connection) -> Point:
    """Return the point behind all that is stored."""
    query = "SELECT (SELECT coalesce(max(rowid), 0) FROM outputs), (SELECT coalesce(max(rowid), 0) FROM replies)"
    return Point(*db.execute(query).fetchone())


def read(db: sqlite3.Connection, client: str, after: Point) -> Missed:
    """Return about a page of what is behind *after*, without values in the spool.

    Replies only once there is no more output: what a task has printed comes before its end.
    """
    messages: list[Output | Display | Reply | Replies] = []
    last_output, last_reply = after
    room = PAGE_BYTES
    for rowid, task, engine, stream, data in db.execute(OUTPUTS, (after.output, client, PAGE_ROWS)):
        messages.append(Output(task, engine, stream, data) if stream else Display(task, engine, data))
        last_output, room = rowid, room - len(data)
        if room <= 0:
            break
    if len(messages) == PAGE_ROWS or room <= 0:
        return Missed(messages, Point(last_output, last_reply))
    for rowid, *row in db.execute(REPLIES, (after.reply, client, PAGE_ROWS)):
        messages.append(message_of(tuple(row)))
        last_reply, room = rowid, room - row[4]
        if room <= 0:
            break
    return Missed(messages, Point(last_output, last_reply))
