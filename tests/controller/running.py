"""A controller in a process of its own, and raw clients and agents that speak to it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from controller.fakes import Bytes
from helpers import eventually
from ippmpi import connection
from ippmpi.connection import Connection, Role
from ippmpi.net.conversation import Conversation, Delivery
from ippmpi.net.keys import KeyPair
from ippmpi.net.link import Dial, LinkState, LinkThread
from ippmpi.wire.messages import (
    Content,
    EngineLost,
    EngineRecord,
    Message,
    RegisterEngines,
    Reply,
    Run,
    StopEngines,
)


class Running:
    """``python -m ippmpi.controller`` with a profile folder of the test."""

    def __init__(self, profile_dir: Path, *options: str) -> None:
        self.profile_dir = profile_dir
        self.log = profile_dir / f"log-{len(list(profile_dir.glob('log-*')))}"
        ready, tell = os.pipe()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-W", "error", "-m", "ippmpi.controller"),
                    *("--profile-dir", str(profile_dir), "--cluster-id", "t", "--ready-fd", str(tell), *options),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                pass_fds=(tell,),
            )
        os.close(tell)
        try:
            self.ready = bool(select.select([ready], [], [], 10)[0] and os.read(ready, 100) == b"ready\n")
        finally:
            os.close(ready)

    @property
    def text(self) -> str:
        return self.log.read_text()

    def connection(self, role: Role) -> Connection:
        return connection.load(connection.path(self.profile_dir, role, "t"), role)

    def resident_kb(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])

    def cpu_ticks(self) -> int:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait, return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(15)

    def end(self) -> None:
        """Have it clean up without waiting for engines, whose agents are gone by now."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.send_signal(signal.SIGINT)  # the second one: at once
        self.process.wait(15)


class Caller:
    """One side of a link to the controller, in a thread of its own."""

    def __init__(
        self, at: Connection, role: str, peer: str, *, endpoint: str = "", keys: KeyPair | None = None
    ) -> None:
        self.got: list[Message] = []
        self.states: list[tuple[LinkState, str]] = []
        dial = Dial(
            (endpoint or f"unix://{at.socket}",),
            role,
            peer,
            {"user": "ann"},
            at.server_public,
            keys or KeyPair(at.public, at.secret),
        )
        self.link = LinkThread(peer, dial, on_message=self._on_message, on_state=self._on_state)
        self.link.start()

    def _on_message(self, delivery: Delivery) -> None:
        self.got.append(delivery.message)
        self.take(delivery)

    def take(self, delivery: Delivery) -> None:
        delivery.done()

    def _on_state(self, state: LinkState, text: str) -> None:
        self.states.append((state, text))

    def do(self, call: Callable[[Conversation], None]) -> None:
        self.link.call_soon(lambda: call(self.link.conversation))

    def say(self, message: Message) -> None:
        self.do(lambda conversation: conversation.send(message))

    def wait(self, kind: type[Message], count: int = 1, timeout_s: float = 10) -> Message:
        """Return message number *count* of a kind."""

        def found() -> list[Message]:
            some = [m for m in list(self.got) if isinstance(m, kind)]
            return some if len(some) >= count else []

        return eventually(found, timeout_s, f"{count} {kind.__name__}")[count - 1]

    def close(self) -> None:
        self.link.close(0.2)


class EchoAgent(Caller):
    """An agent of one world; its ranks answer every task with the content they got, and stop when told."""

    def __init__(self, at: Connection, size: int = 1, endpoint: str = "") -> None:
        self.size = size
        super().__init__(at, "agent", "agent:w@here", endpoint=endpoint)
        ranks = [EngineRecord(-1, rank, "w", "here", 1000 + rank) for rank in range(size)]
        self.say(RegisterEngines("w", size, ranks))

    def take(self, delivery: Delivery) -> None:
        message = delivery.message
        if isinstance(message, StopEngines):
            for rank in range(self.size):
                delivery.peer.send(EngineLost("w", rank, "stopped", True))
        if not isinstance(message, Run):
            delivery.done()
        elif message.contents[0].transfer:
            self._pull(delivery, message)
        else:
            self._reply(delivery, message, message.contents[0])

    def _pull(self, delivery: Delivery, run: Run) -> None:
        content = run.contents[0]
        sink = Bytes(size=content.size)

        def ended(whole: bool) -> None:
            assert whole
            back = Content(size=content.size, transfer=delivery.peer.offer(sink)) if run.op == "echo" else Content()
            self._reply(delivery, run, back)

        delivery.peer.accept(content.transfer, sink, ended)

    def _reply(self, delivery: Delivery, run: Run, content: Content) -> None:
        for engine in run.engines:
            delivery.peer.send(Reply(run.task, engine, content, None, 1.0, 2.0))
        delivery.done()


class Client(Caller):
    """A client that keeps what it is sent."""

    def __init__(self, at: Connection, number: int = 1, **options: str) -> None:
        self.blobs: dict[str, bytes] = {}
        self.id = f"{number:012x}"
        super().__init__(at, "client", f"client:{self.id}", **options)

    def take(self, delivery: Delivery) -> None:
        message = delivery.message
        if not isinstance(message, Reply) or not message.content.transfer:
            delivery.done()
            return
        sink = Bytes(size=message.content.size)

        def ended(whole: bool) -> None:
            assert whole
            self.blobs[message.task] = bytes(sink.data)
            delivery.done()

        delivery.peer.accept(message.content.transfer, sink, ended)
