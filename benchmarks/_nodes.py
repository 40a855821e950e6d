"""Simulated nodes: many agents in one process, each with its own link to a real controller.

``python benchmarks/_nodes.py FILE --agents 160 --each 128`` reads the engines' connection file, says ``ready``, and
registers when it reads a line. A node speaks as a real agent does: over TCP with CURVE, registers its ranks in one
message, answers a request for several of them with one ``Replies``, acknowledges, pings. Its ranks answer at once: a
call with None, ``pull`` with the rank's id. It ends when its input does.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from ippmpi import connection
from ippmpi.connection import Connection
from ippmpi.net.compatible import cloudpickle_version
from ippmpi.net.conversation import Delivery
from ippmpi.net.keys import KeyPair
from ippmpi.net.link import Dial, Link, LinkState
from ippmpi.net.loop import Loop
from ippmpi.store.spool import raise_descriptor_limit
from ippmpi.wire.messages import (
    Content,
    EngineLost,
    EngineRecord,
    Message,
    RegisterEngines,
    Replies,
    Reply,
    Run,
    StopEngines,
)
from ippmpi.wire.pickling import pack

WORLD = "0"


def content(value: object) -> Content:
    """Return *value* as a rank would send it."""
    blob = pack(value).join()
    return Content(blob, len(blob))


NOTHING = content(None)


def registration(node: int, ranks: int, size: int) -> RegisterEngines:
    """Return how *node* registers its *ranks* of a world of *size*."""
    first, host = node * ranks, f"node{node:04d}"
    records = [EngineRecord(-1, rank, WORLD, host, 10_000 + rank, size) for rank in range(first, first + ranks)]
    return RegisterEngines(WORLD, size, records)


def answer(run: Run) -> Reply | Replies:
    """Return what the ranks that *run* is for reply, together."""
    now = time.time()
    wants_id = run.op == "pull"
    replies = [
        Reply(run.task, engine, content(engine) if wants_id else NOTHING, None, now, now, run.attempt)
        for engine in run.engines
    ]
    return replies[0] if len(replies) == 1 else Replies(run.task, replies)


class Node:
    """One agent and its ranks."""

    def __init__(self, loop: Loop, at: Connection, registration: RegisterEngines, *, tcp: bool) -> None:
        """Dial, and register."""
        self._registration = registration
        host = registration.engines[0].host
        dial = Dial(
            (at.address if tcp else f"unix://{at.socket}",),
            "agent",
            f"agent:{WORLD}@{host}",
            {"world": WORLD, "host": host, "pid": os.getpid(), "cloudpickle": cloudpickle_version()},
            at.server_public,
            KeyPair(at.public, at.secret),
        )
        self._link = Link(loop, dial, on_message=self._on_message, on_state=self._on_state)
        self._link.conversation.send(registration)

    def _on_state(self, state: LinkState, text: str) -> None:
        if state is LinkState.REFUSED:
            raise SystemExit(f"the controller refuses {self._link.dial.peer}: {text}")

    def _on_message(self, delivery: Delivery) -> None:
        message: Message = delivery.message
        if isinstance(message, Run):
            self._link.conversation.send(answer(message))
        elif isinstance(message, StopEngines):
            for record in self._registration.engines:
                self._link.conversation.send(EngineLost(WORLD, record.rank, "stopped", True))
        delivery.done()

    def close(self) -> None:
        """Leave."""
        self._link.close(0.0)


def main() -> None:
    """Wait for a line, let all nodes join, serve until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="connection file of engines")
    parser.add_argument("--agents", type=int, default=160)
    parser.add_argument("--each", type=int, default=128, help="ranks of each")
    parser.add_argument("--unix", action="store_true", help="use the controller's Unix socket, not TCP with CURVE")
    chosen = parser.parse_args()
    raise_descriptor_limit()
    at = connection.load(chosen.file, "engine")
    size = chosen.agents * chosen.each
    registrations = [registration(node, chosen.each, size) for node in range(chosen.agents)]
    loop = Loop()
    nodes: list[Node] = []

    def on_input() -> None:
        if not os.read(sys.stdin.fileno(), 100):
            loop.stop()
            return
        nodes.extend(Node(loop, at, one, tcp=not chosen.unix) for one in registrations)

    loop.add_reader(sys.stdin.fileno(), on_input)
    print("ready", flush=True)
    loop.run()
    for node in nodes:
        node.close()
    loop.close()


if __name__ == "__main__":
    main()
