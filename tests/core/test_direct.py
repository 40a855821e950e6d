from __future__ import annotations

import pytest

from core.house import ALICE, House, agent, small_house
from ippmpi.core.effects import Keep, Send
from ippmpi.errors import ProtocolError
from ippmpi.ids import TaskId
from ippmpi.wire.messages import Content, Failure, Replies, Reply, Run, Submit


def two_nodes() -> House:
    house = House()
    house.client()
    house.node([0, 1], 4, host="h1")
    house.node([2, 3], 4, host="h2")
    return house


def test_one_submit_gives_one_run_per_node() -> None:
    house = two_nodes()
    house.handle(ALICE, Submit("a-1", "execute", [3, 0, 2, 1], [Content(b"code", 4)]))
    assert house.sent(Run, to=agent("h1")) == [Run("a-1", "execute", [0, 1], [Content(b"code", 4)])]
    assert house.sent(Run, to=agent("h2")) == [Run("a-1", "execute", [3, 2], [Content(b"code", 4)])]


def test_contents_per_target_go_to_their_targets_only() -> None:
    house = two_nodes()
    parts = [Content(bytes([i]), 1) for i in range(3)]
    house.handle(ALICE, Submit("a-1", "push", [3, 0, 2], parts))
    assert house.sent(Run, to=agent("h1")) == [Run("a-1", "push", [0], [parts[1]])]
    assert house.sent(Run, to=agent("h2")) == [Run("a-1", "push", [3, 2], [parts[0], parts[2]])]


def test_a_request_is_stored_before_it_runs_and_a_reply_before_it_is_passed_on() -> None:
    house = small_house()
    task = house.submit([0])
    assert [type(effect).__name__ for effect in house.last] == ["Keep", "Send"]
    house.reply(task, 0, content=Content(b"42", 2))
    assert [type(effect).__name__ for effect in house.last] == ["Keep", "Send"]
    assert house.sent(Reply, to=ALICE) == [Reply(task, 0, Content(b"42", 2))]
    assert not house.live(task)


def test_an_unknown_target_fails_by_itself() -> None:
    house = small_house()
    task = house.submit([0, 9, 1])
    assert house.failures() == [(task, 9, "EngineError")]
    assert house.texts() == ["there is no engine 9; have 0-1"]
    assert house.runs() == [(agent(), task, [0, 1])]
    house.reply(task, 0)
    assert house.live(task)
    house.reply(task, 1)
    assert not house.live(task)


def test_a_lost_target_fails_with_the_cause_of_the_loss() -> None:
    house = small_house()
    house.lose(1, "segmentation fault")
    house.submit([1])
    assert house.texts() == ["engine 1 (rank 1 of w on h1, pid 101) was lost: segmentation fault"]


def test_the_second_reply_of_an_engine_is_dropped_and_its_content_released() -> None:
    house = small_house()
    task = house.submit([0, 1])
    house.reply(task, 0, content=Content(size=9, transfer=1))
    assert house.released() == []
    assert house.reply(task, 0) == []
    house.reply(task, 0, content=Content(size=9, transfer=2))
    assert house.released() == [2]
    assert house.sent(Reply) == []


def test_replies_for_other_engines_or_unknown_tasks_are_dropped() -> None:
    house = small_house()
    task = house.submit([0])
    assert house.reply(task, 1) == []
    assert house.reply(task, -1) == []
    house.reply("nobody-1", 0, content=Content(size=9, transfer=5))
    assert house.released() == [5]


def test_spooled_contents_are_released_when_the_last_part_has_ended() -> None:
    house = small_house()
    task = house.submit([0, 1], contents=[Content(size=9, transfer=1), Content(size=9, transfer=2)])
    house.reply(task, 0)
    assert house.released() == []
    house.fail(task, 1)
    assert house.released() == [1, 2]


def test_two_clients_never_begin_in_different_orders() -> None:
    house = two_nodes()
    house.client("client:bob")
    for i in range(10):
        house.submit([0, 1, 2, 3] if i % 3 else [3, 1], peer=ALICE if i % 2 else "client:bob")
    orders = [[task for to, task, _ in house.runs(ever=True) if to == peer] for peer in (agent("h1"), agent("h2"))]
    assert orders[0] == orders[1]


def test_an_engine_that_was_told_to_stop_takes_no_new_work() -> None:
    house = small_house()
    house.stop([0])
    house.submit([0])
    assert house.texts() == ["engine 0 (rank 0 of w on h1, pid 100) is stopping"]


def test_replies_that_came_together_are_kept_and_told_as_they_came() -> None:
    house = small_house(3)
    task = house.submit([0, 1, 2])
    failure = Failure("Oops", "it broke", kind="code")
    both = Replies(task, [Reply(task, 2, Content(b"2", 1)), Reply(task, 0, Content(), failure)])
    assert house.handle(agent(), both) == [Keep(TaskId(task), both), Send(ALICE, both)]
    assert house.reply(task, 1)
    assert TaskId(task) not in house.hub.ledger.tasks
    assert house.hub.ledger.ended[TaskId(task)].succeeded is False


def test_those_whose_part_has_ended_are_left_out_of_what_is_told() -> None:
    house = small_house(3)
    task = house.submit([0, 1, 2])
    house.reply(task, 1)
    late, fresh = Reply(task, 1, Content(b"late", 4)), Reply(task, 2, Content(b"2", 1))
    house.handle(agent(), Replies(task, [late, fresh]))
    assert house.sent(Reply, to=ALICE) == [fresh]


def test_those_who_wait_for_a_balanced_task_hear_of_it_as_ever() -> None:
    house = small_house(1)
    task = house.submit()
    house.handle(agent(), Replies(task, [Reply(task, 0, Content(b"2", 1))]))
    assert house.sent(Reply, to=ALICE) == [Reply(task, 0, Content(b"2", 1))]


@pytest.mark.parametrize("wrong", [Reply("alice-9", 0, Content()), Reply("alice-1", 1, Content(size=9, transfer=1))])
def test_replies_to_several_tasks_or_with_large_contents_are_no_such_message(wrong: Reply) -> None:
    house = small_house(2)
    task = house.submit([0, 1], name="alice-1")
    with pytest.raises(ProtocolError, match="not inline"):
        house.handle(agent(), Replies(task, [Reply(task, 0, Content()), wrong]))
    assert house.reply(task, 0), "nothing has changed"


def test_an_agent_cannot_speak_for_engines_of_another_among_its_own() -> None:
    house = House()
    house.client()
    house.node([0], 2, host="h1")
    house.node([1], 2, host="h2")
    task = house.submit([0, 1])
    with pytest.raises(ProtocolError, match="speaks for engine 1"):
        house.handle(agent("h1"), Replies(task, [Reply(task, 0, Content()), Reply(task, 1, Content())]))
