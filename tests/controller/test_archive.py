"""Replays of what is stored, with real conversations, a real spool and a store that answers when the test says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from controller.fakes import Pair
from controller.test_controller import AGENT, BIG, CLIENT, TASK, Scene
from ippmpi.core.effects import (
    Consult,
    Effect,
    Found,
    History,
    Keep,
    Look,
    Purge,
    Release,
    Retell,
    Send,
    Shelve,
    Wanted,
)
from ippmpi.ids import Peer, TaskId
from ippmpi.store.records import ReplyRecord, RequestRecord, RequestState, Selection
from ippmpi.wire.messages import Answer, Content, Failure, Message, Output, Query, Reply

OTHER = Peer("client:cd34")
FETCH = Query(7, "fetch", b"")


def record(*replies: ReplyRecord, targets: tuple[int, ...] = (0,), outputs: tuple[Output, ...] = ()) -> RequestRecord:
    return RequestRecord(TASK, "ab12", "apply", "l", list(targets), 1.0, 2.0, RequestState.OK, replies, outputs)


def text(data: bytes) -> Output:
    return Output(TASK, 0, "stdout", data)


class Stage(Scene):
    """A controller with a second client."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, 16_000_000)
        self.other = self.post.add(Pair(OTHER, "client"))

    def fetch(self, *live: str) -> None:
        tasks = frozenset(map(TaskId, live))
        self.on(Query, lambda peer, m: [Retell(peer, m.request, (TASK,), tasks)])
        self.other.say(FETCH)
        self.pump()

    def found(self, *records: RequestRecord) -> None:
        (_, _, found) = self.records.questions.pop()
        found(list(records))
        self.pump()

    def got(self) -> list[Message]:
        return [delivery.message for delivery in self.other.got]

    def result_of(self, effects: list[Effect]) -> None:
        """Let the agent bring a large reply, which the brain answers with *effects* made of it."""
        content, _ = self.offer(self.agent)
        self.on(Reply, lambda peer, m: [make(m) for make in effects])  # type: ignore[operator]
        self.agent.say(Reply(TASK, 0, content))
        self.pump()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    stage.spool.close()


def test_a_list_of_requests_is_answered_from_the_store(stage: Stage) -> None:
    stage.on(Query, lambda peer, m: [Look(peer, m.request, Wanted(5, label="l"))])
    stage.other.say(Query(3, "results"))
    stage.pump()
    (selection, whole, _) = stage.records.questions[0]
    assert (selection, whole) == (Selection(5, label="l"), False)
    stage.found(record())
    (answer,) = stage.got()
    assert isinstance(answer, Answer)
    (entry,) = msgspec.msgpack.decode(answer.value)
    assert (entry["task"], entry["client"], entry["state"], entry["balanced"]) == (TASK, "ab12", "ok", False)


def test_what_comes_during_a_replay_comes_after_it_and_once(stage: Stage) -> None:
    stage.fetch(TASK)
    stage.on(Output, lambda peer, m: [Keep(TASK, m), Send(CLIENT, m), Send(OTHER, m)])
    stage.on(Reply, lambda peer, m: [Keep(TASK, m), Send(CLIENT, m), Send(OTHER, m)])
    reply = Reply(TASK, 0, Content(b"v", 1))
    stage.agent.say(text(b"later"))
    stage.agent.say(reply)
    stage.pump()
    assert stage.got() == []
    assert [d.message for d in stage.client.got] == [text(b"later"), reply]
    stage.found(record(outputs=(text(b"early"),)))
    assert stage.got() == [text(b"early"), text(b"later"), reply, Answer(7, msgspec.msgpack.encode([]))]
    stage.agent.say(text(b"last"))
    stage.pump()
    assert stage.got()[-1] == text(b"last")


def test_ids_that_nobody_knows_are_answered(stage: Stage) -> None:
    stage.fetch()
    stage.found()
    assert stage.got() == [Answer(7, msgspec.msgpack.encode([TASK]))]


def test_values_and_failures_come_back_as_they_were(stage: Stage) -> None:
    failure = Failure("ValueError", "no", engine=1)
    stage.fetch()
    stage.found(record(ReplyRecord(0, None, b"v", 1, 1.0, 2.0), ReplyRecord(1, failure, b"", 0, 1.0, 2.0)))
    good, bad, _ = stage.got()
    assert good == Reply(TASK, 0, Content(b"v", 1), None, 1.0, 2.0)
    assert isinstance(bad, Reply)
    assert bad.failure == failure


def test_every_part_of_a_task_that_ended_gets_an_end(stage: Stage) -> None:
    stage.fetch()
    stage.found(record(ReplyRecord(0, None, None, 99, 1.0, 2.0), targets=(0, 2)))
    large, lost, _ = stage.got()
    for message, engine in ((large, 0), (lost, 2)):
        assert isinstance(message, Reply)
        assert message.engine == engine
        assert message.failure is not None
        assert message.failure.kind == "ResultNotKept"


def test_a_large_value_that_nobody_waits_for_is_shelved_and_can_be_fetched_again_and_again(stage: Stage) -> None:
    stage.result_of([lambda m: Keep(TASK, m), lambda m: Shelve(m.content)])
    stage.records.commit()
    for turn in range(2):
        stage.fetch()
        stage.found(record(ReplyRecord(0, None, None, len(BIG), 1.0, 2.0)))
        message = stage.got()[2 * turn]
        assert isinstance(message, Reply)
        sink, ends = stage.pull(stage.other, message.content)
        assert (bytes(sink.data), ends) == (BIG, [True])
        stage.other.got[2 * turn].done()
        stage.pump()
    assert len(stage.spool) == 1


def test_a_large_value_that_its_client_did_not_take_is_shelved_when_the_client_is_given_up(stage: Stage) -> None:
    stage.result_of([lambda m: Keep(TASK, m), lambda m: Send(CLIENT, m)])
    stage.records.commit()
    stage.controller._forget(CLIENT)
    stage.fetch()
    stage.found(record(ReplyRecord(0, None, None, len(BIG), 1.0, 2.0)))
    message = stage.got()[0]
    assert isinstance(message, Reply)
    sink, ends = stage.pull(stage.other, message.content)
    assert (bytes(sink.data), ends) == (BIG, [True])


def test_the_shelf_makes_room_for_work(stage: Stage) -> None:
    stage.result_of([lambda m: Keep(TASK, m), lambda m: Shelve(m.content)])
    assert len(stage.spool) == 1
    rest = stage.spool.create(99, 12_000_000)
    stage.result_of([])
    assert len(stage.spool) == 2
    rest.release()


def test_a_client_that_is_gone_before_the_store_answers_is_no_trouble(stage: Stage) -> None:
    stage.fetch()
    stage.post.forget(OTHER)
    stage.found(record(outputs=(text(b"x"),)))
    assert AGENT in stage.post.pairs


def test_a_value_that_comes_again_does_not_hide_the_first(stage: Stage) -> None:
    stage.result_of([lambda m: Keep(TASK, m), lambda m: Shelve(m.content)])
    first = stage.controller._contents.result(TASK, 0)
    assert first is not None
    stage.result_of([lambda m: Release(m.content)])
    assert stage.controller._contents.result(TASK, 0) == first


def test_what_the_store_is_asked_it_answers(stage: Stage) -> None:
    stage.on(Query, lambda peer, m: [Consult(peer, m.request, History())])
    for number, outcome in ((3, Found(["ab12-1"])), (4, Found(error="the store cannot be read"))):
        stage.other.say(Query(number, "history"))
        stage.pump()
        (job, found) = stage.records.jobs.pop()
        assert job == History()
        found(outcome)
        stage.pump()
    first, second = stage.got()
    assert first == Answer(3, msgspec.msgpack.encode(["ab12-1"]))
    assert second == Answer(4, error="the store cannot be read")


def test_a_large_result_that_is_purged_leaves_the_shelf(stage: Stage) -> None:
    stage.result_of([lambda m: Keep(TASK, m), lambda m: Shelve(m.content)])
    assert stage.controller._contents.result(TASK, 0) is not None
    stage.on(Query, lambda peer, m: [Consult(peer, m.request, Purge([TASK]))])
    stage.other.say(Query(3, "purge"))
    stage.pump()
    stage.records.jobs.pop()[1](Found(1, "", [TASK]))
    assert stage.controller._contents.result(TASK, 0) is None
