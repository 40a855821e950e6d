"""Who is here, and when a message that was fanned out is done."""

from __future__ import annotations

import pytest

from agent.fakes import Talk
from ippmpi.agent.members import FanOut, LocalEngine, Members
from ippmpi.wire.messages import EngineReady


@pytest.fixture
def engines(myself: EngineReady) -> list[LocalEngine]:
    return [LocalEngine(myself, Talk(f"engine:{n}")) for n in range(2)]


def test_a_message_is_done_when_all_have_acknowledged_and_it_was_closed(engines: list[LocalEngine]) -> None:
    dones = []
    fan = FanOut(lambda: dones.append(1))
    mets = [fan.expect(engine) for engine in engines]
    mets[0]()
    mets[0]()  # twice counts once
    fan.close()
    assert not dones
    mets[1]()
    assert dones == [1]


def test_it_is_not_done_before_it_was_closed(engines: list[LocalEngine]) -> None:
    dones = []
    fan = FanOut(lambda: dones.append(1))
    fan.expect(engines[0])()
    assert not dones
    fan.close()
    assert dones == [1]


def test_the_loss_of_an_engine_counts_and_a_late_acknowledgement_does_not(engines: list[LocalEngine]) -> None:
    members = Members()
    members.add(engines[0])
    dones = []
    fan = FanOut(lambda: dones.append(1))
    met = fan.expect(engines[0])
    other = fan.expect_other()
    fan.close()
    members.remove(engines[0])
    assert not dones
    met()
    other()
    assert dones == [1]


def test_members_are_found_by_rank_id_and_conversation(engines: list[LocalEngine]) -> None:
    members = Members()
    engine = engines[0]
    members.add(engine)
    assert members.of_rank(0) is engine
    assert members.with_ids([0]) == []
    members.assign(engine, 7)
    members.assign(engine, 4)
    assert members.with_ids([7, 4]) == [engine]
    members.move(engine, again := Talk("again"))
    assert members.of_conversation(again) is engine
    members.remove(engine)
    assert (len(members), members.of_rank(0), members.of_conversation(again), members.with_ids([4])) == (
        0,
        None,
        None,
        [],
    )


def test_output_belongs_to_the_oldest_task_without_reply_then_to_the_last_one(engines: list[LocalEngine]) -> None:
    engine = engines[0]
    assert engine.current_task() == ""
    engine.begin("a")
    engine.begin("b")
    assert engine.current_task() == "a"
    engine.finish("b")  # taken back
    assert engine.current_task() == "a"
    engine.finish("a")
    assert engine.current_task() == "a"


def test_a_task_that_comes_again_after_its_reply_is_not_waited_for(engines: list[LocalEngine]) -> None:
    engine = engines[0]
    for n in range(3000):
        engine.begin(str(n))
        engine.finish(str(n))
    engine.begin("2999")
    engine.begin("new")
    assert engine.current_task() == "new"
    engine.begin("2999", 1)  # it is tried again
    engine.finish("new")
    assert engine.current_task() == "2999"
    assert len(engine.finished) < 3000


def test_an_attempt_that_comes_again_after_a_later_one_is_not_waited_for(engines: list[LocalEngine]) -> None:
    engine = engines[0]
    engine.begin("a", 1)
    engine.begin("a", 0)
    assert engine.tasks == {"a": 1}
    engine.finish("a")
    for attempt in (0, 1):
        engine.begin("a", attempt)
    assert engine.tasks == {}
    engine.begin("b")
    engine.finish("b")
    engine.finish("a")  # it is answered once more
    assert engine.current_task() == "b"
