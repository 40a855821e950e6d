"""What the core asks the outside world to do."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from ippmpi.ids import Peer, TaskId
from ippmpi.wire.messages import Content, Message


class Wanted(msgspec.Struct, frozen=True):
    """Of the question ``results``: which stored requests. None: whatever they have there."""

    limit: int = 1000
    tasks: list[str] | None = None
    client: str | None = None
    label: str | None = None
    state: str | None = None


@dataclass(frozen=True, slots=True)
class Send:
    """Send *message* to *peer*.

    Inside the core ``Content.transfer`` is a key of the controller's spool; the controller
    translates it to and from the transfer numbers of each link.
    """

    peer: Peer
    message: Message


@dataclass(frozen=True, slots=True)
class Keep:
    """Store a new request (``Submit``), one of its ends (``Reply``), what it printed, or who came and went.

    The sender of the message that caused it is acknowledged when it is stored.
    """

    task: TaskId
    message: Message


@dataclass(frozen=True, slots=True)
class Release:
    """Nobody needs this spooled content any more."""

    content: Content


@dataclass(frozen=True, slots=True)
class Replay:
    """Send the stored replies of *task* to *peer* again: those of *engines*, or (none named) the one there is.

    What is not in the store is lost, and fails.
    """

    peer: Peer
    task: TaskId
    engines: list[int]


@dataclass(frozen=True, slots=True)
class Shelve:
    """Nobody waits for the spooled content of this result: keep it for whoever asks, as long as there is room."""

    content: Content


@dataclass(frozen=True, slots=True)
class Look:
    """Answer question *request* of *peer* with the stored requests that *wanted* describes."""

    peer: Peer
    request: int
    wanted: Wanted


@dataclass(frozen=True, slots=True)
class Retell:
    """Send *peer* all that is stored of *tasks* (replies and output), then answer its question *request*.

    What is sent to it about one of them meanwhile waits until that is through, so everything comes once and in order.
    *live* are those that still run: what is missing of the others will never come.
    """

    peer: Peer
    request: int
    tasks: tuple[TaskId, ...]
    live: frozenset[TaskId]


@dataclass(frozen=True, slots=True)
class Stop:
    """End the controller, in good order."""

    reason: str


Effect = Send | Keep | Release | Replay | Shelve | Look | Retell | Stop
