"""What the core asks the outside world to do."""

from __future__ import annotations

from dataclasses import dataclass

from ippmpi.ids import Peer, TaskId
from ippmpi.wire.messages import Content, Message


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
    """Store a new request (``Submit``), one of its ends (``Reply``), or who came and went (``EnginesChanged``).

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

    ``complete``: what is not in the store is lost, and fails.
    """

    peer: Peer
    task: TaskId
    engines: list[int]
    complete: bool


@dataclass(frozen=True, slots=True)
class Stop:
    """End the controller, in good order."""

    reason: str


Effect = Send | Keep | Release | Replay | Stop
