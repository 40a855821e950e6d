"""The listening side: a Unix socket and a TCP port, many conversations."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from ippmpi.errors import ProtocolError, Refused
from ippmpi.net.conversation import ACK_DELAY_S, Conversation, Delivery, Wire, pack_about, unpack_about
from ippmpi.net.loop import Loop
from ippmpi.net.stream import Doorstep, Stream
from ippmpi.wire.frames import decode_link, encode_link
from ippmpi.wire.messages import PROTOCOL_VERSION, Batch, Chunk, Denied, Grant, Hello, Welcome

if TYPE_CHECKING:
    from ippmpi.net.curveport import CurvePort
    from ippmpi.net.keys import ServerKeys

log = logging.getLogger(__name__)

PING_S = 5.0
SILENT_S = 15.0


class Connection:
    """One accepted connection: a stranger until its Hello, then the control or data wire of a conversation."""

    __slots__ = ("_router", "channel", "conversation", "key_role", "wire")

    def __init__(self, router: Router, key_role: str | None) -> None:
        """``key_role``: the role its key has; None on the Unix socket, where it may have the one it says."""
        self._router = router
        self.key_role = key_role
        self.wire: Wire | None = None
        self.conversation: Conversation | None = None
        self.channel = ""

    def on_frame(self, frame: bytes, data: memoryview) -> None:
        """Take one frame; a wrong one is logged and dropped."""
        try:
            self._take(frame, data)
        except ProtocolError as error:
            log.warning("dropped a frame of %s: %s", self, error)

    def on_broken(self, why: str) -> None:
        """Tell the router that this connection is gone."""
        log.debug("%s: %s", self, why)
        self._router.broken(self)

    def _take(self, frame: bytes, data: memoryview) -> None:
        record = decode_link(frame)
        conversation = self.conversation
        if conversation is None:
            if not isinstance(record, Hello):
                raise ProtocolError(f"expected a Hello first, got {type(record).__name__}")
            self._router.hello(self, record)
            return
        conversation.heard = time.monotonic()
        if isinstance(record, Batch) and self.channel == "control":
            for delivery in conversation.on_batch(record):
                self._router.on_message(delivery)
        elif isinstance(record, Grant) and self.channel == "data":
            conversation.on_grant(record)
        elif isinstance(record, Chunk) and self.channel == "data":
            conversation.on_chunk(record, data)
        else:
            raise ProtocolError(f"{type(record).__name__} on the {self.channel} connection")

    def __str__(self) -> str:
        """Say who is at the other end."""
        return "a stranger" if self.conversation is None else f"{self.conversation.name} ({self.channel})"


class Router:
    """Accepts peers and keeps a conversation with each.

    Callbacks (all on the loop's thread):
        on_hello(hello, role): may raise ``Refused``; returns what to tell the peer about us.
        on_message(delivery): one message; must lead to ``delivery.done()``.
        on_peer(conversation, connected): its control connection came or went.
    """

    def __init__(  # noqa: PLR0913 - two addresses, three callbacks: the whole of its outside
        self,
        loop: Loop,
        *,
        unix: str | None = None,
        tcp: str | None = None,
        keys: ServerKeys | None = None,
        on_hello: Callable[[Hello, str], Mapping[str, object]],
        on_message: Callable[[Delivery], None],
        on_peer: Callable[[Conversation, bool], None],
    ) -> None:
        """Listen at *unix* (a path) and *tcp* (``host:port``, port 0 for any); TCP needs *keys*."""
        self._loop = loop
        self._on_hello, self.on_message, self._on_peer = on_hello, on_message, on_peer
        self._wires: dict[tuple[str, str], Connection] = {}  # by name of the conversation, and channel
        self._strangers: set[Connection] = set()
        self._by_token: dict[bytes, Conversation] = {}
        self._by_name: dict[str, Conversation] = {}
        self._tokens: dict[str, bytes] = {}
        self._dirty: list[Conversation] = []
        self._late_acks: set[Conversation] = set()
        self._ack_timer = False
        self._closed = False
        self._port: CurvePort | None = None
        self._doorstep: Doorstep | None = None
        if tcp is not None:
            self._open_port(tcp, keys)
        if unix is not None:
            self._doorstep = Doorstep(loop, unix, self._accept)
        loop.add_flush(self._flush)
        loop.call_later(PING_S, self._watch)

    @property
    def tcp_port(self) -> int:
        """The TCP port that is listened on; 0 if none."""
        return self._port.port if self._port is not None else 0

    # --- connections come --------------------------------------------------------------------

    def _open_port(self, address: str, keys: ServerKeys | None) -> None:
        from ippmpi.net.curveport import CurvePort  # an agent listens on a Unix socket only and never needs ZeroMQ here

        if keys is None:
            raise ValueError("a TCP port needs CURVE keys")

        def connect(wire: Wire, role: str) -> Connection:
            connection = Connection(self, role)
            connection.wire = wire
            return connection

        self._port = CurvePort(self._loop, address, keys, connect)

    def _accept(self, sock: socket.socket) -> None:
        connection = Connection(self, None)
        connection.wire = Stream(self._loop, sock, connection.on_frame, connection.on_broken)
        self._strangers.add(connection)

    # --- hello -------------------------------------------------------------------------------

    def hello(self, connection: Connection, hello: Hello) -> None:
        """Let the peer in, or tell it why not."""
        try:
            role = self._role(connection, hello)
            about = self._on_hello(hello, role)
        except Refused as error:
            log.warning("refused %s: %s", hello.peer, error)
            if connection.wire is not None:
                connection.wire.send(encode_link(Denied(str(error))))
            return
        if len(hello.token) != 16 or hello.channel not in ("control", "data"):
            raise ProtocolError(f"a Hello with a token of {len(hello.token)} bytes for channel {hello.channel!r}")
        if hello.channel == "data":
            self._open_data(connection, hello)
        else:
            self._open_control(connection, hello, about)

    def _role(self, connection: Connection, hello: Hello) -> str:
        """Return the role that the key has; on the Unix socket (same user only) the role it says."""
        if hello.version != PROTOCOL_VERSION:
            raise Refused(f"this side speaks protocol version {PROTOCOL_VERSION}, {hello.peer} speaks {hello.version}")
        role = connection.key_role
        if role is not None and role != hello.role:
            raise Refused(f"the key of {hello.peer} is a key for the role {role!r}, not {hello.role!r}")
        return hello.role

    def _open_data(self, connection: Connection, hello: Hello) -> None:
        conversation = self._by_token.get(hello.token)
        if conversation is None:
            raise ProtocolError("a data connection for a session that does not exist")
        wire = self._take_wire(connection, conversation, "data")
        wire.send(encode_link(Welcome(True, 0)))
        conversation.open_data(wire)

    def _open_control(self, connection: Connection, hello: Hello, about: Mapping[str, object]) -> None:
        conversation = self._by_token.get(hello.token)
        known = conversation is not None
        if conversation is None:
            conversation = self._adopt(hello)
        wire = self._take_wire(connection, conversation, "control")
        received = conversation.session.received if known else 0
        wire.send(encode_link(Welcome(known, received, pack_about(about))))
        conversation.open_control(wire, known=known, received=hello.received)
        self._on_peer(conversation, True)

    def _take_wire(self, connection: Connection, conversation: Conversation, channel: str) -> Wire:
        """Make *connection* the wire of *conversation* for *channel*, in place of an older one."""
        assert connection.wire is not None
        self._drop_wire(conversation, channel)
        self._strangers.discard(connection)
        connection.conversation, connection.channel = conversation, channel
        self._wires[conversation.name, channel] = connection
        return connection.wire

    def _adopt(self, hello: Hello) -> Conversation:
        """Return the conversation for a new session: that of the same name goes on, else a new one."""
        try:
            about = unpack_about(hello.about)
        except msgspec.DecodeError as error:
            raise ProtocolError(f"a Hello whose 'about' is not a map: {error}") from None
        conversation = self._by_name.get(hello.peer)
        if conversation is None:
            conversation = Conversation(hello.peer, hello.role, self._dirty.append)
            self._by_name[hello.peer] = conversation
        elif conversation.role != hello.role:
            raise ProtocolError(f"{hello.peer} is known in the role {conversation.role!r}, not {hello.role!r}")
        else:
            self._by_token.pop(self._tokens.get(hello.peer, b""), None)
            self._drop_wire(conversation, "data")
        conversation.about, conversation.python = about, hello.python
        self._by_token[hello.token] = conversation
        self._tokens[hello.peer] = hello.token
        return conversation

    # --- connections go ----------------------------------------------------------------------

    def broken(self, connection: Connection) -> None:
        """A connection is gone."""
        self._strangers.discard(connection)
        conversation = connection.conversation
        if conversation is None or self._wires.get((conversation.name, connection.channel)) is not connection:
            return
        self._drop_wire(conversation, connection.channel)
        if connection.channel == "control":
            self._loop.call_soon(lambda: self._report_loss(conversation))

    def _report_loss(self, conversation: Conversation) -> None:
        if conversation.control is None and self._by_name.get(conversation.name) is conversation and not self._closed:
            self._on_peer(conversation, False)

    def _drop_wire(self, conversation: Conversation, channel: str) -> None:
        old = self._wires.pop((conversation.name, channel), None)
        if channel == "control":
            conversation.lose_control()
        else:
            conversation.lose_data()
        if old is not None and old.wire is not None:
            old.wire.close()
            if self._port is not None:
                self._port.forget(old)

    def _watch(self) -> None:
        """Every few seconds: say that we live, notice who has fallen silent. A Unix socket tells by itself."""
        if self._closed:
            return
        self._loop.call_later(PING_S, self._watch)
        now = time.monotonic()
        for (_, channel), connection in list(self._wires.items()):
            conversation = connection.conversation
            if channel != "control" or connection.key_role is None or conversation is None:
                continue
            if now - conversation.heard > SILENT_S:
                log.info("%s has been silent for %.0f s", conversation.name, now - conversation.heard)
                self.broken(connection)
            elif now - conversation.spoke > PING_S * 0.9:
                conversation.notice()

    # --- flushing ----------------------------------------------------------------------------

    def _flush(self) -> None:
        if not self._dirty:
            return
        dirty, self._dirty[:] = list(self._dirty), []
        for conversation in dirty:
            if conversation.flush():
                self._late_acks.add(conversation)
        if self._late_acks and not self._ack_timer:
            self._ack_timer = True
            self._loop.call_later(ACK_DELAY_S, self._send_late_acks)

    def _send_late_acks(self) -> None:
        self._ack_timer = False
        late, self._late_acks = self._late_acks, set()
        for conversation in late:
            if conversation.session.owes_ack:
                conversation.notice()

    # --- for the application -----------------------------------------------------------------

    def conversation(self, name: str) -> Conversation | None:
        """Return the conversation with the peer of that name."""
        return self._by_name.get(name)

    def expect(self, name: str, role: str) -> Conversation:
        """Begin a conversation with a peer that an earlier life of this process knew; what is said to it waits."""
        conversation = self._by_name.get(name)
        if conversation is None:
            conversation = self._by_name[name] = Conversation(name, role, self._dirty.append)
        return conversation

    def conversations(self) -> list[Conversation]:
        """Return all conversations, connected or not."""
        return list(self._by_name.values())

    def forget(self, name: str) -> None:
        """End a conversation: the peer will not come back, or said farewell."""
        conversation = self._by_name.pop(name, None)
        if conversation is None:
            return
        self._by_token.pop(self._tokens.pop(name, b""), None)
        self._drop_wire(conversation, "control")
        self._drop_wire(conversation, "data")
        conversation.transfers.lose_incoming()

    def close(self, linger_s: float = 1.0) -> None:
        """Send what is queued and close everything."""
        self._flush()
        self._send_late_acks()
        self._closed = True
        for connection in [*self._wires.values(), *self._strangers]:
            if connection.wire is not None:
                with contextlib.suppress(OSError):
                    connection.wire.close(linger_s)
        if self._port is not None:
            self._port.close(linger_s)
        if self._doorstep is not None:
            self._doorstep.close()
