"""The whole process, between a real router and a real link."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.fakes import Child, StartChild
from helpers import alive, eventually
from ippmpi import connection as files
from ippmpi.agent.process import endpoints
from ippmpi.connection import Connection, host_prefix, node_folder_path
from ippmpi.errors import ConnectionFileError, Refused
from ippmpi.identity import identify
from ippmpi.net.conversation import Conversation, Delivery
from ippmpi.net.keys import ServerKeys, keypair
from ippmpi.net.link import Dial, LinkState, LinkThread
from ippmpi.net.loop import Loop
from ippmpi.net.router import Router
from ippmpi.wire.messages import (
    Assigned,
    Content,
    ContentReady,
    Deliver,
    Denied,
    EngineLost,
    Message,
    Output,
    Registered,
    RegisterEngines,
    Replies,
    Reply,
    Run,
    StopEngine,
    StopEngines,
)
from net.raw import Raw, a_hello

DATA = os.urandom(3_000_000)


Start = Callable[..., subprocess.Popen]
Join = Callable[..., "Rank"]


class Bytes:
    """A source and a sink."""

    def __init__(self, data: bytes = b"", size: int | None = None) -> None:
        self.data = bytearray(data)
        self.size = len(data) if size is None else size

    def available(self) -> int:
        return self.size

    def read(self, start: int, stop: int) -> bytes:
        return bytes(self.data[start:stop])

    def write(self, offset: int, data: memoryview) -> None:
        assert offset == len(self.data)
        self.data += data


class Controller:
    """A router in a thread that keeps and acknowledges what it gets."""

    def __init__(self, folder: Path) -> None:
        self.loop, self.got, self.agent = Loop(), [], None
        server, peer = keypair(), keypair()
        self.router = Router(
            self.loop,
            unix=str(folder / "c"),
            tcp="127.0.0.1:0",
            keys=ServerKeys(*server, {peer[0]: "agent"}),
            on_hello=lambda *_: {},
            on_message=self.on_message,
            on_peer=self.on_peer,
        )
        self.connection = Connection(
            role="engine",
            cluster_id="",
            token=files.new_token(),
            controller=identify(os.getpid()),
            location=socket.gethostname(),
            socket=str(folder / "c"),
            address=f"tcp://127.0.0.1:{self.router.tcp_port}",
            server_public=server[0],
            public=peer[0],
            secret=peer[1],
            folder_key=secrets.token_hex(4),
        )
        self.file = folder / "profile" / "security" / "ipcontroller-engine.json"
        files.write(self.connection, self.file)
        self.thread = threading.Thread(target=self.loop.run, name="test-controller")
        self.thread.start()

    def on_message(self, delivery: Delivery) -> None:
        message = delivery.message
        self.got += message.replies if isinstance(message, Replies) else [message]
        if not (isinstance(delivery.message, Reply) and delivery.message.content.transfer):
            delivery.done()  # the content of the other ones has to be taken first

    def on_peer(self, conversation: Conversation, connected: bool) -> None:
        self.agent = conversation if connected else None

    def of(self, kind: type[Message]) -> list[Any]:
        return [message for message in self.got if isinstance(message, kind)]

    def wait(self, kind: type[Message], count: int = 1) -> Any:
        return eventually(lambda: len(found := self.of(kind)) >= count and found, what=f"{kind.__name__} arrived")

    def send(self, message: Message) -> None:
        self.loop.call_soon(lambda: self.agent.send(message))

    def close(self) -> None:
        if not self.thread.is_alive():
            return
        self.loop.stop()
        self.thread.join(5)
        self.router.close()
        self.loop.close()


class Rank:
    """A real process, and in this one the link that its engine would have."""

    def __init__(self, process: Child, folder: Path, rank: int, size: int = 1, key: str = "") -> None:
        self.process, self.rank, self.got, self.closed = process, rank, [], False
        dial = Dial((f"unix://{folder / host_prefix()}.agent",), "engine", f"engine:{rank}", key=key)
        self.link = LinkThread(f"engine-{rank}", dial, on_message=self.on_message, on_state=lambda *_: None)
        self.link.start()
        self.send(process.ready(rank, size, size, records=True))

    def on_message(self, delivery: Delivery) -> None:
        self.got.append(delivery.message)
        delivery.done()

    def send(self, message: Message) -> None:
        self.link.call_soon(lambda: self.link.conversation.send(message))

    def end(self) -> None:
        """Say all there is to say, then die."""
        self.hang_up()
        self.process.close()

    def hang_up(self) -> None:
        if not self.closed:
            self.closed = True
            self.link.close()

    def wait(self, kind: type[Message]) -> Any:
        return eventually(
            lambda: next((message for message in self.got if isinstance(message, kind)), None), what=kind.__name__
        )


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[Controller]:
    controller = Controller(tmp_path)
    yield controller
    controller.close()


@pytest.fixture
def folder(controller: Controller) -> Path:
    return node_folder_path(controller.connection.folder_key)


@pytest.fixture
def start(controller: Controller, tmp_path: Path) -> Iterator[Start]:
    started = []

    def start(*options: str) -> subprocess.Popen:
        with open(tmp_path / "agent.log", "a") as file:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-P", "-m", "ippmpi.agent", "--file", controller.file, "--world", "w1", *options],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    start_new_session=True,
                )
            )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
    shutil.rmtree(node_folder_path(controller.connection.folder_key), ignore_errors=True)  # of those killed here


@pytest.fixture
def ranks(child: StartChild, folder: Path, controller: Controller) -> Iterator[Join]:
    ranks = []

    def join(rank: int = 0, size: int = 1) -> Rank:
        ranks.append(Rank(child(), folder, rank, size, controller.connection.public))
        return ranks[-1]

    yield join
    for rank in ranks:
        rank.hang_up()


@pytest.mark.parametrize("transport", ["auto", "tcp"])
def test_a_world_lives_and_ends_and_nothing_stays(
    controller: Controller, start: Start, ranks: Join, folder: Path, tmp_path: Path, transport: str
) -> None:
    agent = start("--transport", transport)
    pair = [ranks(rank, 2) for rank in range(2)]
    (registration,) = controller.wait(RegisterEngines)
    assert sorted(record.rank for record in registration.engines) == [0, 1]
    assert controller.agent.name == f"agent:w1@{socket.gethostname()}"
    assert controller.agent.about["pid"] == agent.pid
    controller.send(Registered("w1", 0))
    assert [rank.wait(Assigned).engine for rank in pair] == [0, 1]

    controller.send(Run("t", "apply", [0, 1], [Content(b"abc")]))
    for rank in pair:
        assert rank.wait(Run).contents == [Content(b"abc")]
        rank.process.print(f"from {rank.rank}")
        rank.send(Reply("t", rank.rank, Content(b"value")))
    controller.wait(Reply, 2)
    for rank in (0, 1):
        mine = [m for m in controller.got if isinstance(m, Output | Reply) and m.engine == rank]
        assert mine == [Output("t", rank, "stdout", f"from {rank}".encode()), Reply("t", rank, Content(b"value"))]

    controller.send(StopEngines())
    for rank in pair:
        rank.wait(StopEngine)
        (folder / f"{host_prefix()}.{rank.process.pid}.exit").write_text("exit 0\n")
        rank.end()
    assert agent.wait(10) == 0
    assert [(lost.cause, lost.expected, lost.exit_code) for lost in controller.of(EngineLost)] == [
        ("stopped", True, 0)
    ] * 2
    assert not folder.exists()
    assert not (tmp_path / "agent.log").exists()


def test_large_contents_pass_in_both_directions(controller: Controller, start: Start, ranks: Join) -> None:
    start()
    rank = ranks()
    controller.wait(RegisterEngines)
    controller.send(Registered("w1", 0))
    controller.loop.call_soon(
        lambda: controller.agent.send(
            Run("t", "push", [0], [Content(size=len(DATA), transfer=controller.agent.offer(Bytes(DATA)))])
        )
    )
    content = rank.wait(Run).contents[0]
    with open(content.path, "rb") as file:
        assert rank.wait(ContentReady) == ContentReady(content.transfer)
        assert file.read() == DATA

    rank.process.do(
        "f = os.memfd_create('x'); os.truncate(f, 2_000_000); os.pwrite(f, b'end', 1_999_997); os.dup2(f, 77)"
    )
    rank.send(Reply("t", 0, Content(size=2_000_000, path=f"/proc/{rank.process.pid}/fd/77")))
    (reply,) = controller.wait(Reply)
    sink, ends = Bytes(size=2_000_000), []
    controller.loop.call_soon(lambda: controller.agent.accept(reply.content.transfer, sink, ends.append))
    eventually(lambda: ends)
    assert ends == [True]
    assert sink.data == bytes(1_999_997) + b"end"


def test_a_killed_rank_is_reported_within_two_seconds(controller: Controller, start: Start, ranks: Join) -> None:
    start()
    rank = ranks()
    controller.wait(RegisterEngines)
    controller.send(Registered("w1", 0))
    rank.wait(Assigned)
    controller.send(Deliver([0], signal.SIGKILL))
    rank.process.process.wait(5)
    lost = eventually(lambda: controller.of(EngineLost), 1.9)  # no parent writes a record here
    assert lost[0].cause.startswith("killed together with its parent")


def test_a_second_agent_leaves_at_once_and_only_engines_are_let_in(
    controller: Controller, start: Start, ranks: Join, folder: Path
) -> None:
    start()
    ranks()
    controller.wait(RegisterEngines)
    assert start().wait(10) == 0
    states = []
    dial = Dial((f"unix://{folder / host_prefix()}.agent",), "client", "client:x")
    link = LinkThread(
        "stranger", dial, on_message=lambda _: None, on_state=lambda state, text: states.append((state, text))
    )
    link.start()
    eventually(lambda: states)
    link.close(0)
    assert states == [
        (LinkState.REFUSED, "client:x is a 'client'; only engines, named engine:<rank>, speak to an agent")
    ]


def test_engines_of_an_agent_that_is_refused_are_told_why(
    controller: Controller, start: Start, child: StartChild, folder: Path
) -> None:
    def refuse(*_: object) -> dict[str, object]:
        raise Refused("it is too late")

    why = "the controller refuses this node's agent: it is too late"
    early = Rank(child(), folder, 0, key=controller.connection.public)  # says hello as soon as it can
    controller.router._on_hello = refuse
    process = start()
    path = folder / f"{host_prefix()}.agent"
    eventually(path.exists, what="the agent")

    def answer() -> str:
        with contextlib.closing(Raw(str(path))) as late:
            late.say(a_hello("engine:1", "engine", key=controller.connection.public))
            denied = late.hear()
            return denied.reason if isinstance(denied, Denied) else ""

    assert eventually(answer, what="a refusal") == why
    stopped = [m for m in early.got if isinstance(m, StopEngine)]
    assert stopped in ([], [StopEngine(why)])  # else it was refused as well
    early.end()
    process.terminate()
    assert process.wait(10) == 0


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"version": 99}, f"on {socket.gethostname()} speaks protocol version 1, engine:0 speaks 99"),
        ({"python": "3.2.1"}, f"runs Python {platform.python_version()}, engine:0 runs 3.2.1"),
        ({"key": "k" * 40}, "is not that of engine:0, whose connection file is of another cluster"),
        ({"peer": "engine:first"}, "only engines, named engine:<rank>"),
    ],
)
def test_an_engine_that_does_not_fit_is_refused_at_once_with_both_sides_named(
    controller: Controller, start: Start, folder: Path, wrong: dict[str, object], text: str
) -> None:
    start()
    path = folder / f"{host_prefix()}.agent"
    eventually(path.exists, what="the agent")
    begin = time.monotonic()
    fields = {"peer": "engine:0", "role": "engine", "key": controller.connection.public, **wrong}
    with contextlib.closing(Raw(str(path))) as engine:
        engine.say(a_hello(**fields))
        denied = engine.hear()
    assert isinstance(denied, Denied)
    assert text in denied.reason
    assert "the agent of world" in denied.reason or "named engine" in text
    assert time.monotonic() - begin < 1


def test_nonsense_from_an_engine_is_dropped(controller: Controller, start: Start, ranks: Join, tmp_path: Path) -> None:
    agent = start()
    rank = ranks()
    controller.wait(RegisterEngines)
    controller.send(Registered("w1", 0))
    rank.wait(Assigned)
    rank.send(Run("t", "apply", [0], [Content(b"x")]))
    rank.send(Reply("t", 5, Content(b"not mine")))
    rank.send(Reply("t", 0, Content(size=5, path="/etc/passwd")))
    rank.link.call_soon(lambda: rank.link.conversation.send_raw(b"\xff garbage"))
    rank.send(Reply("u", 0, Content(b"fine")))
    bad, fine = controller.wait(Reply, 2)
    assert (bad.failure.kind, fine.content.inline) == ("EngineError", b"fine")
    assert alive(agent.pid)
    log = (tmp_path / "agent.log").read_text()
    assert log.count("dropped a message") == 3
    assert "Traceback" not in log


def test_sigterm_stops_the_engines_and_then_the_agent(
    controller: Controller, start: Start, ranks: Join, folder: Path
) -> None:
    agent = start()
    rank = ranks()
    controller.wait(RegisterEngines)
    agent.send_signal(signal.SIGTERM)
    rank.wait(StopEngine)
    rank.end()
    assert agent.wait(10) == 0
    assert not folder.exists()


def test_without_a_controller_the_engines_are_stopped(
    controller: Controller, start: Start, ranks: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPPMPI_AGENT_CONTROLLER_WAIT_S", "0.5")
    agent = start()
    rank = ranks()
    controller.wait(RegisterEngines)
    controller.close()
    rank.wait(StopEngine)
    rank.end()
    assert agent.wait(10) == 0


def test_an_agent_is_small_sleeps_and_may_use_the_whole_node(controller: Controller, start: Start, ranks: Join) -> None:
    agent = start()
    ranks()
    controller.wait(RegisterEngines)
    status = Path(f"/proc/{agent.pid}/status").read_text()
    (rss_kb,) = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")]
    assert rss_kb * 1024 <= 40e6
    assert os.getsid(agent.pid) == agent.pid
    assert len(os.sched_getaffinity(agent.pid)) >= len(os.sched_getaffinity(0))


def test_a_file_that_leads_nowhere_is_an_error(
    controller: Controller, start: Start, folder: Path, tmp_path: Path
) -> None:
    nowhere = Connection(
        **{name: getattr(controller.connection, name) for name in Connection.__struct_fields__}
        | {"address": "", "socket": "/nowhere"}
    )
    with pytest.raises(ConnectionFileError, match="--ip"):
        endpoints(nowhere)
    controller.file.unlink()
    files.write(nowhere, controller.file)
    assert start().wait(10) == 1
    assert "must be started with --ip" in (tmp_path / "agent.log").read_text()
    assert not folder.exists()


def test_the_unix_socket_comes_first_and_tcp_can_be_forced(controller: Controller) -> None:
    address = controller.connection.address
    assert endpoints(controller.connection) == (f"unix://{controller.connection.socket}", address)
    assert endpoints(controller.connection, "tcp") == (address,)


def test_an_agent_whose_starter_died_does_not_stay(controller: Controller, start: Start, folder: Path) -> None:
    folder.mkdir(mode=0o700)
    with open(folder / f"{host_prefix()}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        agent = start()
        eventually(lambda: controller.agent)
    assert agent.wait(10) == 0
    assert not folder.exists()


def test_without_tcp_nothing_loads_zeromq() -> None:
    heavy = {"zmq", "numpy", "IPython", "cloudpickle", "hashlib", "tempfile"}
    code = f"import sys, ippmpi.agent.__main__\nassert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)\n"
    subprocess.run([sys.executable, "-P", "-c", code], check=True, timeout=30)
