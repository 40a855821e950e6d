"""Time a bare pyzmq chain of ippmpi's shape: client -> controller -> agent -> engines and back.

Processes, Python loops, Unix sockets, no sessions, no pickling: the time that is left when all that
ippmpi adds is taken away. ``python benchmarks/pyzmq_chain.py`` prints the median round trip.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

PATIENCE_MS = 30_000
PIECE_BYTES = 1024 * 1024

Sockets = zmq.Context[zmq.Socket[bytes]]


def _socket(context: Sockets, kind: int) -> zmq.Socket[bytes]:
    socket = context.socket(kind)
    for option in (zmq.SNDHWM, zmq.RCVHWM, zmq.LINGER):
        socket.setsockopt(option, 0)  # nothing is dropped: a burst waits where it is
    return socket


def relay(front: str, *backs: str) -> None:
    """Pass messages from the listening side to those behind it, in turn, and back, for ever."""
    context: Sockets = zmq.Context()
    router, dealer = _socket(context, zmq.ROUTER), _socket(context, zmq.DEALER)
    router.bind(front)
    for back in backs:
        dealer.connect(back)
    poller = zmq.Poller()
    for socket in (router, dealer):
        poller.register(socket, zmq.POLLIN)
    while True:
        for socket, _ in poller.poll():
            other = dealer if socket is router else router
            other.send_multipart(socket.recv_multipart())


def echo(front: str) -> None:
    """Send every message back, for ever."""
    socket = _socket(zmq.Context(), zmq.ROUTER)
    socket.bind(front)
    while True:
        socket.send_multipart(socket.recv_multipart())


def sink(front: str) -> None:
    """Take the pieces of a large content into one buffer and say so when it is whole, for ever.

    The first message of each is its size, in decimal digits.
    """
    socket = _socket(zmq.Context(), zmq.PAIR)
    socket.bind(front)
    while True:
        buffer = bytearray(int(socket.recv()))
        at = 0
        while at < len(buffer):
            piece = socket.recv(copy=False).buffer
            buffer[at : at + len(piece)] = piece
            at += len(piece)
        socket.send(b"whole")


class Chain:
    """The chain with *engines* ends, and a sink beside it; a context manager."""

    def __init__(self, engines: int = 1) -> None:
        """Choose how long it is; starts nothing."""
        self._folder = tempfile.TemporaryDirectory(prefix="chain-", dir="/tmp")  # an ipc path has 107 characters
        self._engines = engines
        self._context: Sockets = zmq.Context()
        self._processes: list[Any] = []

    def __enter__(self) -> Chain:
        """Start the processes and connect to them; warm."""
        controller, agent, aside, *ends = map(self._address, range(3 + self._engines))
        self._spawn(relay, controller, agent)
        self._spawn(relay, agent, *ends)
        for end in ends:
            self._spawn(echo, end)
        self._spawn(sink, aside)
        self._front, self._aside = _socket(self._context, zmq.DEALER), _socket(self._context, zmq.PAIR)
        self._front.connect(controller)
        self._aside.connect(aside)
        self.burst_s(100 * self._engines)
        return self

    def __exit__(self, *exception: object) -> None:
        """End the processes."""
        self._context.destroy(linger=0)
        for process in self._processes:
            process.terminate()
            process.join()
        self._folder.cleanup()

    def _address(self, number: int) -> str:
        return f"ipc://{Path(self._folder.name, str(number))}"

    def _spawn(self, role: Callable[..., None], *addresses: str) -> None:
        spawn = multiprocessing.get_context("spawn")  # no socket of ours is inherited
        process = spawn.Process(target=role, args=addresses, daemon=True)
        process.start()
        self._processes.append(process)

    def burst_s(self, count: int, size: int = 200) -> float:
        """Send *count* messages of *size* bytes at once; return when the last one is back."""
        message = bytes(size)
        started = time.perf_counter()
        for _ in range(count):
            self._front.send(message)
        for _ in range(count):
            _receive(self._front)
        return time.perf_counter() - started

    def copy_s(self, data: memoryview) -> float:
        """Send *data* to the sink in pieces; return when all of it has arrived."""
        started = time.perf_counter()
        self._aside.send(str(len(data)).encode())
        for start in range(0, len(data), PIECE_BYTES):
            self._aside.send(data[start : start + PIECE_BYTES], copy=False)
        _receive(self._aside)
        return time.perf_counter() - started


def _receive(socket: zmq.Socket[bytes]) -> bytes:
    if not socket.poll(PATIENCE_MS):
        raise TimeoutError(f"the chain does not answer within {PATIENCE_MS // 1000} s")
    return socket.recv()


def main() -> None:
    """Start the chain, time the round trips, end it."""
    parser = argparse.ArgumentParser(description="Time a bare pyzmq chain.")
    parser.add_argument("--trips", type=int, default=2000)
    parser.add_argument("--size", type=int, default=200, help="bytes of a message (default: 200)")
    chosen = parser.parse_args()
    with Chain() as chain:
        times = sorted(chain.burst_s(1, chosen.size) for _ in range(chosen.trips))
    low, high = times[len(times) // 10], times[len(times) * 9 // 10]
    print(
        f"client - controller - agent - engine and back, {chosen.size} bytes, {chosen.trips} trips: "
        f"median {statistics.median(times) * 1e3:.3f} ms (10 % below {low * 1e3:.3f}, 10 % above {high * 1e3:.3f})"
    )


if __name__ == "__main__":
    main()
