"""The controller as a process: who reaches it, what goes through it, and what it leaves behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from controller.fakes import Bytes
from controller.running import Caller, Client, EchoAgent, Running
from helpers import eventually
from ippmpi import connection
from ippmpi.net.conversation import Conversation
from ippmpi.net.keys import KeyPair, keypair
from ippmpi.net.link import LinkState
from ippmpi.wire.messages import (
    Awaited,
    Content,
    EngineRecord,
    EnginesChanged,
    Registered,
    RegisterEngines,
    Reply,
    Shutdown,
    StillWaiting,
    StopEngines,
    Submit,
)

Start = Callable[..., Running]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def start(tmp_path: Path, stack: ExitStack) -> Start:
    def start(*options: str) -> Running:
        running = Running(tmp_path, *options)
        stack.callback(running.end)
        return running

    return start


@pytest.fixture
def running(start: Start) -> Running:
    running = start()
    assert running.ready, running.text
    return running


def folder_of(running: Running) -> Path:
    return connection.node_folder_path(connection.private_key(running.connection("client").folder_key))


def with_engines(running: Running, stack: ExitStack, size: int = 1, *, tcp: bool = False) -> tuple[Client, EchoAgent]:
    at = running.connection("engine")
    agent = EchoAgent(at, size, at.address if tcp else "")
    stack.callback(agent.close)
    agent.wait(Registered)
    client = Client(running.connection("client"), endpoint=at.address if tcp else "")
    stack.callback(client.close)
    client.wait(EnginesChanged)
    return client, agent


def refusal(caller: Caller) -> str:
    with contextlib.closing(caller):
        eventually(lambda: [s for s, _ in caller.states if s is LinkState.REFUSED])
        return caller.states[-1][1]


# --- start and stop ------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_normal_stop_leaves_nothing_behind(running: Running, number: signal.Signals) -> None:
    folder = folder_of(running)
    assert (folder / "controller").is_socket()
    assert running.stop(number) == 0
    assert not folder.exists()
    assert os.listdir(running.profile_dir / "security") == []
    assert "Traceback" not in running.text


def test_the_files_are_private_and_no_secret_is_logged(running: Running) -> None:
    for role in connection.ROLES:
        file = connection.path(running.profile_dir, role, "t")
        assert file.stat().st_mode & 0o777 == 0o600
        assert running.connection(role).secret not in running.text
    assert folder_of(running).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("tcp", [False, True])
def test_a_stop_waits_for_the_engines(running: Running, stack: ExitStack, tcp: bool) -> None:
    _, agent = with_engines(running, stack, 3, tcp=tcp)
    assert running.stop() == 0
    assert agent.wait(StopEngines) == StopEngines(None)
    assert "did not end" not in running.text
    eventually(lambda: agent.link.conversation.idle, what="the end of the engines is acknowledged")


def test_a_client_can_stop_everything(running: Running, stack: ExitStack) -> None:
    client, agent = with_engines(running, stack)
    client.say(Shutdown(1, controller=True))
    assert running.process.wait(10) == 0
    agent.wait(StopEngines)


def test_a_second_controller_of_the_same_cluster_is_refused(running: Running, start: Start) -> None:
    second = start()
    assert not second.ready
    assert second.process.wait(10) == 1
    assert f"runs already (pid {running.process.pid}" in second.text
    assert running.connection("client").controller.pid == running.process.pid


def test_what_a_killed_controller_left_is_replaced(running: Running, start: Start) -> None:
    folder = folder_of(running)
    running.stop(signal.SIGKILL)
    assert folder.exists()
    second = start()
    assert second.ready, second.text
    assert not folder.exists()
    assert second.connection("client").controller.pid == second.process.pid
    assert second.stop() == 0


def test_a_file_of_another_tool_is_left_alone(tmp_path: Path, start: Start) -> None:
    file = connection.path(tmp_path, "client", "t")
    connection.write_private(file, b'{"key": "secret", "registration": "tcp://1.2.3.4:5"}')
    running = start()
    assert not running.ready
    assert running.process.wait(10) == 1
    assert "ipyparallel" in running.text
    assert b"1.2.3.4" in file.read_bytes()


def test_a_port_in_use_is_named(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        running = start("--port", str(port))
        assert running.process.wait(10) == 1
    assert f"cannot listen on 127.0.0.1:{port}" in running.text
    assert "Traceback" not in running.text


def test_an_unknown_policy_is_named(start: Start) -> None:
    running = start("--policy", "nonsense")
    assert running.process.wait(10) == 1
    assert "no 'nonsense' in ippmpi.policies; have" in running.text


def test_without_an_address_there_is_no_tcp_port(start: Start, stack: ExitStack) -> None:
    running = start("--ip", "")
    assert running.connection("client").address == ""
    with_engines(running, stack)


# --- who comes in --------------------------------------------------------------------------------


def test_a_client_comes_in_over_tcp_with_its_key(running: Running) -> None:
    at = running.connection("client")
    assert at.address.startswith("tcp://127.0.0.1:")
    with contextlib.closing(Client(at, endpoint=at.address)) as client:
        assert client.wait(EnginesChanged) == EnginesChanged([], [], [])
        assert client.link.conversation.about["cluster_id"] == "t"


def test_a_client_s_key_is_no_agent_s(running: Running) -> None:
    at = running.connection("client")
    assert "'client'" in refusal(Caller(at, "agent", "agent:w@h", endpoint=at.address))


def test_an_unknown_key_does_not_come_in(running: Running) -> None:
    at = running.connection("client")
    refusal(Caller(at, "client", "client:00", endpoint=at.address, keys=KeyPair(*keypair())))


def test_another_role_is_refused_on_the_socket_too(running: Running) -> None:
    at = running.connection("client")
    for role, peer in (("engine", "engine:3"), ("agent", "agent:w@here")):
        text = refusal(Caller(at, role, peer))
        assert f"the key of {peer} is a key for the role 'client', not {role!r}" in text
    foreign = refusal(Caller(at, "client", "client:1", keys=KeyPair(*keypair())))
    assert f"the controller on {socket.gethostname()} does not know the key of client:1" in foreign


# --- work ----------------------------------------------------------------------------------------


def test_a_small_task_goes_there_and_back(running: Running, stack: ExitStack) -> None:
    client, _ = with_engines(running, stack, 2)
    client.say(Submit(f"{client.id}-1", "echo", [0, 1], [Content(b"blob", 4)]))
    client.wait(Reply, 2)
    replies = {m.engine: m.content for m in client.got if isinstance(m, Reply)}
    assert replies == {0: Content(b"blob", 4), 1: Content(b"blob", 4)}
    eventually(lambda: client.link.conversation.idle, what="the request is in the store")


@pytest.mark.parametrize("tcp", [False, True])
def test_a_large_content_goes_there_and_back_and_its_space_is_free_again(
    running: Running, stack: ExitStack, tcp: bool
) -> None:
    client, _ = with_engines(running, stack, tcp=tcp)
    blob = os.urandom(20_000_000)
    push(client, 1, blob, op="echo")
    client.wait(Reply)
    eventually(lambda: client.blobs.get(f"{client.id}-1") == blob)
    eventually(lambda: not spool_files(running), what="the spool is empty")


def push(client: Client, number: int, blob: bytes, op: str = "push") -> None:
    def submit(conversation: Conversation) -> None:
        content = Content(size=len(blob), transfer=conversation.offer(Bytes(blob)))
        conversation.send(
            Submit(f"{client.id}-{number}", op, [0], [content]),
            on_ack=lambda: conversation.withdraw(content.transfer),
        )

    client.do(submit)


def spool_files(running: Running) -> list[str]:
    folder = Path(f"/proc/{running.process.pid}/fd")
    found = []
    for name in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):  # closed in between
            found.append(os.readlink(folder / name))
    return [link for link in found if "/spool/" in link]


def test_records_in_a_folder_of_the_user_outlive_the_controller(start: Start, stack: ExitStack, tmp_path: Path) -> None:
    running = start("--store-dir", str(tmp_path / "store"))
    client, _ = with_engines(running, stack)
    client.say(Submit(f"{client.id}-1", "echo", [0], [Content(b"blob", 4)], label="f"))
    client.wait(Reply)
    assert running.stop() == 0
    (file,) = (tmp_path / "store").glob("t-*/records.sqlite")
    with contextlib.closing(sqlite3.connect(file)) as db:
        assert db.execute("SELECT task, label FROM requests").fetchall() == [(f"{client.id}-1", "f")]
        assert db.execute("SELECT content FROM replies").fetchall() == [(b"blob",)]


def test_it_is_idle_when_there_is_nothing_to_do(running: Running, stack: ExitStack) -> None:
    with_engines(running, stack)
    before = running.cpu_ticks()
    with contextlib.suppress(AssertionError):
        eventually(lambda: False, 3)
    assert running.cpu_ticks() - before <= 2  # 10 ms each


@pytest.mark.slow
def test_it_stays_small(running: Running, stack: ExitStack) -> None:
    client, _ = with_engines(running, stack)
    for number in range(10_000):
        client.say(Submit(f"{client.id}-{number}", "echo", [0], [Content(b"x" * 500, 500)]))
    client.wait(Reply, 10_000, 60)
    blob = bytes(64 << 20)
    for number in range(10_000, 10_010):
        push(client, number, blob)
        client.wait(Reply, number + 1, 30)
    eventually(lambda: running.resident_kb() <= 60_000, 10)


# --- killed, and started again ---


def test_a_restored_controller_is_at_the_same_place_and_goes_on(
    start: Start, running: Running, stack: ExitStack
) -> None:
    before = running.connection("client")
    client, agent = with_engines(running, stack, 2, tcp=True)
    client.say(Submit(f"{client.id}-1", "echo", [0, 1], [Content(b"one", 3)]))
    client.wait(Reply, 2)
    eventually(lambda: agent.link.conversation.idle and client.link.conversation.idle, what="all is stored")
    running.stop(signal.SIGKILL)
    client.say(Submit(f"{client.id}-2", "echo", [0, 1], [Content(b"two", 3)]))
    again = start("--restore")
    assert again.ready, again.text
    after = again.connection("client")
    assert after == msgspec.structs.replace(before, controller=after.controller)
    agent.say(RegisterEngines("w", 2, [EngineRecord(-1, rank, "w", "here", 1000 + rank) for rank in range(2)]))
    last = client.wait(Reply, 4)
    assert (last.task, last.content.inline) == (f"{client.id}-2", b"two")
    client.say(StillWaiting([Awaited(f"{client.id}-1", [1])]))
    assert client.wait(Reply, 5) == Reply(f"{client.id}-1", 1, Content(b"one", 3), None, 1.0, 2.0)
    assert "restored: 2 engines, 1 requests, 0 of them unfinished" in again.text


def test_only_what_was_killed_can_be_restored(start: Start) -> None:
    assert "no connection file" in start("--restore").text
    first = start()
    assert first.ready
    at = first.connection("client")
    second = start("--restore")
    assert second.process.wait(10) == 1
    assert "only one that has ended without a stop can be restored" in second.text
    first.process.kill()
    first.process.wait(10)
    folder = connection.node_folder_path(connection.private_key(at.folder_key))
    (folder / "secret.key").unlink()
    third = start("--restore")
    assert third.process.wait(10) == 1
    assert "nothing to restore: no " in third.text
    assert start().ready
    assert not folder.exists()
