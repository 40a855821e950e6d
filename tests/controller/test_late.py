"""A client that does not take what it is sent, with real conversations and a store that answers when the test says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.fakes import Pair
from controller.test_controller import BIG, CLIENT, Scene
from ippmpi.core.effects import Effect, Keep, Send
from ippmpi.ids import Peer
from ippmpi.store.missed import Missed, Point
from ippmpi.wire.messages import Answer, Content, Message, Output, Published, Query, Recheck, Reply

LIMIT = 250  # bytes that may wait to leave; four times as many may wait for an acknowledgement


class Stage(Scene):
    """A controller whose client acknowledges when the test says so."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, 16_000_000, away_bytes=LIMIT)
        self.taken = 0
        for kind in (Output, Reply):
            self.on(kind, self._relay)

    def _relay(self, _: Peer, message: Output | Reply) -> list[Effect]:
        return [Keep(message.task, message), Send(CLIENT, message)]  # type: ignore[arg-type]  # ids are strings

    def print(self, number: int, task: str = "ab12-1") -> Output:
        message = Output(task, 0, "stdout", b"%03d" % number * 100)
        self.agent.say(message)
        self.pump()
        return message

    def got(self) -> list[Message]:
        return [delivery.message for delivery in self.client.got]

    def acknowledge(self) -> None:
        for delivery in self.client.got[self.taken :]:
            delivery.done()
        self.taken = len(self.client.got)
        self.pump()

    def found(self, *messages: Output | Reply, point: Point = Point(9, 9)) -> None:  # noqa: B008 - immutable
        (_, _, found) = self.records.looks.pop()
        found(Missed(list(messages), point))
        self.pump()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    stage.spool.close()


def test_what_a_client_does_not_take_is_left_in_the_store_until_it_does(stage: Stage) -> None:
    said = [stage.print(n) for n in range(10)]
    assert stage.got() == said[:5]  # the fifth found more than the limit waiting
    assert stage.client.near.backlog < 8 * LIMIT
    stage.acknowledge()
    (client, point, _) = stage.records.looks[0]
    assert (client, point) == ("ab12", Point(0, 5))  # behind what was kept when the last one was sent
    stage.found(*said[5:8], point=Point(8, 0))
    assert stage.got() == said[:8]
    assert stage.records.looks == []
    stage.acknowledge()
    assert stage.records.looks[0][1] == Point(8, 0)
    late = stage.print(10)
    stage.found(*said[8:10])  # the store has more, and the late one behind that
    assert stage.got() == said
    stage.acknowledge()
    meanwhile = stage.print(11)
    stage.found(late)
    stage.acknowledge()
    stage.found(meanwhile)
    stage.acknowledge()
    last = stage.print(12)
    stage.found()
    assert stage.got() == [*said, late, meanwhile, last]
    stage.acknowledge()
    live = stage.print(13)
    assert stage.got()[-1] == live
    assert stage.records.looks == []


def test_what_cannot_leave_counts_more_than_what_is_not_acknowledged(stage: Stage) -> None:
    stage.client.near.lose_control()
    said = [stage.print(n) for n in range(10)]
    assert stage.client.near.backlog < 3 * LIMIT + 400
    stage.client.connect()
    stage.pump()
    assert stage.got() == said[:2]
    stage.acknowledge()
    stage.found(*said[2:])
    stage.acknowledge()
    stage.found()
    assert stage.got() == said


def test_answers_are_sent_at_once(stage: Stage) -> None:
    for n in range(10):
        stage.print(n)
    stage.on(Query, lambda peer, m: [Send(peer, Answer(m.request))])
    stage.client.say(Query(1, "status"))
    stage.pump()
    assert stage.got()[-1] == Answer(1)


def test_large_values_stay_in_the_spool_and_come_last(stage: Stage) -> None:
    said = [stage.print(n) for n in range(8)]
    content, _ = stage.offer(stage.agent)
    stage.agent.say(Reply("ab12-1", 0, content))
    stage.pump()
    assert stage.got() == said[:5]
    stage.acknowledge()
    stage.found(*said[5:])
    stage.acknowledge()
    stage.found()
    reply = stage.got()[-1]
    assert isinstance(reply, Reply)
    sink, ends = stage.pull(stage.client, reply.content)
    assert (bytes(sink.data), ends) == (BIG, [True])
    stage.acknowledge()
    assert len(stage.spool) == 0


def test_a_client_whose_records_may_have_been_dropped_is_asked_what_it_waits_for(stage: Stage) -> None:
    for n in range(8):
        stage.print(n)
    stage.records.losses += 1
    stage.acknowledge()
    stage.found()
    assert stage.got()[-1] == Recheck()


def test_a_client_that_follows_a_task_of_another_one_is_asked_too(stage: Stage) -> None:
    said = [stage.print(n) for n in range(8)]
    stage.print(9, "cd34-7")
    stage.acknowledge()
    stage.found()
    assert stage.got() == [*said[:5], Recheck()]


def test_while_the_store_cannot_be_written_everything_is_sent(stage: Stage) -> None:
    stage.records.writable = False
    said = [stage.print(n) for n in range(8)]
    assert stage.got() == said


def test_other_clients_are_not_slowed_down(stage: Stage) -> None:
    other = stage.post.add(Pair(Peer("client:cd34"), "client"))
    for n in range(8):
        stage.print(n)
    stage.on(Output, lambda peer, m: [Keep(m.task, m), Send(Peer("client:cd34"), m)])
    said = stage.print(9, "cd34-7")
    assert [delivery.message for delivery in other.got] == [said]


def test_a_client_that_is_given_up_leaves_nothing_behind(stage: Stage) -> None:
    for n in range(8):
        stage.print(n)
    content = Content(size=len(BIG), transfer=stage.offer(stage.agent)[0].transfer)
    stage.agent.say(Reply("ab12-1", 0, content))
    stage.pump()
    stage.controller.on_peer(stage.client.near, connected=False)
    stage.loop.pass_time(8 * 86400)
    assert stage.controller._slow._clients == {}
    assert stage.controller._contents.result("ab12-1", 0) is not None  # on the shelf


def test_what_tasks_show_is_dropped_for_a_client_that_takes_nothing(stage: Stage) -> None:
    stage.on(Published, lambda _, message: [Send(CLIENT, message)])
    for number in range(20):
        stage.agent.say(Published("ab12-1", 0, {"step": b"%03d" % number * 20}))
    stage.pump()
    shown = len(stage.got())
    assert 0 < shown < 20
    assert stage.client.near.backlog < 2 * LIMIT
    stage.acknowledge()
    stage.agent.say(Published("ab12-1", 0, {"step": b"last"}))
    stage.pump()
    assert stage.got()[-1] == Published("ab12-1", 0, {"step": b"last"})
    assert len(stage.got()) == shown + 1
