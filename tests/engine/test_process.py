from __future__ import annotations

import importlib.util
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle
import msgspec
import numpy as np
import pytest

from helpers import alive, eventually
from ippmpi.engine.options import Options
from ippmpi.identity import host_name, identify
from ippmpi.wire.marks import Marks, mark
from ippmpi.wire.messages import (
    Assigned,
    Content,
    ContentReady,
    Display,
    EngineReady,
    Reply,
    Revoke,
    Run,
    StopEngine,
)
from ippmpi.wire.pickling import pack, unpack

if TYPE_CHECKING:
    from agents import FakeAgent, Node


def _agents() -> Any:
    """Load the file beside this one; the suite's import mode puts no folder of tests on the path."""
    spec = importlib.util.spec_from_file_location("engine_agents", Path(__file__).with_name("agents.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True, scope="module")
def functions_by_value() -> Iterator[None]:
    """No engine can import this module."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node: Node = _agents().Node(tmp_path)
    yield node
    node.close()


@pytest.fixture
def agent(node: Node) -> FakeAgent:
    return node.agent()


@pytest.fixture
def engine(node: Node, agent: FakeAgent) -> Any:
    """Return an engine that is ready and has id 0."""
    process = node.engine()
    agent.ready()
    agent.say(Assigned(0))
    return process


def sleep_long() -> None:
    time.sleep(60)


def spin() -> None:
    while True:
        pass


# --- start and end -------------------------------------------------------------------------------


def test_a_rank_introduces_itself(node: Node, agent: FakeAgent) -> None:
    process = node.engine(rank="1", size="3", env={"IPPMPI_PARENT": "c"})
    ready = agent.ready()
    assert ready == EngineReady(
        world="w1",
        rank=1,
        size=3,
        local_size=3,
        pid=process.pid,
        host=host_name(),
        started=identify(process.pid).started,
        stdout_fd=ready.stdout_fd,
        stderr_fd=ready.stderr_fd,
        parent_records_exit=True,
    )
    assert os.readlink(f"/proc/{process.pid}/fd/{ready.stdout_fd}").startswith("pipe:")


@pytest.mark.usefixtures("engine")
def test_it_runs_what_it_is_asked_in_order(agent: FakeAgent) -> None:
    agent.run("c-1", "push", {"a": []})
    for number in range(2, 50):
        agent.run(f"c-{number}", "pull", f"a.append({number}) or len(a)")
    assert [agent.value(f"c-{number}") for number in range(2, 50)] == list(range(1, 49))
    assert [reply.task for reply in agent.all(Reply)] == [f"c-{number}" for number in range(1, 50)]


def test_it_stops_when_it_is_told(engine: Any, agent: FakeAgent) -> None:
    acknowledged: list[bool] = []
    agent.say(StopEngine(), on_ack=lambda: acknowledged.append(True))
    assert engine.wait(10) == 0
    assert eventually(lambda: acknowledged)
    assert engine.stderr.read() == ""


def test_it_says_why_it_was_stopped(engine: Any, agent: FakeAgent) -> None:
    agent.say(StopEngine("the controller refuses this node's agent: no"))
    assert engine.wait(10) == 1
    assert "the controller refuses this node's agent: no" in engine.stderr.read()


def test_it_stops_after_the_task_that_runs(engine: Any, agent: FakeAgent) -> None:
    _start(agent, "c-1", lambda: (time.sleep(0.3), 5)[1])
    agent.apply("c-2", os.getpid)
    agent.say(StopEngine())
    assert agent.value("c-1") == 5
    assert engine.wait(10) == 0
    assert len(agent.all(Reply)) == 1


def test_sigterm_ends_an_idle_engine_in_good_order(engine: Any) -> None:
    engine.send_signal(signal.SIGTERM)
    assert engine.wait(10) == 0


def test_sigterm_ends_the_task_that_runs_and_then_the_engine(engine: Any, agent: FakeAgent) -> None:
    _start(agent, "c-1", sleep_long)
    engine.send_signal(signal.SIGTERM)
    failure = agent.reply("c-1").failure
    assert failure is not None
    assert (failure.ename, failure.evalue) == ("SystemExit", "the engine was told to end (SIGTERM)")
    assert engine.wait(10) == 0


def test_hard_deaths_are_the_users_own(engine: Any, agent: FakeAgent) -> None:
    agent.apply("c-1", os._exit, 7)
    assert engine.wait(10) == 7


@pytest.mark.parametrize("argv", [[], ["--file"], ["--file", "a", "--world", "b", "--size"], ["--bad", "x"]])
def test_a_bad_command_line_says_what_would_be_right(argv: list[str]) -> None:
    with pytest.raises(ValueError, match="usage: --file FILE"):
        Options.parse(argv)


def test_what_stops_an_engine_from_starting_is_its_last_line(node: Node) -> None:
    node.file.unlink()
    process = node.engine()
    assert process.wait(10) == 1
    assert process.stderr.read().splitlines()[-1].startswith(f"ippmpi-engine: error: no connection file {node.file}")


def test_an_engine_that_is_refused_says_so_and_leaves(node: Node) -> None:
    node.agent(refuse="no room")
    process = node.engine()
    assert process.wait(10) == 1
    assert process.stderr.read() == "ippmpi-engine: error: the agent refuses this engine: no room\n"


def test_an_engine_whose_parent_shell_is_dead_does_not_start(node: Node) -> None:
    process = node.engine(env={"IPPMPI_PARENT": "sh", "IPPMPI_PARENT_PID": "1"})
    assert process.wait(10) == 1
    assert "the parent of this rank has died" in process.stderr.read()


def test_an_engine_dies_with_its_parent_shell(node: Node, agent: FakeAgent) -> None:
    import subprocess

    code = (
        "import os, subprocess, sys\n"
        "os.environ |= {'IPPMPI_PARENT': 'sh', 'IPPMPI_PARENT_PID': str(os.getpid())}\n"
        "print(subprocess.Popen(sys.argv[1:]).pid, flush=True)\n"
        "os.read(0, 1)\n"
        "os._exit(0)\n"
    )
    command = [sys.executable, "-P", "-m", "ippmpi.engine", "--file", str(node.file), "--world", "w1", "--size", "1"]
    with subprocess.Popen(
        [sys.executable, "-c", code, *command, "--local-rank", "0"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        agent.ready()
        assert alive(pid)
    eventually(lambda: not alive(pid))


# --- interrupts ----------------------------------------------------------------------------------


def _announced(function: Any, *args: object) -> object:
    os.write(1, b"!")
    return function(*args)


def _printed(agent: FakeAgent, task: str, text: bytes) -> None:
    """Wait until *task* has printed *text*."""
    ready = agent.ready()
    marks, got = Marks(), bytearray()
    with open(f"/proc/{ready.pid}/fd/{ready.stdout_fd}", "rb", buffering=0) as pipe:
        os.set_blocking(pipe.fileno(), False)

        def read() -> bool:
            for whose, piece in marks.split(pipe.read(100) or b""):
                assert whose in (None, task)  # a mark is needed only where there is a doubt
                got.extend(piece)
            return len(got) >= len(text)

        eventually(read)
    assert got == text


def _start(agent: FakeAgent, task: str, function: object, *args: object) -> None:
    """Run *function* and wait until it runs."""
    agent.apply(task, _announced, function, *args)
    _printed(agent, task, b"!")


@pytest.mark.parametrize("function", [sleep_long, spin, time.sleep])
@pytest.mark.parametrize("outside", [False, True])
def test_a_task_is_interrupted_in_no_time(engine: Any, agent: FakeAgent, function: Any, outside: bool) -> None:
    _start(agent, "c-1", function, *([60] if function is time.sleep else []))
    if outside:
        engine.send_signal(signal.SIGINT)
    else:
        agent.say(Revoke("c-1", [0], interrupt=True))
    failure = agent.reply("c-1", 1.0).failure
    assert failure is not None
    assert failure.ename == "KeyboardInterrupt"
    agent.apply("c-2", len, "abc")
    assert agent.value("c-2") == 3


def test_executed_code_is_interrupted_too(engine: Any, agent: FakeAgent) -> None:
    agent.run("c-1", "execute", {"code": "print('on'); import time; time.sleep(60)", "silent": True})
    _printed(agent, "c-1", b"on\n")
    agent.say(Revoke("c-1", [0], interrupt=True))
    failure = agent.reply("c-1", 5.0).failure  # IPython loads its tracebacks now; the second is kept elsewhere
    assert failure is not None
    assert failure.ename == "KeyboardInterrupt"
    assert engine.poll() is None


def test_an_interrupt_for_another_task_hits_nobody(engine: Any, agent: FakeAgent) -> None:
    agent.apply("c-1", os.getpid)
    agent.value("c-1")
    _start(agent, "c-2", lambda: (time.sleep(0.3), 5)[1])
    agent.say(Revoke("c-1", [0], interrupt=True))
    agent.say(Revoke("c-9", [0], interrupt=True))
    assert agent.value("c-2") == 5
    assert engine.poll() is None


def test_an_idle_engine_ignores_sigint(engine: Any, agent: FakeAgent) -> None:
    for _ in range(20):
        engine.send_signal(signal.SIGINT)
    agent.apply("c-1", os.getpid)
    assert agent.value("c-1") == engine.pid


def test_interrupts_at_any_moment_never_end_the_engine_and_every_task_ends_once(engine: Any, agent: FakeAgent) -> None:
    """Tasks so short that most signals strike between them, or while a reply is made."""
    tasks = 400
    for number in range(tasks):
        agent.apply(f"c-{number}", lambda: [bytes(10)] * 1000)
    deadline = time.monotonic() + 30
    while len(agent.all(Reply)) < tasks and time.monotonic() < deadline:
        engine.send_signal(signal.SIGINT)
        agent.say(Revoke(f"c-{random.randrange(tasks)}", [0], interrupt=True))
        time.sleep(random.random() * 0.003)  # spreads the signals; nothing is waited for
    replies = agent.all(Reply)
    assert sorted(reply.task for reply in replies) == sorted(f"c-{number}" for number in range(tasks))
    assert {reply.failure.ename for reply in replies if reply.failure} <= {"KeyboardInterrupt", "TaskAborted"}
    agent.apply("last", len, "abc")
    assert agent.value("last") == 3


def test_a_waiting_task_is_taken_back(engine: Any, agent: FakeAgent) -> None:
    _start(agent, "c-1", sleep_long)
    agent.apply("c-2", os.getpid)
    agent.say(Revoke("c-2", [0]))
    failure = agent.reply("c-2").failure
    assert failure is not None
    assert (failure.kind, failure.engine, failure.rank, failure.pid) == ("TaskAborted", 0, 0, engine.pid)
    agent.say(Revoke("c-1", [0], interrupt=True))
    agent.reply("c-1")


# --- contents, output, displays ------------------------------------------------------------------


def test_large_contents_come_and_go_by_memory_files(engine: Any, agent: FakeAgent) -> None:
    array = np.arange(500_000)
    blob = pack((_double, (array,), {})).join()
    fd = os.memfd_create("down")
    os.write(fd, blob)
    agent.say(Run("c-1", "apply", [0], [Content(size=len(blob), transfer=1, path=f"/proc/{os.getpid()}/fd/{fd}")]))
    agent.holding = True
    agent.say(ContentReady(1), on_ack=lambda: os.close(fd))
    content = agent.reply("c-1").content
    assert content.path.startswith(f"/proc/{engine.pid}/fd/")
    found = unpack(bytearray(Path(content.path).read_bytes()))
    assert (found == array * 2).all()  # type: ignore[attr-defined]


def _double(array: Any) -> Any:
    array *= 2  # it is writable
    return array


@pytest.mark.usefixtures("engine")
def test_the_memory_file_of_a_result_is_closed_when_its_next_owner_has_it(agent: FakeAgent) -> None:
    for number in range(20):
        agent.apply(f"c-{number}", bytes, 200_000)
    paths = {agent.reply(f"c-{number}").content.path for number in range(20)}
    eventually(lambda: not any(os.path.exists(path) for path in paths))


@pytest.mark.usefixtures("engine")
def test_output_is_in_the_pipe_before_the_reply(agent: FakeAgent) -> None:
    ready = agent.ready()
    agent.apply("c-1", lambda: print("half a line", end=""))
    agent.reply("c-1")
    with open(f"/proc/{ready.pid}/fd/{ready.stdout_fd}", "rb", buffering=0) as pipe:
        os.set_blocking(pipe.fileno(), False)
        assert pipe.read(100) == b"half a line"


@pytest.mark.usefixtures("engine")
def test_output_is_marked_when_the_agent_cannot_know_whose_it_is(agent: FakeAgent) -> None:
    ready = agent.ready()
    agent.apply("c-1", time.sleep, 0.1)
    agent.apply("c-2", lambda: print("half a line", end=""))
    agent.reply("c-2")
    with open(f"/proc/{ready.pid}/fd/{ready.stdout_fd}", "rb", buffering=0) as pipe:
        os.set_blocking(pipe.fileno(), False)
        assert pipe.read(100) == mark("c-2", "c-1") + b"half a line"


@pytest.mark.usefixtures("engine")
def test_displays_come_before_the_reply_they_belong_to(agent: FakeAgent) -> None:
    agent.run("c-1", "execute", {"code": "display({'a': 1})", "silent": True})
    agent.value("c-1")
    (display,) = agent.all(Display)
    assert (display.task, display.engine) == ("c-1", 0)
    assert msgspec.msgpack.decode(display.data) == {
        "kind": "display_data",
        "data": {"text/plain": "{'a': 1}"},
        "metadata": {},
    }
    kinds = [type(message) for message in agent.heard]
    assert kinds.index(Display) < kinds.index(Reply)


@pytest.mark.usefixtures("engine")
def test_files_of_the_current_folder_can_be_imported(agent: FakeAgent) -> None:
    agent.run("c-1", "pull", "__import__('sys').path[0]")
    assert agent.value("c-1") == ""


# --- agents come and go --------------------------------------------------------------------------


def test_a_new_agent_hears_who_is_there_and_what_nobody_has_acknowledged(node: Node) -> None:
    first = node.agent(holding=True)
    process = node.engine()
    first.ready()
    first.say(Assigned(0))
    first.apply("c-1", os.getpid)
    assert first.value("c-1") == process.pid
    first.close()
    second = node.agent()
    assert second.ready() == msgspec.structs.replace(first.ready(), engine=0, tasks={"c-1": 0}, printing="c-1")
    assert second.value("c-1") == process.pid
    assert [type(message) for message in second.heard] == [EngineReady, Reply]
    second.apply("c-2", os.getpid)
    assert second.value("c-2") == process.pid


def test_the_first_rank_starts_an_agent_that_is_no_part_of_the_job(node: Node) -> None:
    """The real agent, which finds no controller; the engine does not wait for it."""
    node.release()
    environment = {"PMI_RANK": "0", "OMPI_COMM_WORLD_RANK": "0", "SLURM_STEP_ID": "0", "SLURM_JOB_ID": "7"}
    process = node.engine(env=environment | {"IPPMPI_PARENT": "c"})

    def agent_of_the_engine() -> int:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return int(children[0]) if children else 0

    pid = eventually(agent_of_the_engine)
    try:
        command = Path(f"/proc/{pid}/cmdline")
        eventually(
            lambda: b"ippmpi.agent" in command.read_bytes(), what="the agent's own program"
        )  # not yet, after vfork
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        names = {entry.partition(b"=")[0].decode() for entry in variables}
        assert not names & {*(environment.keys() - {"SLURM_JOB_ID"}), "IPPMPI_PARENT"}
        assert "SLURM_JOB_ID" in names
        command = eventually(Path(f"/proc/{pid}/cmdline").read_bytes).split(b"\0")[1:-1]
        assert command == [b"-P", b"-m", b"ippmpi.agent", b"--file", str(node.file).encode(), b"--world", b"w1"]
        assert os.getsid(pid) == pid
        assert os.readlink(f"/proc/{pid}/fd/0") == os.devnull
        log = os.readlink(f"/proc/{pid}/fd/1")
        assert log.endswith(".agent.log")
        assert os.readlink(f"/proc/{pid}/fd/2") == log
    finally:
        os.kill(pid, signal.SIGKILL)
