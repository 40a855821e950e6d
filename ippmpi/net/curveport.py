"""The TCP side of a router: one ZeroMQ ROUTER socket, CURVE, known keys only."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import zmq

from ippmpi.net.doorman import Doorman
from ippmpi.net.keys import ServerKeys
from ippmpi.net.loop import Loop, Source
from ippmpi.net.stream import LARGEST_FRAME
from ippmpi.net.zmqwatch import watch

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ippmpi.net.conversation import Wire

ROUND = 200  # frames taken before others get their turn

HANDSHAKE_MS = 10_000
"""How long a TCP connection may take to show a known key."""

MOST_WAITING = 1000
"""Frames of one peer that wait for this process; then TCP makes the peer wait."""

MOST_PENDING = 20_000
"""Frames that wait for one peer; then the connection counts as broken. Windows keep an honest one far below."""


class Connection(Protocol):
    """What the router makes of a new connection."""

    def on_frame(self, frame: bytes, data: memoryview) -> None:
        """Take one frame."""

    def on_broken(self, why: str) -> None:
        """The connection is gone."""


class RouterWire:
    """One connection of the ROUTER socket."""

    __slots__ = ("_forget", "_rid", "_socket", "_source", "connection", "on_room")

    def __init__(
        self, socket: zmq.Socket[bytes], rid: bytes, source: Source, forget: Callable[[bytes], object]
    ) -> None:
        """Address *rid*; *source* is what the loop knows of the socket; *forget* drops the record of *rid*."""
        self.on_room: Callable[[], None] | None = None
        self._forget = forget
        self._socket = socket
        self._source = source
        self._rid = rid
        self.connection: Connection | None = None

    def full(self) -> bool:
        """Say no: ZeroMQ queues, and what the peer has granted is bounded by its window."""
        return False

    def send(self, frame: bytes) -> None:
        """Send one frame."""
        self._send([self._rid, frame])

    def send_bulk(self, frame: bytes, data: Buffer) -> None:
        """Send a frame and its bytes, which are not copied."""
        self._send([self._rid, frame, memoryview(data)], copy=False)

    def _send(self, frames: list[bytes | memoryview], *, copy: bool = True) -> None:
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK, copy)
        except zmq.ZMQError as error:  # EHOSTUNREACH: the session sends it again on the next connection
            if self.connection is not None:
                self.connection.on_broken(str(error))
        self._source.hint()

    def close(self, linger_s: float = 0.0) -> None:  # noqa: ARG002 - what was sent is ZeroMQ's already
        """Forget it. ZeroMQ itself closes a connection only with its socket; who speaks on is a stranger again."""
        self._forget(self._rid)
        self.connection = None


class CurvePort:
    """Listens on TCP. ``on_connect(wire, role)`` is called for the first frame of each connection."""

    def __init__(
        self, loop: Loop, address: str, keys: ServerKeys, on_connect: Callable[[Wire, str], Connection]
    ) -> None:
        """Bind *address* (``host:port``; port 0 for any)."""
        self._loop = loop
        self._known = keys.known
        self._on_connect = on_connect
        self._connections: dict[bytes, Connection] = {}
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._doorman = Doorman(self._context, keys.known)
        self._doors = watch(loop, self._doorman.socket, self._doorman.answer)
        self._socket = self._context.socket(zmq.ROUTER)
        for option, value in (
            (zmq.ROUTER_MANDATORY, 1),
            (zmq.SNDHWM, MOST_PENDING),
            (zmq.RCVHWM, MOST_WAITING),
            (zmq.HANDSHAKE_IVL, HANDSHAKE_MS),
            (zmq.LINGER, 0),
            (zmq.MAXMSGSIZE, LARGEST_FRAME),
            (zmq.CURVE_SERVER, 1),
            (zmq.CURVE_SECRETKEY, keys.secret.encode()),
            (zmq.CURVE_PUBLICKEY, keys.public.encode()),
            (zmq.ZAP_DOMAIN, b"ippmpi"),
            (zmq.TCP_KEEPALIVE, 1),
        ):
            self._socket.setsockopt(option, value)
        host, _, port = address.rpartition(":")
        self._socket.bind(f"tcp://{host}:{'*' if port == '0' else port}")
        endpoint = self._socket.getsockopt(zmq.LAST_ENDPOINT)
        assert isinstance(endpoint, bytes)
        self.port = int(endpoint.rstrip(b"\0").rpartition(b":")[2])
        self._source = watch(loop, self._socket, self._receive)

    def _receive(self) -> None:
        socket = self._socket
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
            connection = self._connections.get(rid)
            if connection is None:
                wire = RouterWire(socket, rid, self._source, self._forget)
                role = self._known.get(str(first.get("User-Id")), "nobody")
                connection = wire.connection = self._connections[rid] = self._on_connect(wire, role)
            connection.on_frame(frame, data)

    def _forget(self, rid: bytes) -> None:
        self._connections.pop(rid, None)

    def close(self, linger_s: float) -> None:
        """Send what is queued for at most *linger_s* seconds, close, end ZeroMQ's context."""
        self._loop.remove_source(self._source)
        self._loop.remove_source(self._doors)
        self._socket.close(linger=int(linger_s * 1000))
        self._doorman.socket.close(linger=0)
        self._context.term()  # waits for the linger; a bare exit would drop the last messages
