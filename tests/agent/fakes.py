"""Stand-ins for ``net``: a loop with a clock that tests move, conversations that record, real child processes."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import selectors
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ippmpi.agent.contents import Contents
from ippmpi.agent.members import LocalEngine, Members
from ippmpi.agent.output import Outputs
from ippmpi.agent.post import Post
from ippmpi.agent.relay import Relay
from ippmpi.agent.together import Together
from ippmpi.agent.traces import Traces
from ippmpi.identity import identify
from ippmpi.wire.frames import decode, encode
from ippmpi.wire.messages import EngineReady, Message

WORLD = "w1"


class HandLoop:
    """Timers go off when the test moves the clock; descriptors are real."""

    def __init__(self) -> None:
        self.now = 0.0
        self._timers: list[tuple[float, int, list[Callable[[], None]]]] = []
        self._tie = itertools.count()
        self._selector = selectors.DefaultSelector()

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Any:
        calls = [call]
        heapq.heappush(self._timers, (self.now + delay_s, next(self._tie), calls))
        return type("Timer", (), {"cancel": lambda _: calls.clear()})()

    def add_reader(self, fd: int, call: Callable[[], None]) -> None:
        self._selector.register(fd, selectors.EVENT_READ, call)

    def remove_reader(self, fd: int) -> None:
        with contextlib.suppress(KeyError):
            self._selector.unregister(fd)

    @property
    def readers(self) -> int:
        return len(self._selector.get_map())

    @property
    def timers(self) -> int:
        return sum(bool(calls) for _, _, calls in self._timers)

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            self.now, _, calls = heapq.heappop(self._timers)
            for call in list(calls):
                calls.clear()
                call()
        self.now = end

    def poll(self, timeout_s: float = 0.0) -> None:
        for key, _ in self._selector.select(timeout_s):
            if self.readers and key.fd in self._selector.get_map():
                key.data()

    def until(self, condition: Callable[[], object], timeout_s: float = 5.0) -> None:
        """Let real time pass until *condition* holds."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            before = time.monotonic()
            assert before < deadline, f"not within {timeout_s} s"
            self.poll(0.005)
            self.advance(time.monotonic() - before)

    def close(self) -> None:
        self._selector.close()


class Talk:
    """A conversation that keeps what is sent until the test acknowledges it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sent: list[Message] = []
        self.raw: list[bytes] = []
        self.urgent: list[Message] = []
        self.acks: list[Callable[[], None] | None] = []
        self.backlog = 0
        self.peer_pid = 0
        self.offered: dict[int, Any] = {}
        self.accepted: dict[int, tuple[Any, Callable[[bool], None]]] = {}
        self.rejected: list[int] = []
        self.lost: dict[int, Callable[[], None] | None] = {}

    @property
    def idle(self) -> bool:
        return not self.acks

    def send(self, message: Message, *, on_ack: Any = None, urgent: bool = False) -> None:
        self.send_raw(encode(message), on_ack=on_ack, urgent=urgent)

    def send_raw(self, raw: bytes, *, on_ack: Any = None, urgent: bool = False) -> None:
        self.raw.append(raw)
        self.sent.append(decode(raw))
        self.acks.append(on_ack)
        if urgent:
            self.urgent.append(self.sent[-1])

    def ack(self) -> None:
        """Acknowledge all that was sent so far."""
        acks, self.acks = self.acks, []
        for call in acks:
            if call is not None:
                call()

    def offer(self, source: Any) -> int:
        self.offered[number := len(self.offered) + 1] = source
        return number

    def withdraw(self, transfer: int) -> None:
        self.offered[transfer] = None

    def accept(self, transfer: int, sink: Any, on_end: Callable[[bool], None], on_lost: Any = None) -> None:
        self.lost[transfer] = on_lost
        self.accepted[transfer] = (sink, on_end)

    def reject(self, transfer: int) -> None:
        self.rejected.append(transfer)

    def of(self, kind: type[Message]) -> list[Any]:
        """What was sent of one kind."""
        return [message for message in self.sent if isinstance(message, kind)]


class Parcel:
    """A delivery that counts ``done``."""

    def __init__(self, peer: Talk, message: Message) -> None:
        self.peer, self.message, self.raw, self.dones = peer, message, encode(message), 0

    def done(self) -> None:
        self.dones += 1


RANK = """
import os, sys
out, err = os.pipe(), os.pipe()
print(out[0], err[0], flush=True)
for line in sys.stdin:
    exec(line)
    print(flush=True)
"""


class Child:
    """A real process with output pipes like an engine's; it does what it is told."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", RANK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.stdout_fd, self.stderr_fd = map(int, self.process.stdout.readline().split())
        self.pid = self.process.pid
        self.started = identify(self.pid).started

    def tell(self, code: str) -> None:
        """Make it run a line and do not wait."""
        assert self.process.stdin is not None
        self.process.stdin.write(code + "\n")
        self.process.stdin.flush()

    def do(self, code: str) -> None:
        """Make it run a line and wait until it has."""
        assert self.process.stdout is not None
        self.tell(code)
        self.process.stdout.readline()

    def print(self, text: str, stream: str = "out") -> None:
        self.do(f"os.write({stream}[1], {text.encode()!r})")

    def ready(self, rank: int = 0, size: int = 1, local_size: int = 1, records: bool = False) -> EngineReady:
        return EngineReady(
            WORLD, rank, size, local_size, self.pid, "host", self.started, self.stdout_fd, self.stderr_fd, records
        )

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@dataclass
class Node:
    """A relay with recording conversations around it."""

    loop: HandLoop
    controller: Talk = field(default_factory=lambda: Talk("controller"))
    members: Members = field(default_factory=Members)

    def __post_init__(self) -> None:
        self.contents = Contents(self.controller)
        self.outputs = Outputs(self.loop, self.controller)
        self.together = Together(self.controller, self.loop.call_later)
        post = Post("w1", Path("nowhere"), "host", self.loop, self.controller, self.together)
        self.relay = Relay(post, self.members, self.contents, outputs=self.outputs, traces=Traces(self.loop))

    def join(self, child: Child, rank: int = 0) -> LocalEngine:
        engine = LocalEngine(child.ready(rank), Talk(f"engine:{rank}"))
        self.members.add(engine)
        self.outputs.open(engine)
        self.members.assign(engine, rank)
        return engine


StartChild = Callable[[], Child]
