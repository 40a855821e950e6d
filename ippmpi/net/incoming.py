"""One accepted connection, and which part of a conversation it is."""

from __future__ import annotations

import logging
import time
from typing import Protocol

from ippmpi.errors import ProtocolError
from ippmpi.net.conversation import Conversation, Delivery, Wire
from ippmpi.net.quiet import Quiet
from ippmpi.wire.frames import decode_link
from ippmpi.wire.messages import Batch, Chunk, Grant

log = logging.getLogger(__name__)


class Host(Protocol):
    """Whom a connection belongs to (``Router``)."""

    quiet: Quiet

    def on_message(self, delivery: Delivery) -> None:
        """Take a message."""

    def greet(self, connection: Connection, frame: bytes) -> None:
        """Take the first frame of a connection."""

    def turn_away(self, connection: Connection) -> None:
        """Close the connection of a stranger who made a mistake."""

    def broken(self, connection: Connection) -> None:
        """A connection is gone."""


class Connection:
    """One accepted connection: a stranger until its Hello, then the control or data wire of a conversation."""

    __slots__ = ("_router", "channel", "conversation", "key_role", "wire")

    def __init__(self, router: Host, key_role: str | None) -> None:
        """``key_role``: the role its key has; None on the Unix socket, where it may have the one it says."""
        self._router = router
        self.key_role = key_role
        self.wire: Wire | None = None
        self.conversation: Conversation | None = None
        self.channel = ""

    def on_frame(self, frame: bytes, data: memoryview) -> None:
        """Take one frame; a wrong one is logged and dropped, and so is a stranger who sends one."""
        try:
            self._take(frame, data)
        except ProtocolError as error:
            self._quiet.warning("dropped a frame of %s: %s", self, error)
        except Exception:  # a defect that one peer has found must not end the work of all others
            self._quiet.warning("dropped a frame of %s", self, exc_info=True)
        else:
            return
        if self.conversation is None:
            self._router.turn_away(self)

    def turn_away(self, why: str) -> None:
        """Close a stranger's connection."""
        log.debug("%s is turned away: %s", self, why)
        if self.wire is not None:
            self.wire.close()

    @property
    def _quiet(self) -> Quiet:
        return self._router.quiet if self.conversation is None else self.conversation.quiet

    def on_broken(self, why: str) -> None:
        """Tell the router that this connection is gone."""
        log.debug("%s: %s", self, why)
        self._router.broken(self)

    def _take(self, frame: bytes, data: memoryview) -> None:
        conversation = self.conversation
        if conversation is None:
            self._router.greet(self, frame)
            return
        record = decode_link(frame)
        conversation.heard = time.monotonic()
        if type(record) is Batch and self.channel == "control":
            on_message = self._router.on_message
            for delivery in conversation.on_batch(record):
                on_message(delivery)
        elif isinstance(record, Grant) and self.channel == "data":
            conversation.on_grant(record)
        elif isinstance(record, Chunk) and self.channel == "data":
            conversation.on_chunk(record, data)
        else:
            raise ProtocolError(f"{type(record).__name__} on the {self.channel} connection")

    def __str__(self) -> str:
        """Say who is at the other end."""
        return "a stranger" if self.conversation is None else f"{self.conversation.name} ({self.channel})"
