"""What can be read back from the store: requests, how they ended, and the limits of both."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from ippmpi.wire.messages import Display, Failure, Output


class RequestState(enum.Enum):
    """How far a request is. ``LOST``: the store could not keep all of it (full disk), or its controller ended first."""

    PENDING = "pending"
    OK = "ok"
    FAILED = "failed"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class ReplyRecord:
    """How a task ended on one engine.

    ``content`` is the value's blob if it travelled inline, else None: a value of ``size`` bytes that
    was a transfer is only kept until its client has it. Times are seconds since the epoch, on the engine.
    """

    engine: int
    failure: Failure | None
    content: bytes | None
    size: int
    started: float
    completed: float


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request. ``submitted`` and ``finished`` (None: not yet) are seconds since the epoch, here.

    ``replies`` (in engine order) and ``outputs`` (in the order of their arrival) are empty unless the one request was
    asked for by name. ``engines`` are the targets, or where a balanced task ended; empty unless a selection was read.
    """

    task: str
    client: str
    op: str
    label: str
    targets: list[int]
    submitted: float
    finished: float | None
    state: RequestState
    replies: tuple[ReplyRecord, ...] = ()
    outputs: tuple[Output | Display, ...] = ()
    engines: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Selection:
    """Which requests are wanted: those in ``tasks``, of ``client``, with ``label``, in ``state`` (None: all)."""

    limit: int
    tasks: tuple[str, ...] | None = None
    client: str | None = None
    label: str | None = None
    state: str | None = None

    def wants(self, record: RequestRecord) -> bool:
        """Say whether *record* is one of them, but for ``tasks``."""
        return (
            self.client in (None, record.client)
            and self.label in (None, record.label)
            and self.state in (None, record.state.value)
        )


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """What the store holds at most; what finished first goes first. Requests that run are never dropped.

    ``bytes`` counts labels, targets, values, failures and output. The file cannot grow past ``file_bytes``, whatever
    runs: beyond, records are lost as if the disk were full.
    """

    requests: int = 100_000
    bytes: int = 1 << 30
    age_s: float = 30 * 86400.0
    file_bytes: int = 3 << 30
