from __future__ import annotations

import pytest

from core.house import ALICE, BOB, House, agent, records, small_house
from ippmpi.core.effects import Shelve
from ippmpi.core.limits import Limits
from ippmpi.core.membership import UNSEEN
from ippmpi.errors import ProtocolError
from ippmpi.ids import Peer
from ippmpi.wire.messages import (
    Content,
    EngineLost,
    EnginesChanged,
    Placement,
    Registered,
    RegisterEngines,
    Reply,
    Revoke,
    StopEngines,
)


def ids(house: House) -> list[int]:
    return sorted(house.hub.ledger.engines)


# --- joining ---


def test_nobody_hears_of_a_world_before_all_ranks_are_there() -> None:
    house = House()
    house.client()
    assert house.changes() == [EnginesChanged([], [], [])]
    assert house.node([2, 3], 4, host="h2") == []
    house.client(BOB)
    assert house.changes(to=BOB) == [EnginesChanged([], [], [])]
    house.node([1, 0], 4, host="h1")
    for peer in (ALICE, BOB):
        (change,) = house.changes(to=peer)
        assert [(e.id, e.rank, e.host, e.pid, e.size) for e in change.joined] == [
            (0, 0, "h1", 100, 4), (1, 1, "h1", 101, 4), (2, 2, "h2", 102, 4), (3, 3, "h2", 103, 4)
        ]  # fmt: skip
    assert house.sent(Registered, to=agent("h1")) == [Registered("w", 0, [101, 100])]
    assert house.sent(Registered, to=agent("h2")) == [Registered("w", 0, [102, 103])]


def test_a_client_that_comes_later_hears_of_everybody() -> None:
    house = small_house(2)
    house.client(BOB)
    assert [e.id for e in house.changes(to=BOB)[0].joined] == [0, 1]
    house.took(house.hub.disconnected(BOB))
    house.client(BOB)
    assert [e.id for e in house.changes(to=BOB)[0].joined] == [0, 1]


def test_worlds_get_contiguous_ids_in_the_order_in_which_they_are_complete() -> None:
    house = House()
    house.client()
    house.node([0], 2, world="slow")
    house.node([0, 1, 2], 3, world="fast")
    house.node([1], 2, world="slow", host="h2")
    assert [(e.world, e.id) for c in house.sent(EnginesChanged, ever=True) for e in c.joined] == [
        ("fast", 0), ("fast", 1), ("fast", 2), ("slow", 3), ("slow", 4)
    ]  # fmt: skip


def test_ranks_that_died_with_their_agent_are_lost_when_the_new_one_has_the_whole_node() -> None:
    house = small_house(3)
    task = house.submit([1])
    house.node([0, 2], 3)
    assert house.changes() == []
    house.handle(agent(), RegisterEngines("w", 3, records([0, 2]), whole=True))
    assert house.changes() == [EnginesChanged([], [1], [UNSEEN])]
    (reply,) = house.sent(Reply, to=ALICE)
    assert reply.task == task
    assert reply.failure is not None
    assert UNSEEN in reply.failure.evalue


def test_a_replaced_agent_takes_over_live_ranks() -> None:
    house = small_house(2)
    task = house.submit([0])
    new = Peer("agent:w@h1-new")
    house.took(house.hub.connected(new, {}))
    house.handle(new, RegisterEngines("w", 2, records([0, 1])))
    assert house.sent(Registered, to=new) == [Registered("w", 0, [100, 101])]
    assert house.changes() == []
    assert house.handle(agent(), EngineLost("w", 0, "late news")) == []
    assert house.took(house.hub.gone(agent(), "killed")) == []
    house.submit([0, 1])
    assert [to for to, _, _ in house.runs()] == [new]
    house.handle(new, Reply(task, 0, Content()))
    assert not house.live(task)


def test_the_ranks_of_an_incomplete_world_can_be_attached_again() -> None:
    house = House()
    house.client()
    house.node([0], 2)
    assert house.node([0], 2) == []
    assert house.hub.engine_count == 1
    house.node([1], 2, host="h2")
    assert ids(house) == [0, 1]
    house.lose(1, host="h2")
    house.node([0], 2)
    assert house.sent(Registered) == [Registered("w", 0, [100])]


def test_another_agents_pid_for_a_live_rank_is_refused_until_the_old_one_is_lost() -> None:
    house = small_house(2)
    other = Peer("agent:w@h1-other")
    house.took(house.hub.connected(other, {}))
    with pytest.raises(ProtocolError, match="rank 1 is pid 101"):
        house.handle(other, RegisterEngines("w", 2, records([1], pid=500)))
    assert ids(house) == [0, 1]
    house.lose(1)
    house.node([1], 2, pid=500)
    assert [(e.id, e.pid) for e in house.changes(to=ALICE)[0].joined] == [(1, 501)]


def test_a_world_that_comes_again_gets_its_old_ids_back() -> None:
    house = small_house(2)
    house.node([0, 1], 2, world="second", host="h2")
    house.took(house.hub.gone(agent("h2", "second"), "node down"))
    house.took(house.hub.gone(agent(), "node down"))
    assert ids(house) == []
    house.node([0, 1], 2, world="second", host="h2", pid=700)
    assert ids(house) == [2, 3]
    house.node([0], 1, world="third")
    assert ids(house) == [0, 2, 3]


def test_a_registration_from_an_agent_that_has_not_connected_is_refused() -> None:
    house = small_house(1)
    with pytest.raises(ProtocolError, match="has not connected"):
        house.handle(agent("h9"), RegisterEngines("x", 1, records([0])))


def test_a_node_without_ranks_makes_no_world() -> None:
    house = House()
    assert house.node([], 4) == []
    assert not house.hub.ledger.worlds


def test_more_engines_than_the_limit_are_refused() -> None:
    house = small_house(2, Limits(engines=3))
    with pytest.raises(ProtocolError, match="3 are the limit"):
        house.node([0, 1], 2, world="x")
    house.node([0, 1], 2)  # these are there already
    assert ids(house) == [0, 1]


# --- leaving ---


def test_a_lost_engine_fails_its_tasks_with_rank_host_pid_cause_and_last_output() -> None:
    house = small_house(2, Limits(last_output=9))
    direct, balanced = house.submit([0, 1]), house.submit(placement=Placement(candidates=[1]))
    house.handle(agent(), EngineLost("w", 1, "killed by signal 11", output="a long tale\nSegfault\n"))
    assert house.changes() == [EnginesChanged([], [1], ["killed by signal 11"])]
    assert house.failures() == [(direct, 1, "EngineError"), (balanced, 1, "EngineError")]
    failure = house.sent(Reply)[0].failure
    assert (failure.engine, failure.rank, failure.world, failure.host, failure.pid) == (1, 1, "w", "h1", 101)
    assert failure.evalue == (
        "engine 1 (rank 1 of w on h1, pid 101) was lost: killed by signal 11\n--- last output ---\nSegfault\n"
    )
    assert house.reply(direct, 1) == []
    assert house.live(direct)
    house.reply(direct, 0)
    assert not house.live(direct)


def test_a_loss_is_told_once_and_the_rest_of_the_world_goes_on() -> None:
    house = small_house(3)
    house.lose(1)
    assert house.lose(1) == []
    assert house.lose(7) == []
    assert house.handle(agent(), EngineLost("nowhere", 0, "x")) == []
    house.submit([0, 2])
    assert house.runs()[0][2] == [0, 2]


def test_an_expected_exit_has_the_reason_stopped() -> None:
    house = small_house(1)
    house.handle(agent(), EngineLost("w", 0, "exit code 0", expected=True, exit_code=0))
    assert house.changes() == [EnginesChanged([], [0], ["stopped"])]


def test_an_agent_that_is_gone_takes_its_engines_along_with_one_notice() -> None:
    house = House()
    house.client()
    house.node([0, 1], 3)
    house.node([2], 3, host="h2")
    task = house.submit([0, 1, 2])
    house.took(house.hub.gone(agent(), "node h1 does not answer"))
    assert house.changes() == [EnginesChanged([], [0, 1], ["node h1 does not answer"] * 2)]
    assert [engine for _, engine, _ in house.failures()] == [0, 1]
    assert "node h1 does not answer" in house.texts()[0]
    assert house.live(task)
    assert house.took(house.hub.gone(agent(), "again")) == []


def test_engines_that_were_told_to_stop_are_stopped_when_their_agent_is_gone() -> None:
    house = small_house(1)
    house.stop([0])
    house.took(house.hub.gone(agent(), "link closed"))
    assert house.changes()[0].reasons == ["stopped"]


def test_a_rank_that_is_lost_before_its_world_is_complete_is_no_news() -> None:
    house = House()
    house.client()
    house.node([0], 2)
    assert house.lose(0) == []
    house.node([0, 1], 2, pid=300)
    assert ids(house) == [0, 1]


def test_a_rank_that_was_told_to_stop_keeps_its_world_from_being_complete() -> None:
    house = House()
    house.client()
    house.node([0], 2)
    house.stop()
    house.node([1], 2, host="h2")
    assert ids(house) == []
    assert house.sent(StopEngines) == []


def test_names_of_lost_worlds_and_causes_are_bounded() -> None:
    house = House(Limits(kept_worlds=2, kept_losses=2))
    for i in range(5):
        house.node([0, 1], 2, world=f"w{i}", host="h1")
        house.took(house.hub.gone(agent("h1", f"w{i}"), "down"))
    assert list(house.hub.ledger.worlds) == ["w3", "w4"]
    assert len(house.hub.ledger.losses) == 2


# --- clients ---


def test_a_client_that_is_away_loses_nothing() -> None:
    house = small_house(1)
    task, waiting = house.submit(), house.submit()
    assert house.took(house.hub.disconnected(ALICE)) == []
    house.reply(task, 0)
    assert [r.task for r in house.sent(Reply, to=ALICE)] == [task]
    assert house.live(waiting)


def test_a_client_that_is_gone_drops_what_waits_and_leaves_what_runs() -> None:
    house = small_house(2)
    running = house.submit(contents=[Content(size=9, transfer=1)], placement=Placement(retries=3))
    direct = house.submit([1])
    house.submit()
    waiting = house.submit(contents=[Content(size=9, transfer=2)])
    house.took(house.hub.gone(ALICE, "does not come back"))
    assert house.released() == [2]
    assert not house.live(waiting)
    assert house.sent(Reply) == house.sent(Revoke) == []
    house.reply(direct, 1, content=Content(size=9, transfer=3))
    assert house.released() == []
    assert house.last[1:] == [Shelve(Content(size=9, transfer=3))]
    assert house.kept() == [Reply(direct, 1, Content(size=9, transfer=3))]
    house.fail(running, 0)
    assert house.released() == [1]
    assert house.runs() == []


def test_a_new_client_of_an_old_name_does_not_inherit_its_tasks() -> None:
    house = small_house(1)
    task = house.submit([0])
    house.took(house.hub.gone(ALICE, "gone"))
    house.client(ALICE)
    house.reply(task, 0)
    assert house.sent(Reply) == []
    assert not house.hub.ledger.ended


def test_gone_twice_or_unknown_changes_nothing() -> None:
    house = small_house(1)
    house.took(house.hub.gone(ALICE, "gone"))
    assert house.took(house.hub.gone(ALICE, "gone")) == []
    assert house.took(house.hub.disconnected(ALICE)) == []


def test_a_rank_that_was_started_again_before_its_end_was_told_takes_its_place() -> None:
    house = small_house(2)
    task = house.submit([0, 1])
    house.node([0, 1], 2, pid=500)
    assert [(c.left, [e.id for e in c.joined]) for c in house.changes(to=ALICE)[-2:]] == [([0, 1], []), ([], [0, 1])]
    assert not house.live(task)
    assert ids(house) == [0, 1]
