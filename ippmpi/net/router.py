"""The listening side: one TCP port and one Unix socket, many conversations."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import zmq

from ippmpi.errors import ProtocolError, Refused
from ippmpi.net.conversation import ACK_DELAY_S, Conversation, Delivery, pack_about, unpack_about
from ippmpi.net.keys import Doorman, ServerKeys
from ippmpi.net.loop import Loop
from ippmpi.wire.frames import decode_link, encode_link
from ippmpi.wire.messages import PROTOCOL_VERSION, Batch, Chunk, Denied, Grant, Hello, LinkRecord, Welcome

if TYPE_CHECKING:
    from typing_extensions import Buffer

log = logging.getLogger(__name__)

LARGEST_FRAME = 16 * 1024 * 1024
PING_S = 5.0
SILENT_S = 15.0
ROUND = 200  # frames taken from one socket before the others get their turn

Key = tuple[int, bytes]  # which socket, which routing id


class RouterWire:
    """One connection of a ROUTER socket."""

    __slots__ = ("_lost", "_rid", "_socket")

    def __init__(self, socket: zmq.Socket[bytes], rid: bytes, lost: Callable[[], None]) -> None:
        """Address *rid*; call *lost* when ZeroMQ says that it is gone."""
        self._socket = socket
        self._rid = rid
        self._lost = lost

    def send(self, frame: bytes) -> None:
        """Send one frame."""
        self._send([self._rid, frame])

    def send_bulk(self, frame: bytes, data: Buffer) -> None:
        """Send a frame and its bytes, which are not copied."""
        self._send([self._rid, frame, memoryview(data)], copy=False)

    def _send(self, frames: list[bytes | memoryview], *, copy: bool = True) -> None:
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK, copy)
        except zmq.ZMQError:  # EHOSTUNREACH: the connection broke; the session sends it again on the next one
            self._lost()


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
        ipc: str | None = None,
        tcp: str | None = None,
        keys: ServerKeys | None = None,
        on_hello: Callable[[Hello, str], Mapping[str, object]],
        on_message: Callable[[Delivery], None],
        on_peer: Callable[[Conversation, bool], None],
    ) -> None:
        """Bind *ipc* (a path) and *tcp* (``host:port``, port 0 or absent for any); TCP needs *keys*."""
        self._loop = loop
        self._on_hello, self._on_message, self._on_peer = on_hello, on_message, on_peer
        self._keys = keys
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._sockets: list[zmq.Socket[bytes]] = []
        self._by_rid: dict[Key, tuple[Conversation, str]] = {}
        self._by_token: dict[bytes, Conversation] = {}
        self._by_name: dict[str, Conversation] = {}
        self._tokens: dict[str, bytes] = {}
        self._dirty: list[Conversation] = []
        self._late_acks: set[Conversation] = set()
        self._ack_timer = False
        self._closed = False
        self.tcp_port = 0
        self._ipc = ipc
        self._doorman: Doorman | None = None
        if tcp is not None:
            self._bind_tcp(tcp)
        if ipc is not None:
            self._bind_ipc(ipc)
        loop.add_flush(self._flush)
        loop.call_later(PING_S, self._watch)

    # --- sockets -----------------------------------------------------------------------------

    def _bind_tcp(self, address: str) -> None:
        if self._keys is None:
            raise ValueError("a TCP port needs CURVE keys")
        self._doorman = Doorman(self._context, self._keys.known)
        self._loop.add_socket(self._doorman.socket, self._doorman.answer)
        socket = self._socket()
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self._keys.secret.encode())
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self._keys.public.encode())
        socket.setsockopt(zmq.ZAP_DOMAIN, b"ippmpi")
        socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        host, _, port = address.rpartition(":")
        socket.bind(f"tcp://{host or address}:{port if host and port != '0' else '*'}")
        endpoint = socket.getsockopt(zmq.LAST_ENDPOINT)
        self.tcp_port = int(bytes(endpoint).rstrip(b"\0").rpartition(b":")[2])

    def _bind_ipc(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(Path(path).lstat().st_mode):
                os.unlink(path)
        self._socket().bind(f"ipc://{path}")
        os.chmod(path, 0o600)

    def _socket(self) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.ROUTER)
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.setsockopt(zmq.RCVHWM, 0)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, LARGEST_FRAME)
        number = len(self._sockets)
        self._sockets.append(socket)
        self._loop.add_socket(socket, lambda: self._receive(number, socket))
        return socket

    # --- receiving ---------------------------------------------------------------------------

    def _receive(self, number: int, socket: zmq.Socket[bytes]) -> None:
        for _ in range(ROUND):
            try:
                first = socket.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            rid = first.bytes
            frame = socket.recv(zmq.NOBLOCK)
            data = memoryview(b"")
            while socket.getsockopt(zmq.RCVMORE):
                data = socket.recv(zmq.NOBLOCK, copy=False).buffer
            try:
                self._take((number, rid), first, frame, data)
            except ProtocolError as error:
                self._complain((number, rid), error)

    def _complain(self, key: Key, error: ProtocolError) -> None:
        known = self._by_rid.get(key)
        log.warning("dropped a frame of %s: %s", known[0].name if known else "a stranger", error)

    def _take(self, key: Key, first: zmq.Frame, frame: bytes, data: memoryview) -> None:
        record = decode_link(frame)
        known = self._by_rid.get(key)
        if known is None or isinstance(record, Hello):
            self._welcome(key, first, record)
            return
        conversation, channel = known
        conversation.heard = time.monotonic()
        if isinstance(record, Batch) and channel == "control":
            for delivery in conversation.on_batch(record):
                self._on_message(delivery)
        elif isinstance(record, Grant) and channel == "data":
            conversation.on_grant(record)
        elif isinstance(record, Chunk) and channel == "data":
            conversation.on_chunk(record, data)
        else:
            raise ProtocolError(f"{type(record).__name__} on the {channel} connection")

    # --- hello -------------------------------------------------------------------------------

    def _welcome(self, key: Key, first: zmq.Frame, record: LinkRecord) -> None:
        if not isinstance(record, Hello):
            raise ProtocolError(f"expected a Hello first, got {type(record).__name__}")
        number, rid = key
        socket = self._sockets[number]
        try:
            role = self._role(socket, first, record)
            about = self._on_hello(record, role)
            wire = RouterWire(socket, rid, lambda: self._lost(key))
            self._open(key, wire, record, about)
        except Refused as error:
            log.warning("refused %s: %s", record.peer, error)
            with contextlib.suppress(zmq.ZMQError):
                socket.send_multipart([rid, encode_link(Denied(str(error)))], zmq.NOBLOCK)

    def _role(self, socket: zmq.Socket[bytes], first: zmq.Frame, hello: Hello) -> str:
        """Return the role that the key has; on the Unix socket (same user only) the role it says."""
        if hello.version != PROTOCOL_VERSION:
            raise Refused(f"this side speaks protocol version {PROTOCOL_VERSION}, {hello.peer} speaks {hello.version}")
        if self._keys is None or not socket.getsockopt(zmq.CURVE_SERVER):
            return hello.role
        key = str(first.get("User-Id"))
        role = self._keys.known.get(key, "nobody")
        if role != hello.role:
            raise Refused(f"the key of {hello.peer} is a key for the role {role!r}, not {hello.role!r}")
        return role

    def _open(self, key: Key, wire: RouterWire, hello: Hello, about: Mapping[str, object]) -> None:
        if len(hello.token) != 16 or hello.channel not in ("control", "data"):
            raise ProtocolError(f"a Hello with a token of {len(hello.token)} bytes for channel {hello.channel!r}")
        conversation = self._by_token.get(hello.token)
        if hello.channel == "data":
            if conversation is None:
                raise ProtocolError("a data connection for a session that does not exist")
            self._forget_wire(conversation, "data")
            self._by_rid[key] = (conversation, "data")
            wire.send(encode_link(Welcome(True, 0)))
            conversation.open_data(wire)
            return
        known = conversation is not None
        if conversation is None:
            conversation = self._adopt(hello)
        self._forget_wire(conversation, "control")
        self._by_rid[key] = (conversation, "control")
        wire.send(encode_link(Welcome(known, conversation.session.received if known else 0, pack_about(about))))
        conversation.open_control(wire, known=known, received=hello.received)
        self._on_peer(conversation, True)

    def _adopt(self, hello: Hello) -> Conversation:
        """Return the conversation for a new session: that of the same name goes on, else a new one."""
        conversation = self._by_name.get(hello.peer)
        if conversation is None or conversation.role != hello.role:
            conversation = Conversation(hello.peer, hello.role, self._dirty.append)
            self._by_name[hello.peer] = conversation
        else:
            self._by_token.pop(self._tokens[hello.peer], None)
            self._forget_wire(conversation, "data")
        try:
            conversation.about = unpack_about(hello.about)
        except msgspec.DecodeError as error:
            raise ProtocolError(f"a Hello whose 'about' is not a map: {error}") from None
        conversation.python = hello.python
        self._by_token[hello.token] = conversation
        self._tokens[hello.peer] = hello.token
        return conversation

    # --- wires go ----------------------------------------------------------------------------

    def _forget_wire(self, conversation: Conversation, channel: str) -> None:
        for key, (known, known_channel) in list(self._by_rid.items()):
            if known is conversation and known_channel == channel:
                del self._by_rid[key]
        if channel == "control":
            conversation.lose_control()
        else:
            conversation.lose_data()

    def _lost(self, key: Key) -> None:
        known = self._by_rid.get(key)
        if known is None:
            return
        conversation, channel = known
        self._forget_wire(conversation, channel)
        if channel == "control":
            self._loop.call_soon(lambda: self._report_loss(conversation))

    def _report_loss(self, conversation: Conversation) -> None:
        if conversation.control is None and self._by_name.get(conversation.name) is conversation:
            self._on_peer(conversation, False)

    def _watch(self) -> None:
        """Every few seconds: say that we live, notice who has fallen silent."""
        if self._closed:
            return
        self._loop.call_later(PING_S, self._watch)
        now = time.monotonic()
        for conversation in list(self._by_name.values()):
            if conversation.control is None:
                continue
            if now - conversation.heard > SILENT_S:
                log.info("%s has been silent for %.0f s", conversation.name, now - conversation.heard)
                self._forget_wire(conversation, "control")
                self._on_peer(conversation, False)
            elif now - conversation.spoke > PING_S * 0.9:
                conversation.notice()

    # --- flushing ----------------------------------------------------------------------------

    def _flush(self) -> bool:
        if not self._dirty:
            return False
        dirty, self._dirty[:] = list(self._dirty), []
        for conversation in dirty:
            if conversation.flush():
                self._late_acks.add(conversation)
        if self._late_acks and not self._ack_timer:
            self._ack_timer = True
            self._loop.call_later(ACK_DELAY_S, self._send_late_acks)
        return True

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

    def conversations(self) -> list[Conversation]:
        """Return all conversations, connected or not."""
        return list(self._by_name.values())

    def forget(self, name: str) -> None:
        """End a conversation: the peer will not come back, or said farewell."""
        conversation = self._by_name.pop(name, None)
        if conversation is None:
            return
        self._by_token.pop(self._tokens.pop(name), None)
        self._forget_wire(conversation, "control")
        self._forget_wire(conversation, "data")
        conversation.transfers.lose_incoming()

    def close(self, linger_s: float = 1.0) -> None:
        """Send what is queued, close all, end ZeroMQ's context."""
        self._closed = True
        self._flush()
        self._send_late_acks()
        for socket in self._sockets:
            self._loop.remove_socket(socket)
            socket.close(linger=int(linger_s * 1000))
        if self._doorman is not None:
            self._loop.remove_socket(self._doorman.socket)
            self._doorman.socket.close(linger=0)
        self._context.term()  # waits for the linger; a bare exit would drop the last messages
        if self._ipc is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._ipc)
