"""Replies that came together are one row: a call on all ranks costs a row for each node, not for each rank.

Such a row is told from others by its engine, which is below -1. Its ``content`` is the whole message.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from ippmpi.wire.frames import encode
from ippmpi.wire.messages import Content, Failure, Replies, Reply

Row = tuple[str, int, str | None, bytes | None, int, float, float, int, int, int]
"""Task, engine, failure, content, size, started, completed, spooled, attempt, count."""

_decode = msgspec.msgpack.Decoder(Replies).decode


def row_of(reply: Reply) -> Row:
    """Return the row of one reply; a large value is in the spool."""
    content = reply.content
    value = None if content.transfer else content.inline
    size = content.size or len(content.inline)
    times = (reply.started, reply.completed)
    return reply.task, reply.engine, _json(reply.failure), value, size, *times, content.transfer, reply.attempt, 1


def row_of_bundle(message: Replies) -> Row:
    """Return the row of several; their failures count as one."""
    replies, content = message.replies, encode(message)
    failure = next((reply.failure for reply in replies if reply.failure is not None), None)
    times = (min(reply.started for reply in replies), max(reply.completed for reply in replies))
    engine = -2 - min(reply.engine for reply in replies)
    return message.task, engine, _json(failure), content, len(content), *times, 0, replies[0].attempt, len(replies)


def message_of(row: Row) -> Reply | Replies:
    """Return what was stored as *row*, but for the key of a spooled content, which is that of the spool.

    Raises:
        msgspec.DecodeError: it is damaged.
    """
    task, engine, failure, content, size, started, completed, spooled, attempt, _ = row
    if engine < -1:
        return _decode(content or b"")
    why = None if failure is None else msgspec.json.decode(failure, type=Failure)
    return Reply(task, engine, Content(content or b"", size, spooled), why, started, completed, attempt)


def replies_of(row: Row) -> Iterator[Reply]:
    """Yield the replies in *row*."""
    message = message_of(row)
    if isinstance(message, Replies):
        yield from message.replies
    else:
        yield message


def outcomes_of(bundle: bytes) -> list[tuple[int, bool]]:
    """Return engines and whether they succeeded, of the content of a row that stands for several replies."""
    return [(reply.engine, reply.failure is None) for reply in _decode(bundle).replies]


def _json(failure: Failure | None) -> str | None:
    return None if failure is None else msgspec.json.encode(failure).decode()
