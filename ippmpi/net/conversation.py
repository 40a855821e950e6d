"""A session with one peer, and the wires it uses at the moment.

The same on both sides. It outlives its connections: while there is none, what is sent waits.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

import msgspec

from ippmpi.errors import ProtocolError
from ippmpi.net.quiet import Quiet
from ippmpi.net.session import OnAck, Session
from ippmpi.net.transfers import Sink, Source, Transfers
from ippmpi.wire.frames import decode, encode, encode_link
from ippmpi.wire.messages import Batch, Chunk, Grant, Message

if TYPE_CHECKING:
    from typing_extensions import Buffer

log = logging.getLogger(__name__)

ACK_DELAY_S = 0.05
"""An acknowledgement waits this long for a message to ride with."""

LONGEST_ABOUT = 16 * 1024
"""Bytes of what a peer says about itself."""


class Wire(Protocol):
    """One open connection.

    ``on_room``: called when ``full`` is no longer so.
    """

    on_room: Callable[[], None] | None

    def full(self) -> bool:
        """Say whether so much waits to leave that chunks should wait where they are."""

    def send(self, frame: bytes) -> None:
        """Send one frame."""

    def send_bulk(self, frame: bytes, data: Buffer) -> None:
        """Send a frame and the bytes that belong to it."""

    def close(self, linger_s: float = 0.0) -> None:
        """Close; what is queued may leave for at most *linger_s* seconds."""


class Delivery:
    """One incoming message; ``done`` says that its next owner has it."""

    __slots__ = ("_epoch", "_number", "message", "peer", "raw")

    def __init__(self, peer: Conversation, message: Message, raw: bytes, number: int) -> None:
        """Belong to *peer*'s session under *number*."""
        self.peer = peer
        self.message = message
        self.raw = raw
        self._number = number
        self._epoch = peer.session.epoch

    @property
    def settled(self) -> bool:
        """Whether its sender had taken all that was said to it before it sent this; ask while this is handled."""
        return self.peer.session.settled

    def done(self) -> None:
        """Let the acknowledgement of this message go out. Call exactly once."""
        peer = self.peer
        peer.session.done(self._number, self._epoch)
        if not peer._dirty:
            peer.touch()


class Conversation:
    """Everything said to and heard from one peer. Belongs to one loop's thread."""

    def __init__(self, name: str, role: str, on_dirty: Callable[[Conversation], None]) -> None:
        """Start without wires. *on_dirty* is called when there is something to flush."""
        self.name = name
        self.role = role
        self.about: Mapping[str, object] = {}
        self.python = ""
        self.fresh = True
        self.session = Session()
        self.transfers = Transfers()
        self.control: Wire | None = None
        self.data: Wire | None = None
        self.heard = time.monotonic()
        self.spoke = self.heard
        self.quiet = Quiet(log)
        self._on_dirty = on_dirty
        self._dirty = False

    # --- for the application -----------------------------------------------------------------

    def send(self, message: Message, *, on_ack: OnAck = None, urgent: bool = False) -> None:
        """Queue *message*; *on_ack* is called when its next owner has it."""
        self.send_raw(encode(message), on_ack=on_ack, urgent=urgent)

    def overtake(self, message: Message, on_ack: OnAck, behind: Callable[[Message], bool]) -> None:
        """Queue *message* before all that cannot leave now, but after the last one of which *behind* is true."""
        self.session.overtake(encode(message), on_ack, lambda raw: behind(decode(raw)))
        self.touch()

    def send_raw(self, raw: bytes, *, on_ack: OnAck = None, urgent: bool = False) -> None:
        """Queue an encoded message."""
        self.session.send(raw, on_ack, urgent=urgent)
        if not self._dirty:
            self.touch()

    def offer(self, source: Source) -> int:
        """Make *source* available to the peer; return the number for ``Content.transfer``."""
        self.touch()
        return self.transfers.offer(source)

    def withdraw(self, transfer: int) -> None:
        """Stop offering."""
        self.transfers.withdraw(transfer)

    def fail(self, transfer: int) -> None:
        """Say that the rest of an offered content will never come."""
        self.transfers.fail(transfer)
        self.touch()

    def more(self, transfer: int) -> None:  # noqa: ARG002 - all transfers are pumped at the next flush
        """Say that the source of *transfer* has more available than before."""
        self.touch()

    def accept(
        self,
        transfer: int,
        sink: Sink,
        on_end: Callable[[bool], None],
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        """Pull content *transfer* into *sink*; see ``Transfers.accept``."""
        self.transfers.accept(transfer, sink, on_end, on_lost)
        self.touch()

    def reject(self, transfer: int) -> None:
        """Do not take content *transfer* (any more)."""
        self.transfers.reject(transfer)
        self.touch()

    @property
    def backlog(self) -> int:
        """Bytes queued here whose next owner does not have them yet."""
        return self.session.backlog

    @property
    def stuck(self) -> bool:
        """Whether the peer does not take what is queued, or slowly."""
        return self.session.stuck

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be sent or acknowledged."""
        return self.session.idle

    # --- for the loop ------------------------------------------------------------------------

    def touch(self) -> None:
        """Have this conversation flushed at the end of the round."""
        if not self._dirty:
            self._dirty = True
            self._on_dirty(self)

    def flush(self) -> bool:
        """Send what may leave; return whether an acknowledgement is still owed."""
        self._dirty = False
        session, control = self.session, self.control
        if control is not None:
            while (batch := session.next_batch()) is not None:
                control.send(encode_link(batch))
                self.spoke = time.monotonic()
            if session.owes_window:
                self.notice()
        if self.data is not None:
            self._flush_data(self.data)
        return session.owes_ack and control is not None

    def notice(self) -> None:
        """Send the counters by themselves."""
        if self.control is not None:
            self.control.send(encode_link(self.session.notice()))
            self.spoke = time.monotonic()

    def _flush_data(self, data: Wire) -> None:
        for grant in self.transfers.take_grants():
            data.send(encode_link(grant))
        if data.full():
            return
        for chunk, part in self.transfers.chunks():
            data.send_bulk(encode_link(chunk), part)
            if data.full():  # the peer reads slowly, or never: its contents stay where they are
                return

    def on_batch(self, batch: Batch) -> list[Delivery]:
        """Take what came on the control wire. A malformed message in it is logged, dropped and acknowledged.

        Raises:
            ProtocolError: the numbers cannot be right.
        """
        deliveries = []
        for number, raw in self.session.take(batch):
            try:
                deliveries.append(Delivery(self, decode(raw), raw, number))
            except ProtocolError as error:
                self.quiet.warning("dropped a message of %s: %s", self.name, error)
                self.session.done(number, self.session.epoch)
        if self.session.has_news:
            self.touch()
        return deliveries

    def on_grant(self, grant: Grant) -> None:
        """Take a grant that came on the data wire."""
        answer = self.transfers.on_grant(grant)
        if answer is not None and self.data is not None:
            self.data.send_bulk(encode_link(answer), b"")
        self.touch()

    def on_chunk(self, chunk: Chunk, data: memoryview) -> None:
        """Take a chunk that came on the data wire."""
        self.transfers.on_chunk(chunk, data, time.monotonic())
        self.touch()

    # --- wires come and go -------------------------------------------------------------------

    def open_control(self, wire: Wire, *, known: bool, received: int) -> None:
        """Use *wire* for control; resume the session if both sides know it, else begin anew."""
        self.control = wire
        self.fresh = not known
        self.heard = time.monotonic()
        if known:
            self.session.resume(received)
        else:
            self.session.restart()
            self.transfers.lose_incoming()
        self.touch()

    def open_data(self, wire: Wire) -> None:
        """Use *wire* for chunks; ask again for what is missing."""
        self.data = wire
        wire.on_room = self.touch
        self.transfers.rewind()
        self.transfers.grant_again()
        self.touch()

    def lose_control(self) -> None:
        """The control wire is gone."""
        self.control = None

    def lose_data(self) -> None:
        """The data wire is gone."""
        self.data = None
        self.transfers.rewind()


def pack_about(about: Mapping[str, object]) -> bytes:
    """Encode what a peer says about itself."""
    return msgspec.msgpack.encode(dict(about))


def unpack_about(raw: bytes) -> dict[str, object]:
    """Decode what a peer says about itself.

    Raises:
        ProtocolError: not a msgpack map (or nil), or one that is too long.
    """
    if len(raw) > LONGEST_ABOUT:
        raise ProtocolError(f"{len(raw)} bytes of 'about'; at most {LONGEST_ABOUT} are allowed")
    try:
        return msgspec.msgpack.decode(raw, type=dict[str, object] | None) or {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"an 'about' that is not a map: {error}") from None
