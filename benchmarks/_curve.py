"""A plain pair of pyzmq sockets with CURVE over TCP: what a link could be at best."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection

import zmq

MESSAGE_BYTES = 1024 * 1024


def _receive(ready: Connection, server_secret: bytes) -> None:
    """Take messages for ever; answer after each that says that it is the last of its round."""
    socket: zmq.Socket[bytes] = zmq.Context().socket(zmq.ROUTER)
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_SECRETKEY, server_secret)
    ready.send(socket.bind_to_random_port("tcp://127.0.0.1"))
    while True:
        name, last, _ = socket.recv_multipart(copy=False)
        if last.bytes == b"last":
            socket.send_multipart([name.bytes, b"done"])


class Link:
    """A connected pair; its other end is a process of its own."""

    def __init__(self) -> None:
        """Start the other end and connect."""
        server, secret = zmq.curve_keypair()
        mine, others = multiprocessing.Pipe()
        self._receiver = multiprocessing.get_context("spawn").Process(
            target=_receive, args=(others, secret), daemon=True
        )
        self._receiver.start()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = socket = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.CURVE_SERVERKEY, server)
        for option, key in zip((zmq.CURVE_PUBLICKEY, zmq.CURVE_SECRETKEY), zmq.curve_keypair(), strict=True):
            socket.setsockopt(option, key)
        socket.connect(f"tcp://127.0.0.1:{mine.recv()}")

    def carry(self, content: memoryview) -> None:
        """Return when all of *content*, in messages of 1 MB, is at the other end."""
        for at in range(0, len(content), MESSAGE_BYTES):
            last = b"last" if at + MESSAGE_BYTES >= len(content) else b""
            self._socket.send_multipart([last, content[at : at + MESSAGE_BYTES]], copy=False)
        if not self._socket.poll(60_000):
            raise TimeoutError("the receiver does not answer within 60 s")
        self._socket.recv()

    def close(self) -> None:
        """End the other end."""
        self._socket.close(linger=0)
        self._context.term()
        self._receiver.terminate()
        self._receiver.join()
