"""A plain pair of pyzmq sockets with CURVE over TCP: what a link could be at best."""

from __future__ import annotations

import multiprocessing
import statistics
import time
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


def link_s(size: int, rounds: int) -> float:
    """Return the median time in which *size* bytes, in messages of 1 MB, reach the process at the other end."""
    server, secret = zmq.curve_keypair()
    mine, others = multiprocessing.Pipe()
    receiver = multiprocessing.get_context("spawn").Process(target=_receive, args=(others, secret), daemon=True)
    receiver.start()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.CURVE_SERVERKEY, server)
    for option, key in zip((zmq.CURVE_PUBLICKEY, zmq.CURVE_SECRETKEY), zmq.curve_keypair(), strict=True):
        socket.setsockopt(option, key)
    socket.connect(f"tcp://127.0.0.1:{mine.recv()}")
    content, times = memoryview(bytearray(size)), []
    for _ in range(rounds + 2):
        started = time.perf_counter()
        for at in range(0, size, MESSAGE_BYTES):
            last = b"last" if at + MESSAGE_BYTES >= size else b""
            socket.send_multipart([last, content[at : at + MESSAGE_BYTES]], copy=False)
        if not socket.poll(60_000):
            raise TimeoutError("the receiver does not answer within 60 s")
        socket.recv()
        times.append(time.perf_counter() - started)
    socket.close(linger=0)
    context.term()
    receiver.terminate()
    receiver.join()
    return statistics.median(times[2:])
