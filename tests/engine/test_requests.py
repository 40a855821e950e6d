from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from helpers import handed
from ippmpi.engine.requests import Requests
from ippmpi.errors import ProtocolError
from ippmpi.wire.messages import (
    Assigned,
    Content,
    ContentReady,
    Failure,
    Message,
    Reply,
    Revoke,
    Run,
    StopEngine,
)
from ippmpi.wire.pickling import pack, unpack


class FakeRunner:
    engine = 3
    task = ""

    def place(self, failure: Failure) -> Failure:
        return msgspec.structs.replace(failure, host="here")


class FakeDelivery:
    def __init__(self, message: Message, *, settled: bool = True) -> None:
        self.message = message
        self.settled = settled
        self.times_done = 0

    def done(self) -> None:
        self.times_done += 1


class Agent:
    """The agent's side, and what it gets to hear."""

    def __init__(self) -> None:
        self.runner = FakeRunner()
        self.replies: list[Reply] = []
        self.interrupted: list[str] = []
        self.requests = Requests(self.runner, self.replies.append, self.interrupted.append)
        self.files: dict[int, int] = {}

    def say(self, message: Message, *, settled: bool = True) -> None:
        """Deliver *message*; it must be acknowledged exactly once."""
        name = type(message).__struct_config__.tag
        delivery = FakeDelivery(message, settled=settled)
        getattr(self.requests, f"on_{name}")(delivery)
        assert delivery.times_done == 1

    def run(self, task: str, content: Content | None = None, *more: Content) -> None:
        self.say(Run(task, "apply", [3], [content or Content(inline=task.encode()), *more]))

    def memory(self, transfer: int, data: bytes | None = None, size: int = 10) -> Content:
        """Make a memory file; without *data* it is not complete."""
        fd = self.files[transfer] = os.memfd_create("test")
        os.ftruncate(fd, len(data) if data is not None else size)
        if data is not None:
            os.pwrite(fd, data, 0)
        return Content(size=os.fstat(fd).st_size, transfer=transfer, path=f"/proc/{os.getpid()}/fd/{fd}")

    def take(self) -> Any:
        """Return the next request; there must be one."""
        assert self.requests.news()
        work = self.requests.take()
        assert work is not None
        return work


@pytest.fixture
def agent() -> Iterator[Agent]:
    agent = Agent()
    yield agent
    for fd in agent.files.values():
        os.close(fd)


def test_requests_come_in_order(agent: Agent) -> None:
    for task in "abc":
        agent.run(task)
    assert [agent.take().task for _ in "abc"] == ["a", "b", "c"]


def test_the_first_one_waits_for_its_content_and_the_others_behind_it(agent: Agent) -> None:
    blob = pack(list(range(100))).join()
    agent.run("a", agent.memory(1, blob))
    agent.run("b", agent.memory(2))
    agent.run("c")
    agent.say(ContentReady(2))
    assert not agent.requests.news()
    agent.say(ContentReady(1))
    first = agent.take()
    assert (first.task, unpack(first.content)) == ("a", list(range(100)))
    assert [agent.take().task, agent.take().task] == ["b", "c"]


def test_a_content_is_private_and_writable_and_outlives_the_agents_file(agent: Agent) -> None:
    agent.run("a", agent.memory(1, b"0123456789"))
    os.close(agent.files.pop(1))
    agent.say(ContentReady(1))
    content = agent.take().content
    content[0:2] = b"xx"
    assert bytes(content) == b"xx23456789"


def test_a_transfer_that_failed_is_a_failure_in_its_turn(agent: Agent) -> None:
    agent.run("a", agent.memory(1))
    agent.say(ContentReady(1, failed=True))
    assert agent.take().content == Failure(
        "EngineError", "the request's content did not arrive: its transfer broke off", kind="EngineError"
    )


def test_a_memory_file_that_is_gone_is_a_failure(agent: Agent) -> None:
    agent.run("a", Content(size=5, transfer=1, path="/proc/self/fd/999"))
    assert "content of 5 bytes did not arrive: [Errno 2]" in agent.take().content.evalue


def test_each_engine_takes_its_own_content(agent: Agent) -> None:
    agent.say(Run("a", "push", [1, 3], [Content(inline=b"x"), Content(inline=b"mine")]))
    assert agent.take().content == b"mine"
    with pytest.raises(ProtocolError, match="no content for engine 3"):
        agent.requests.on_run(FakeDelivery(Run("b", "push", [1, 2], [Content(), Content()])))


def test_a_task_runs_once_however_often_it_is_sent(agent: Agent) -> None:
    agent.run("a")
    agent.run("a")
    assert agent.take().task == "a"
    agent.run("a")
    assert not agent.requests.news()
    agent.requests.acknowledged("a")
    agent.run("a")
    assert not agent.requests.news()


def test_a_request_whose_reply_was_acknowledged_is_answered_and_not_run(agent: Agent) -> None:
    agent.say(Run("a", "apply", [3], [Content()], 2))
    assert agent.take().task == "a"
    assert agent.requests.replied("a") == 2
    agent.say(Run("a", "apply", [3], [Content()], 2))
    assert agent.replies == []  # the first one is on its way
    agent.requests.acknowledged("a", 2)
    agent.say(Run("a", "apply", [3], [Content()], 2))
    assert not agent.requests.news()
    (reply,) = agent.replies
    assert (reply.task, reply.attempt) == ("a", 2)
    assert reply.failure is not None
    assert "its result is lost" in reply.failure.evalue


def test_another_attempt_at_a_task_runs_whether_or_not_the_reply_to_the_first_is_acknowledged(agent: Agent) -> None:
    agent.run("a")
    agent.run("b")
    assert [agent.take().task for _ in "ab"] == ["a", "b"]
    agent.requests.acknowledged("a", agent.requests.replied("a"))
    attempt = agent.requests.replied("b")
    for task in "ab":
        agent.say(Run(task, "apply", [3], [Content()], 1))
    agent.requests.acknowledged("b", attempt)
    assert [agent.take().task for _ in "ab"] == ["a", "b"]
    assert agent.requests.replied("b") == 1


def test_another_attempt_takes_the_place_of_one_whose_content_never_came(agent: Agent) -> None:
    agent.say(Run("a", "push", [3], [agent.memory(1)]))
    agent.say(Run("a", "push", [3], [Content(b"here")], 1))
    work = agent.take()
    assert (work.task, bytes(work.content)) == ("a", b"here")
    assert agent.requests.replied("a") == 1
    assert not agent.requests.news()


def test_a_new_agent_hears_what_is_open_and_what_is_not(agent: Agent) -> None:
    for task in "abcd":
        agent.run(task)
    for task in "abc":
        agent.take()
        agent.requests.replied(task)
    agent.requests.acknowledged("a")
    assert list(agent.requests.open_tasks()) == ["d", "c", "b"]  # their replies may be lost with the agent
    assert agent.requests.finished_tasks() == {"a": 0}
    agent.take()
    agent.requests.replied("d")
    assert next(iter(agent.requests.open_tasks())) == "d"  # what it printed last may still be in the pipe


def test_what_is_remembered_is_bounded(agent: Agent) -> None:
    for number in range(12_000):
        agent.run(str(number))
        agent.take()
        agent.requests.acknowledged(str(number))
    assert len(agent.requests.finished_tasks()) == 1024
    agent.run("11999")
    assert not agent.requests.news()
    agent.run("0")  # too long ago
    assert agent.take().task == "0"


def test_a_new_agent_may_use_the_numbers_of_the_old_one(agent: Agent) -> None:
    agent.run("a", agent.memory(1))
    agent.run("b", agent.memory(2))
    agent.requests.agent_changed()
    agent.say(ContentReady(1))
    agent.say(ContentReady(2))
    assert not agent.requests.news()
    agent.run("a", agent.memory(2, pack("a").join()))
    agent.run("b", agent.memory(1, pack("b").join()))
    agent.say(ContentReady(1))
    agent.say(ContentReady(2))
    assert [unpack(agent.take().content) for _ in "ab"] == ["a", "b"]


def test_what_a_new_agent_does_not_send_again_does_not_hold_up_the_others(agent: Agent) -> None:
    agent.run("a", agent.memory(1))
    agent.run("b", agent.memory(2))
    agent.run("c")
    waiting = agent.requests.agent_changed()
    assert list(agent.requests.open_tasks()) == ["c"]  # a restored controller must send the others
    agent.run("b", agent.memory(1, pack("b").join()))
    agent.requests.give_up(waiting)
    agent.say(ContentReady(1))
    lost = agent.take().content
    assert isinstance(lost, Failure)
    assert "did not arrive" in lost.evalue
    assert unpack(agent.take().content) == "b"
    assert agent.take().task == "c"


def test_a_request_sent_again_by_a_new_agent_brings_its_own_content(agent: Agent) -> None:
    agent.run("a", agent.memory(1))
    agent.run("b")
    agent.run("a", agent.memory(7, b"new"))
    agent.say(ContentReady(1, failed=True))
    assert not agent.requests.news()
    agent.say(ContentReady(7))
    assert bytes(agent.take().content) == b"new"
    assert agent.take().task == "b"
    agent.run("c", agent.memory(8))
    agent.run("c", Content(inline=b"small"))
    assert agent.take().content == b"small"


# --- taking back ---------------------------------------------------------------------------------


def test_a_waiting_task_is_taken_back(agent: Agent) -> None:
    for task in "ab":
        agent.run(task)
    agent.say(Revoke("a", [3]))
    (reply,) = agent.replies
    assert (reply.task, reply.engine) == ("a", 3)
    assert reply.failure == Failure("TaskAborted", "taken back before it started", kind="TaskAborted", host="here")
    assert agent.take().task == "b"
    assert agent.interrupted == []


def test_a_task_that_waits_for_content_is_taken_back_and_lets_the_next_one_pass(agent: Agent) -> None:
    agent.run("a", agent.memory(1))
    agent.run("b")
    agent.say(Revoke("a", [3], interrupt=True))
    assert agent.take().task == "b"
    agent.say(ContentReady(1))
    assert not agent.requests.news()
    assert [r.task for r in agent.replies] == ["a"]
    assert agent.interrupted == []


def test_a_running_task_is_interrupted_only_if_that_is_wished(agent: Agent) -> None:
    agent.run("a")
    agent.take()
    agent.say(Revoke("a", [3]))
    assert agent.interrupted == []
    agent.say(Revoke("a", [3], interrupt=True))
    assert agent.interrupted == ["a"]
    agent.say(Revoke("b", [3], interrupt=True))
    assert agent.interrupted == ["a"]
    assert agent.replies == []


def test_a_task_that_was_taken_back_does_not_come_again_before_its_reply_is_acknowledged(agent: Agent) -> None:
    agent.run("a")
    agent.say(Revoke("a", [3]))
    agent.run("a")
    agent.say(Revoke("a", [3]))
    assert len(agent.replies) == 1
    agent.requests.acknowledged("a")
    agent.run("a")
    assert agent.requests.take() is None


# --- the rest ------------------------------------------------------------------------------------


def test_an_engine_learns_its_id(agent: Agent) -> None:
    agent.say(Assigned(17))
    assert agent.runner.engine == 17


def test_stopping_leaves_what_waits(agent: Agent) -> None:
    agent.run("a")
    agent.run("b")
    assert agent.take().task == "a"
    agent.say(StopEngine())
    assert agent.requests.news()
    assert agent.requests.stopped
    assert agent.requests.take() is None


def test_a_request_is_the_only_one_if_the_agent_knew_that_all_before_it_had_ended(agent: Agent) -> None:
    agent.run("c-1")
    assert agent.take().sole
    agent.run("c-2")
    assert not agent.take().sole, "c-1 has not ended"
    for task in ("c-1", "c-1", "c-2"):
        agent.requests.replied(task)
    agent.say(Run("c-3", "apply", [3], [Content(inline=b"x")]), settled=False)
    assert not agent.take().sole, "the agent sent it before it had heard of the others' ends"
    agent.requests.replied("c-3")
    agent.run("c-4")
    assert agent.take().sole


def test_a_content_whose_agent_died_before_it_was_opened_is_waited_for_until_it_is_sent_again(agent: Agent) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    agent.run("c-1", Content(size=10, transfer=4, path=f"/proc/{process.pid}/fd/7"))
    agent.run("c-2")
    assert not agent.requests.news(), "c-2 waits for its turn"
    assert [request.task for request in agent.requests.agent_changed()] == ["c-1"]
    agent.run("c-1", agent.memory(5, b"0123456789"))
    agent.say(ContentReady(5))
    assert [agent.take().task, agent.take().task] == ["c-1", "c-2"]
    assert agent.replies == []


def test_a_content_that_was_never_opened_is_not_taken_for_zeros_when_its_dead_agent_says_that_it_is_ready(
    agent: Agent,
) -> None:
    """An engine that was stopped reads all that was said to it before its agent died."""
    process = subprocess.Popen(["true"])
    process.wait()
    agent.run("c-1", Content(size=10, transfer=4, path=f"/proc/{process.pid}/fd/7"))
    agent.say(ContentReady(4))
    assert not agent.requests.news()
    agent.requests.agent_changed()
    agent.run("c-1", agent.memory(1, b"0123456789"))
    agent.say(ContentReady(1))
    assert bytes(agent.take().content) == b"0123456789"


def test_a_content_that_its_living_agent_does_not_have_is_a_failure(agent: Agent) -> None:
    agent.run("c-1", Content(size=10, transfer=4, path=f"/proc/{os.getpid()}/fd/999999"))
    work = agent.take()
    assert "did not arrive" in work.content.evalue


def test_a_handed_content_is_read_when_its_turn_comes_and_is_writable(agent: Agent, tmp_path: Path) -> None:
    file = handed(tmp_path, b"0123456789")
    agent.run("a", Content(size=10, transfer=1, path=file.path))
    agent.say(ContentReady(1))
    file.close()
    content = agent.take().content.read()
    content[0:2] = b"xx"
    assert content[:] == b"xx23456789"


def test_a_handed_content_that_is_taken_back_is_closed(agent: Agent, tmp_path: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    file = handed(tmp_path, b"0123456789")
    agent.run("a", Content(size=10, transfer=1, path=file.path))
    agent.say(ContentReady(1))
    file.close()
    agent.say(Revoke("a", [3]))
    assert agent.requests.take() is None
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_handed_content_that_is_cut_short_is_a_failure(agent: Agent, tmp_path: Path) -> None:
    file = handed(tmp_path, b"0123456789")
    agent.run("a", Content(size=20, transfer=1, path=file.path))
    agent.say(ContentReady(1))
    assert "ends at 10, not at 20" in agent.take().content.read().evalue
    file.close()


def test_a_call_that_is_no_request_has_its_turn_and_no_reply() -> None:
    agent = Agent()
    agent.say(Run("a-1", "apply", [3], [Content(inline=b"1", size=1)]))
    called: list[int] = []
    agent.requests.add("kernel-1", lambda: called.append(1))
    agent.say(Run("a-2", "apply", [3], [Content(inline=b"2", size=1)]))
    taken = [agent.requests.take() for _ in range(3)]
    assert [work and work.op for work in taken] == ["apply", None, "apply"]
    assert taken[1] is not None
    assert callable(taken[1].content)
    taken[1].content()
    assert called == [1]
    assert agent.requests.take() is None
    agent.say(Revoke("kernel-1", [3], interrupt=True))  # of nobody's task
    assert agent.replies == []
    assert agent.interrupted == []
