"""The TCP side of a link: one ZeroMQ DEALER socket per connection, CURVE.

ZeroMQ's own reconnection is off: it would go on silently where the other end may have changed. A
monitor socket tells when a connection breaks.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import zmq
from zmq.utils.monitor import parse_monitor_message

from ippmpi.net.keys import KeyPair
from ippmpi.net.loop import Loop
from ippmpi.net.stream import OnBroken, OnFrame
from ippmpi.net.zmqwatch import watch

if TYPE_CHECKING:
    from typing_extensions import Buffer

ROUND = 200  # frames taken before others get their turn
NEVER_MS = 3_600_000
"""In place of ZeroMQ's -1 for "do not reconnect", which throws away what was received just before the break."""

UNKNOWN_KEY = "the controller does not know this key; is the connection file of another start of the cluster?"

_BROKEN = (
    zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_CONNECT_RETRIED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)


class Dealer:
    """One connection. ``on_frame(record, data)``; ``on_broken(why)`` once, not after ``close``."""

    peer_pid = 0

    def __init__(
        self,
        loop: Loop,
        endpoint: str,
        *,
        server_public: str,
        keys: KeyPair | None,
        on_frame: OnFrame,
        on_broken: OnBroken,
    ) -> None:
        """Dial *endpoint* (``tcp://host:port``)."""
        self._loop = loop
        self._on_frame, self._on_broken = on_frame, on_broken
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = socket = self._context.socket(zmq.DEALER)
        for option, value in (
            (zmq.ROUTING_ID, b"\1" + os.urandom(15)),
            (zmq.RECONNECT_IVL, NEVER_MS),
            (zmq.SNDHWM, 0),
            (zmq.RCVHWM, 0),
            (zmq.LINGER, 0),
            (zmq.TCP_KEEPALIVE, 1),
        ):
            socket.setsockopt(option, value)
        if keys is not None:
            socket.setsockopt(zmq.CURVE_SERVERKEY, server_public.encode())
            socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.public.encode())
            socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret.encode())
        self._closed = False
        self.on_room: Callable[[], None] | None = None
        self._monitor = socket.get_monitor_socket(_BROKEN)
        self._source = watch(loop, socket, self._receive)
        self._events = watch(loop, self._monitor, self._on_event)
        socket.connect(endpoint)

    def full(self) -> bool:
        """Say no: ZeroMQ queues, and what the peer has granted is bounded by its window."""
        return False

    def send(self, frame: bytes) -> None:
        """Send one frame."""
        with contextlib.suppress(zmq.Again):  # no peer any more; the monitor tells, the session sends again
            self._socket.send(frame, zmq.NOBLOCK)
        self._source.hint()

    def send_bulk(self, frame: bytes, data: Buffer) -> None:
        """Send a frame and its bytes, which are not copied."""
        with contextlib.suppress(zmq.Again):
            self._socket.send_multipart([frame, memoryview(data)], zmq.NOBLOCK, copy=False)
        self._source.hint()

    def _receive(self) -> None:
        socket = self._socket
        for _ in range(ROUND):
            if self._closed or not int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                return
            frame = socket.recv(zmq.NOBLOCK)
            data = memoryview(b"")
            while socket.getsockopt(zmq.RCVMORE):
                data = socket.recv(zmq.NOBLOCK, copy=False).buffer
            self._on_frame(frame, data)

    def _on_event(self) -> None:
        while not self._closed:
            try:
                frames = self._monitor.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            event = parse_monitor_message(frames)["event"]
            if event & _BROKEN:
                self._receive()  # what came before the break: the last words of one who left
                self._break(UNKNOWN_KEY if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH else "the connection broke")

    def _break(self, why: str) -> None:
        if not self._closed:
            self.close()
            self._on_broken(why)

    def close(self, linger_s: float = 0.0) -> None:
        """Send what is queued for at most *linger_s* seconds, close, end ZeroMQ's context."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_source(self._source)
        self._loop.remove_source(self._events)
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=int(linger_s * 1000))
        self._context.term()  # waits for the linger; a bare exit would drop the last messages
