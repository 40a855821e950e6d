"""An agent whose every word is decided by the test, and an engine process that believes in it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers import eventually
from ippmpi.connection import AGENT_LOCK, Connection, folder_key, host_prefix, node_folder, take_lock, write
from ippmpi.errors import Refused
from ippmpi.identity import identify
from ippmpi.net.conversation import Conversation, Delivery
from ippmpi.net.loop import Loop
from ippmpi.net.router import Router
from ippmpi.wire.messages import Content, EngineReady, Message, Reply, Run
from ippmpi.wire.pickling import pack, unpack


class FakeAgent:
    """Listens where an agent would; keeps what it hears in ``heard``.

    ``holding``: replies are not acknowledged, as when the controller is away.
    """

    def __init__(self, socket: Path, *, refuse: str = "", holding: bool = False) -> None:
        self.heard: list[Message] = []
        self.holding = holding
        self._refuse = refuse
        self._peer: Conversation | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(socket,), name="fake-agent")
        self._thread.start()
        self._started.wait(10)

    def _run(self, socket: Path) -> None:
        self._loop = loop = Loop()
        router = Router(
            loop, unix=str(socket), on_hello=self._on_hello, on_message=self._on_message, on_peer=lambda *_: None
        )
        self._started.set()
        loop.run()
        router.close()
        loop.close()

    def _on_hello(self, hello: Any, role: str) -> dict[str, object]:  # noqa: ARG002 - the router's
        if self._refuse:
            raise Refused(self._refuse)
        assert role == "engine"
        return {}

    def _on_message(self, delivery: Delivery) -> None:
        self._peer = delivery.peer
        if not (self.holding and isinstance(delivery.message, Reply)):
            delivery.done()
        self.heard.append(delivery.message)

    def say(self, message: Message, on_ack: Callable[[], None] | None = None) -> None:
        def send() -> None:
            assert self._peer is not None
            self._peer.send(message, on_ack=on_ack)

        self._loop.call_soon(send)

    def all(self, kind: type[Message]) -> list[Any]:
        return [message for message in list(self.heard) if isinstance(message, kind)]

    def ready(self) -> EngineReady:
        """Wait until the engine has introduced itself."""
        found: EngineReady = eventually(lambda: self.all(EngineReady))[0]
        return found

    def reply(self, task: str, timeout_s: float = 10.0) -> Reply:
        """Wait for the reply to *task*; there must be one."""
        found: list[Reply] = eventually(
            lambda: [r for r in self.all(Reply) if r.task == task], timeout_s, f"reply to {task}"
        )
        assert len(found) == 1
        return found[0]

    def run(self, task: str, op: str, value: object, attempt: int = 0) -> None:
        blob = pack(value).join()
        self.say(Run(task, op, [0], [Content(inline=blob, size=len(blob))], attempt))

    def apply(self, task: str, function: object, *args: object, attempt: int = 0) -> None:
        self.run(task, "apply", (function, args, {}), attempt)

    def value(self, task: str) -> Any:
        reply = self.reply(task)
        assert reply.failure is None, reply.failure.traceback
        return unpack(reply.content.inline)

    def close(self) -> None:
        if self._thread.is_alive():
            self._loop.stop()
            self._thread.join(10)


class Node:
    """A node folder with a connection file; the lock is taken, so an engine starts no agent of its own."""

    def __init__(self, folder: Path) -> None:
        token = str(folder)
        connection = Connection(
            role="engine",
            cluster_id="",
            token=token,
            controller=identify(os.getpid()),
            location="here",
            socket="",
            address="",
            server_public="",
            public="",
            secret="",
            folder_key=folder_key(token),
        )
        self.file = folder / "security" / "engine.json"
        write(connection, self.file)
        self.folder = node_folder(connection.folder_key)
        self._lock = os.open(self.folder / (host_prefix() + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._agent_lock: int | None = take_lock(self.folder / (host_prefix() + AGENT_LOCK))
        self._engines: list[subprocess.Popen[str]] = []
        self._agents: list[FakeAgent] = []

    def agent(self, **options: Any) -> FakeAgent:
        made = FakeAgent(self.folder / (host_prefix() + ".agent"), **options)
        self._agents.append(made)
        return made

    def engine(self, *more: str, rank: str = "0", size: str = "1", env: dict[str, str] | None = None) -> Any:
        """Start an engine without MPI."""
        command = [
            sys.executable,
            "-P",
            "-m",
            "ippmpi.engine",
            "--file",
            str(self.file),
            "--world",
            "w1",
            "--size",
            size,
        ]
        process = subprocess.Popen(
            [*command, "--local-rank", rank, *more],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | (env or {}),
        )
        self._engines.append(process)
        return process

    def release(self) -> None:
        """Let the next engine start an agent."""
        self.lose_agent()
        fcntl.flock(self._lock, fcntl.LOCK_UN)

    def lose_agent(self) -> None:
        """Let engines find that there is no agent."""
        if self._agent_lock is not None:
            os.close(self._agent_lock)
            self._agent_lock = None

    def close(self) -> None:
        for process in self._engines:
            process.kill()
            process.communicate(timeout=10)
        self.lose_agent()
        for agent in self._agents:
            agent.close()
        os.close(self._lock)
        for path in self.folder.iterdir():
            path.unlink()
        self.folder.rmdir()
