"""What the agent's parts need from ``net``: few enough methods for a test to have its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ippmpi.net.transfers import Sink, Source
from ippmpi.wire.messages import Message

OnAck = Callable[[], None] | None


class Timer(Protocol):
    """Something that happens later unless it is cancelled."""

    def cancel(self) -> None:
        """Make it not happen."""


class Loop(Protocol):
    """One thread's waiting place."""

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        """Call *call* once, after *delay_s* seconds."""

    def add_reader(self, fd: int, call: Callable[[], None]) -> None:
        """Call *call* whenever *fd* is readable."""

    def remove_reader(self, fd: int) -> None:
        """Stop calling."""


class Conversation(Protocol):
    """A session with the controller or with one engine."""

    name: str

    @property
    def peer_pid(self) -> int:
        """Which process of this host it is, 0 if it is none."""

    @property
    def backlog(self) -> int:
        """Bytes queued and not yet acknowledged."""

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be sent or acknowledged."""

    def send(self, message: Message, *, on_ack: OnAck = None, urgent: bool = False) -> None:
        """Queue *message*; an urgent one before all that have not left."""

    def send_raw(self, raw: bytes, *, on_ack: OnAck = None, urgent: bool = False) -> None:
        """Queue an encoded message."""

    def offer(self, source: Source) -> int:
        """Return the number of a new outgoing transfer."""

    def withdraw(self, transfer: int) -> None:
        """Stop offering it."""

    def accept(
        self,
        transfer: int,
        sink: Sink,
        on_end: Callable[[bool], None],
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        """Pull an incoming transfer into *sink*; *on_lost*: see ``net.transfers``."""

    def reject(self, transfer: int) -> None:
        """Refuse, or stop, an incoming transfer."""


class Delivery(Protocol):
    """One incoming message."""

    @property
    def peer(self) -> Conversation:
        """Who sent it."""

    @property
    def message(self) -> Message:
        """The message, decoded and validated."""

    @property
    def raw(self) -> bytes:
        """The same as it came."""

    def done(self) -> None:
        """Let its acknowledgement go out; exactly once."""
