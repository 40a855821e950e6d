"""The dialling side: one conversation with one listener, over connections that come and go.

A broken connection is closed and a new one, with a fresh routing id, says hello; ZeroMQ's own
reconnection is switched off, since it would go on silently where the other end may have changed.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import os
import platform
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import zmq
from zmq.utils.monitor import parse_monitor_message

from ippmpi.errors import ProtocolError
from ippmpi.net.conversation import ACK_DELAY_S, Conversation, Delivery, pack_about, unpack_about
from ippmpi.net.keys import KeyPair
from ippmpi.net.loop import Loop, Timer
from ippmpi.wire.frames import decode_link, encode_link
from ippmpi.wire.messages import PROTOCOL_VERSION, Batch, Chunk, Denied, Grant, Hello, Welcome

if TYPE_CHECKING:
    from typing_extensions import Buffer

log = logging.getLogger(__name__)

PING_S = 5.0
SILENT_S = 15.0
FIRST_RETRY_S = 0.01
LONGEST_RETRY_S = 2.0
HELLO_S = 10.0
ROUND = 200

_BROKEN = (
    zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_CONNECT_RETRIED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)


class LinkState(enum.Enum):
    """How a link stands."""

    CONNECTING = "connecting"
    OPEN = "open"
    REFUSED = "refused"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Dial:
    """Where to, and as whom. ``endpoints`` (ZeroMQ addresses) are tried in turn; CURVE needs both keys."""

    endpoints: tuple[str, ...]
    role: str
    peer: str
    about: Mapping[str, object] = field(default_factory=dict)
    server_public: str = ""
    keys: KeyPair | None = None


class DealerWire:
    """One open connection of a DEALER socket."""

    __slots__ = ("socket",)

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        """Send on *socket*."""
        self.socket = socket

    def send(self, frame: bytes) -> None:
        """Send one frame."""
        with contextlib.suppress(zmq.Again):  # no peer any more; the monitor tells, the session sends again
            self.socket.send(frame, zmq.NOBLOCK)

    def send_bulk(self, frame: bytes, data: Buffer) -> None:
        """Send a frame and its bytes, which are not copied."""
        with contextlib.suppress(zmq.Again):
            self.socket.send_multipart([frame, memoryview(data)], zmq.NOBLOCK, copy=False)


class _Channel:
    """One connection of a link (control or data): dial, hello, break, dial again."""

    def __init__(self, link: Link, name: str) -> None:
        self._link = link
        self.name = name
        self.socket: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        self._retry_s = FIRST_RETRY_S
        self._attempt = 0
        self.open = False
        self._patience: Timer | None = None

    def dial(self) -> None:
        if self.socket is not None or self._link.ended:
            return
        link = self._link
        dial = link.dial
        socket = link.context.socket(zmq.DEALER)
        for option, value in (
            (zmq.ROUTING_ID, b"\1" + os.urandom(15)),
            (zmq.RECONNECT_IVL, -1),
            (zmq.SNDHWM, 0),
            (zmq.RCVHWM, 0),
            (zmq.LINGER, 0),
        ):
            socket.setsockopt(option, value)
        endpoint = dial.endpoints[self._attempt % len(dial.endpoints)]
        self._attempt += 1
        if endpoint.startswith("tcp:"):
            socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
            if dial.keys is not None:
                socket.setsockopt(zmq.CURVE_SERVERKEY, dial.server_public.encode())
                socket.setsockopt(zmq.CURVE_PUBLICKEY, dial.keys.public.encode())
                socket.setsockopt(zmq.CURVE_SECRETKEY, dial.keys.secret.encode())
        self.socket = socket
        self._monitor = socket.get_monitor_socket(_BROKEN)
        link.loop.add_socket(self._monitor, self._on_event)
        link.loop.add_socket(socket, self._receive)
        socket.connect(endpoint)
        socket.send(encode_link(link.hello(self.name)), zmq.NOBLOCK)
        self._patience = link.loop.call_later(HELLO_S, self._give_up)

    def _give_up(self) -> None:
        if not self.open:
            self.hang_up()

    def _on_event(self) -> None:
        monitor = self._monitor
        while monitor is not None and monitor is self._monitor:
            try:
                frames = monitor.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            event = parse_monitor_message(frames)["event"]
            if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                self._link.refused("the controller does not know this key: is the connection file of another start?")
                return
            if event & _BROKEN:
                self._receive()  # what came before the break: the last words of one who left
                self.hang_up()

    def _receive(self) -> None:
        for _ in range(ROUND):
            socket = self.socket
            if socket is None or not int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                return
            frame = socket.recv(zmq.NOBLOCK)
            data = memoryview(b"")
            while socket.getsockopt(zmq.RCVMORE):
                data = socket.recv(zmq.NOBLOCK, copy=False).buffer
            try:
                self._take(frame, data)
            except ProtocolError as error:
                log.warning("dropped a frame from %s: %s", self._link.conversation.name, error)

    def _take(self, frame: bytes, data: memoryview) -> None:
        record = decode_link(frame)
        conversation = self._link.conversation
        conversation.heard = time.monotonic()
        if isinstance(record, Batch) and self.open:
            for delivery in conversation.on_batch(record):
                self._link.on_message(delivery)
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
        if self.open or self.socket is None:
            raise ProtocolError("a second Welcome")
        self.open = True
        self._retry_s = FIRST_RETRY_S
        self._link.opened(self.name, DealerWire(self.socket), welcome)

    def hang_up(self) -> None:
        """Close the connection and, unless the link has ended, dial again after a while."""
        was_open = self.open
        self.close()
        if self._link.ended:
            return
        if was_open:
            self._link.lost(self.name)
        delay = self._retry_s * random.uniform(0.5, 1.5)  # jitter: a thousand peers must not come at once
        self._retry_s = min(LONGEST_RETRY_S, self._retry_s * 1.5)
        self._link.loop.call_later(delay, self.dial)

    def close(self, linger_ms: int = 0) -> None:
        if self._patience is not None:
            self._patience.cancel()
        socket, monitor, self.socket, self._monitor = self.socket, self._monitor, None, None
        self.open = False
        if socket is None or monitor is None:
            return
        self._link.loop.remove_socket(monitor)
        self._link.loop.remove_socket(socket)
        socket.disable_monitor()
        monitor.close(linger=0)
        socket.close(linger=linger_ms)


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
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.on_message = on_message
        self._on_state = on_state
        self.state = LinkState.CONNECTING
        self._token = os.urandom(16)
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
            platform.python_version(),
            pack_about(self.dial.about),
        )

    # --- news from the channels --------------------------------------------------------------

    def opened(self, channel: str, wire: DealerWire, welcome: Welcome) -> None:
        """A connection was accepted."""
        conversation = self.conversation
        if channel == "data":
            conversation.open_data(wire)
            return
        conversation.about = unpack_about(welcome.about)
        conversation.open_control(wire, known=welcome.known, received=welcome.received)
        if not welcome.known:
            self._data.close()
            conversation.lose_data()
        self._set(LinkState.OPEN, "")

    def lost(self, channel: str) -> None:
        """A connection broke."""
        if channel == "data":
            self.conversation.lose_data()
        else:
            self.conversation.lose_control()
            self._set(LinkState.CONNECTING, "the connection broke")

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

    def _flush(self) -> bool:
        if not self._dirty:
            return False
        self._dirty = False
        if self.conversation.transfers.active and self.state is LinkState.OPEN:
            self._data.dial()
        if self.conversation.flush() and not self._ack_timer:
            self._ack_timer = True
            self.loop.call_later(ACK_DELAY_S, self._send_late_ack)
        return True

    def _send_late_ack(self) -> None:
        self._ack_timer = False
        if self.conversation.session.owes_ack:
            self.conversation.notice()

    def _watch(self) -> None:
        if self.ended:
            return
        self._ping = self.loop.call_later(PING_S, self._watch)
        now = time.monotonic()
        if self.state is LinkState.OPEN and now - self.conversation.heard > SILENT_S:
            self._control.hang_up()
        elif self.state is LinkState.OPEN and now - self.conversation.spoke > PING_S * 0.9:
            self.conversation.notice()

    # --- the end -----------------------------------------------------------------------------

    def _close_channels(self, linger_ms: int = 0) -> None:
        self._control.close(linger_ms)
        self._data.close(linger_ms)
        self.conversation.lose_control()
        self.conversation.lose_data()

    def close(self, linger_s: float = 1.0) -> None:
        """Send what is queued, close, end ZeroMQ's context."""
        self._ping.cancel()
        self._flush()
        self._send_late_ack()
        self.state = LinkState.CLOSED
        self._close_channels(int(linger_s * 1000))
        self.context.term()  # waits for the linger; a bare exit would drop the last messages


class LinkThread:
    """A link with a loop of its own in a daemon thread. ``call_soon`` is how other threads reach it."""

    def __init__(
        self,
        name: str,
        dial: Dial,
        *,
        on_message: Callable[[Delivery], None],
        on_state: Callable[[LinkState, str], None],
    ) -> None:
        """Start the thread, which dials."""
        self.loop = Loop()
        self.call_soon = self.loop.call_soon
        self._dial, self._on_message, self._on_state = dial, on_message, on_state
        self._made = threading.Event()
        self._link: Link | None = None
        self._linger_s = 1.0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        link = self._link = Link(self.loop, self._dial, on_message=self._on_message, on_state=self._on_state)
        self._made.set()
        try:
            self.loop.run()
        finally:
            link.close(self._linger_s)

    @property
    def link(self) -> Link:
        """The link; touch it on its own thread only."""
        self._made.wait()
        assert self._link is not None
        return self._link

    @property
    def conversation(self) -> Conversation:
        """The conversation; touch it on its own thread only."""
        return self.link.conversation

    def close(self, linger_s: float = 1.0) -> None:
        """Send what is queued and end the thread. Waits for it unless called on it."""
        self._linger_s = linger_s
        self.loop.stop()
        if threading.current_thread() is not self._thread:
            self._thread.join(linger_s + 5)
            if not self._thread.is_alive():
                self.loop.close()
