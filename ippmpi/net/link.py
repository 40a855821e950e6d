"""The dialling side: one conversation with one listener, over connections that come and go.

A broken connection is closed and a new one says hello; nothing relies on transparent reconnection.
"""

from __future__ import annotations

import enum
import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from ippmpi.errors import ProtocolError
from ippmpi.net.compatible import python
from ippmpi.net.conversation import ACK_DELAY_S, Conversation, Delivery, Wire, pack_about, unpack_about
from ippmpi.net.driver import Driver
from ippmpi.net.loop import Loop, Timer
from ippmpi.net.stream import Stream, connect
from ippmpi.wire.frames import decode_link, encode_link
from ippmpi.wire.messages import PROTOCOL_VERSION, Batch, Chunk, Denied, Grant, Hello, Welcome

if TYPE_CHECKING:
    from ippmpi.net.keys import KeyPair

log = logging.getLogger(__name__)

PING_S = 3.0
SILENT_S = 8.0  # a live peer speaks at least every 2 * PING_S
FIRST_RETRY_S = 0.01
LONGEST_RETRY_S = 2.0
HELLO_S = 10.0
UNIX = "unix://"


class LinkState(enum.Enum):
    """How a link stands."""

    CONNECTING = "connecting"
    OPEN = "open"
    REFUSED = "refused"
    CLOSED = "closed"


class Dial(msgspec.Struct, frozen=True):
    """Where to, and as whom. ``endpoints`` (``unix://path``, ``tcp://host:port``) are tried in turn.

    TCP needs the listener's public key and our own pair. ``key`` is the public key that the hello names, if
    it is not that of ``keys``.
    """

    endpoints: tuple[str, ...]
    role: str
    peer: str
    about: Mapping[str, object] = {}
    server_public: str = ""
    keys: KeyPair | None = None
    key: str = ""

    @property
    def known_as(self) -> str:
        """What ``Hello.key`` says."""
        return self.key or (self.keys.public if self.keys is not None else "")


class _Channel:
    """One connection of a link (control or data): dial, hello, break, dial again."""

    def __init__(self, link: Link, name: str) -> None:
        self._link = link
        self.name = name
        self._wire: Wire | None = None
        self._retry: Timer | None = None
        self._retry_s = FIRST_RETRY_S
        self._attempt = 0
        self.open = False
        self.pings = False
        self._patience: Timer | None = None

    def dial(self) -> None:
        """Open a connection, unless there is one or one is due."""
        if self._wire is not None or self._retry is not None or self._link.ended:
            return
        link = self._link
        endpoint = link.dial.endpoints[self._attempt % len(link.dial.endpoints)]
        self._attempt += 1
        try:
            self._wire = self._connect(endpoint)
        except OSError as error:
            log.debug("%s: %s", endpoint, error)
            self._dial_later()
            return
        self._wire.send(encode_link(link.hello(self.name)))
        self._patience = link.loop.call_later(HELLO_S, self._give_up)

    def _connect(self, endpoint: str) -> Wire:
        loop, dial = self._link.loop, self._link.dial
        self.pings = not endpoint.startswith(UNIX)
        if not self.pings:
            return Stream(loop, connect(endpoint.removeprefix(UNIX)), self._on_frame, self._on_broken)
        from ippmpi.net.dealer import Dealer  # an engine never dials TCP and need not load ZeroMQ

        return Dealer(
            loop,
            endpoint,
            server_public=dial.server_public,
            keys=dial.keys,
            on_frame=self._on_frame,
            on_broken=self._on_broken,
        )

    def _give_up(self) -> None:
        if not self.open:
            self.hang_up("no answer to the hello")

    def _on_broken(self, why: str) -> None:
        self.hang_up(why)

    def _on_frame(self, frame: bytes, data: memoryview) -> None:
        try:
            self._take(frame, data)
        except ProtocolError as error:
            log.warning("dropped a frame from %s: %s", self._link.conversation.name, error)

    def _take(self, frame: bytes, data: memoryview) -> None:
        record = decode_link(frame)
        conversation = self._link.conversation
        conversation.heard = self._link.loop.now
        if type(record) is Batch and self.open:
            on_message = self._link.on_message
            for delivery in conversation.on_batch(record):
                on_message(delivery)
            if self.pings and not record.messages:
                self._link.answer_sign()
        elif isinstance(record, Chunk) and self.open:
            conversation.on_chunk(record, data)
        elif isinstance(record, Grant) and self.open:
            conversation.on_grant(record)
        elif isinstance(record, Welcome):
            self._welcomed(record)
        elif isinstance(record, Denied):
            self._link.refused(record.reason)
        else:
            raise ProtocolError(f"{type(record).__name__} on the {self.name} connection")

    def _welcomed(self, welcome: Welcome) -> None:
        if self.open or self._wire is None:
            raise ProtocolError("a second Welcome")
        self.open = True
        self._retry_s = FIRST_RETRY_S
        self._attempt -= 1  # what has worked is tried first next time
        self._link.opened(self.name, self._wire, welcome)

    def hang_up(self, why: str) -> None:
        """Close the connection and, unless the link has ended, dial again after a while."""
        was_open = self.open
        self.close()
        if self._link.ended:
            return
        if not was_open and self.pings and why == _unknown_key():
            self._link.refused(why)
            return
        if was_open:
            self._link.lost(self.name, why)
        self._dial_later()

    def _dial_later(self) -> None:
        delay = self._retry_s * (0.5 + os.urandom(1)[0] / 255)  # jitter: a thousand peers must not come at once
        self._retry_s = min(LONGEST_RETRY_S, self._retry_s * 1.5)
        self._retry = self._link.loop.call_later(delay, self._redial)

    def _redial(self) -> None:
        self._retry = None
        self.dial()

    def close(self, linger_s: float = 0.0) -> None:
        """Close the connection, if there is one."""
        for timer in (self._patience, self._retry):
            if timer is not None:
                timer.cancel()
        self._retry = None
        wire, self._wire = self._wire, None
        self.open = False
        if wire is not None:
            wire.close(linger_s)


def _unknown_key() -> str:
    from ippmpi.net.dealer import UNKNOWN_KEY

    return UNKNOWN_KEY


class Link:
    """One conversation with one listener.

    Callbacks, on the loop's thread: ``on_message(delivery)``; ``on_state(state, text)``.
    """

    def __init__(
        self,
        loop: Loop,
        dial: Dial,
        *,
        on_message: Callable[[Delivery], None],
        on_state: Callable[[LinkState, str], None],
    ) -> None:
        """Dial at once; what is sent meanwhile waits."""
        self.loop = loop
        self.dial = dial
        self.on_message = on_message
        self._on_state = on_state
        self.state = LinkState.CONNECTING
        self._token = os.urandom(16)
        self._life = b""  # of the listener that the session is with
        self._dirty = False
        self._ack_timer = False
        self.conversation = Conversation("controller", "controller", self._on_dirty)
        self._control = _Channel(self, "control")
        self._data = _Channel(self, "data")
        loop.add_flush(self._flush)
        self._control.dial()
        self._ping = loop.call_later(PING_S, self._watch)

    @property
    def ended(self) -> bool:
        """Whether no further connection will be made."""
        return self.state in (LinkState.REFUSED, LinkState.CLOSED)

    def hello(self, channel: str) -> Hello:
        """Return the first message of a connection."""
        return Hello(
            PROTOCOL_VERSION,
            self.dial.role,
            self.dial.peer,
            self._token,
            channel,
            self.conversation.session.received,
            python(),
            pack_about(self.dial.about),
            self.dial.known_as,
            self._life,
        )

    # --- news from the channels --------------------------------------------------------------

    def opened(self, channel: str, wire: Wire, welcome: Welcome) -> None:
        """A connection was accepted."""
        conversation = self.conversation
        if channel == "data":
            conversation.open_data(wire)
            return
        self._life = welcome.life
        conversation.about = unpack_about(welcome.about)
        conversation.open_control(wire, known=welcome.known, received=welcome.received)
        if not welcome.known:
            self._data.close()
            conversation.lose_data()
        self._set(LinkState.OPEN, "")

    def lost(self, channel: str, why: str) -> None:
        """A connection broke."""
        if channel == "data":
            self.conversation.lose_data()
        else:
            self.conversation.lose_control()
            self._set(LinkState.CONNECTING, why)

    def refused(self, reason: str) -> None:
        """The listener does not want us; final."""
        self._close_channels()
        self._set(LinkState.REFUSED, reason)

    def _set(self, state: LinkState, text: str) -> None:
        self.state = state
        self._on_state(state, text)

    # --- flushing ----------------------------------------------------------------------------

    def _on_dirty(self, conversation: Conversation) -> None:  # noqa: ARG002 - there is one
        self._dirty = True

    def _flush(self) -> None:
        if not self._dirty:
            return
        self._dirty = False
        if self.conversation.transfers.active and self.state is LinkState.OPEN:
            self._data.dial()
        if self.conversation.flush() and not self._ack_timer:
            self._ack_timer = True
            self.loop.call_later(ACK_DELAY_S, self._send_late_ack)

    def _send_late_ack(self) -> None:
        self._ack_timer = False
        if self.conversation.session.owes_ack:
            self.conversation.notice()

    def _watch(self) -> None:
        """Every few seconds: say that we live, notice a silent listener. A Unix socket tells by itself."""
        if self.ended:
            return
        self._ping = self.loop.call_later(PING_S, self._watch)
        if self.state is not LinkState.OPEN or not self._control.pings:
            return
        now = time.monotonic()
        if now - self.conversation.heard > SILENT_S:
            self._control.hang_up("the controller has fallen silent")
        elif now - self.conversation.spoke > PING_S * 0.9:
            self.conversation.notice()

    def answer_sign(self) -> None:
        """Answer a sign of life with one, if one is due soon: a listener of many peers wakes once for all of them."""
        if time.monotonic() - self.conversation.spoke > PING_S / 2:
            self.conversation.notice()

    # --- the end -----------------------------------------------------------------------------

    def _close_channels(self, linger_s: float = 0.0) -> None:
        self._control.close(linger_s)
        self._data.close(linger_s)
        self.conversation.lose_control()
        self.conversation.lose_data()

    def close(self, linger_s: float = 1.0) -> None:
        """Send what is queued and close."""
        self._ping.cancel()
        self._flush()
        self._send_late_ack()
        self.state = LinkState.CLOSED
        self._close_channels(linger_s)


class LinkThread:
    """A link with a loop of its own in a daemon thread. ``call_soon`` is how other threads reach it.

    ``link`` and its ``conversation`` are there once it was started; they belong to that thread.
    """

    link: Link
    conversation: Conversation

    def __init__(
        self,
        name: str,
        dial: Dial,
        *,
        on_message: Callable[[Delivery], None],
        on_state: Callable[[LinkState, str], None],
    ) -> None:
        """Prepare; ``start`` dials. (The callbacks may need what the caller makes of this object.)"""
        self.loop = Loop()
        self.call_soon = self.loop.call_soon
        self._dial, self._on_message, self._on_state = dial, on_message, on_state
        self._linger_s = 1.0
        self._driver = Driver(self.loop, name, self._close)
        self.drive, self.turn = self._driver.drive, self._driver.turn

    def start(self) -> None:
        """Dial, and start the thread. (In this order: nobody may run the loop while the link is being made.)"""
        self.link = Link(self.loop, self._dial, on_message=self._on_message, on_state=self._on_state)
        self.conversation = self.link.conversation
        self._driver.start()

    def _close(self) -> None:
        self.link.close(self._linger_s)

    def close(self, linger_s: float = 1.0) -> None:
        """Send what is queued and end the thread. Waits for it unless called on it."""
        self._linger_s = linger_s
        self.loop.stop()
        if self._driver.join(linger_s + 5):
            self.loop.close()
