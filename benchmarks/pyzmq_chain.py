"""Time a bare pyzmq chain of ippmpi's shape: client -> controller -> agent -> engine and back.

Four processes, Python loops, Unix sockets, no sessions, no pickling: the time that is left when all
that ippmpi adds is taken away. ``python benchmarks/pyzmq_chain.py`` prints the median round trip.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

import zmq


def relay(front: str, back: str) -> None:
    """Pass messages from the listening side to the one behind it and back, for ever."""
    context = zmq.Context()
    router, dealer = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    router.bind(front)
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
    socket = zmq.Context().socket(zmq.ROUTER)
    socket.bind(front)
    while True:
        socket.send_multipart(socket.recv_multipart())


def round_trips_s(address: str, trips: int, size: int) -> list[float]:
    """Return the times of *trips* round trips of *size* bytes, after 100 that don't count."""
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.connect(address)
    message = bytes(size)
    times = []
    for _ in range(trips + 100):
        started = time.perf_counter()
        socket.send(message)
        if not socket.poll(10_000):
            raise TimeoutError("the chain does not answer within 10 s")
        socket.recv()
        times.append(time.perf_counter() - started)
    socket.close(linger=0)
    context.term()
    return times[100:]


def main() -> None:
    """Start controller, agent and engine, time the round trips, end them."""
    parser = argparse.ArgumentParser(description="Time a bare pyzmq chain.")
    parser.add_argument("--trips", type=int, default=2000)
    parser.add_argument("--size", type=int, default=200, help="bytes of a message (default: 200)")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chain-", dir="/tmp") as folder:  # short: an ipc path has 107 characters
        controller, agent, engine = (f"ipc://{Path(folder, name)}" for name in ("controller", "agent", "engine"))
        spawn = multiprocessing.get_context("spawn")  # no socket of ours is inherited
        chain = [
            spawn.Process(target=relay, args=(controller, agent), daemon=True),
            spawn.Process(target=relay, args=(agent, engine), daemon=True),
            spawn.Process(target=echo, args=(engine,), daemon=True),
        ]
        for process in chain:
            process.start()
        times = sorted(round_trips_s(controller, chosen.trips, chosen.size))
        for process in chain:
            process.terminate()
            process.join()
    low, high = times[len(times) // 10], times[len(times) * 9 // 10]
    print(
        f"client - controller - agent - engine and back, {chosen.size} bytes, {chosen.trips} trips: "
        f"median {statistics.median(times) * 1e3:.3f} ms (10 % below {low * 1e3:.3f}, 10 % above {high * 1e3:.3f})"
    )


if __name__ == "__main__":
    main()
