"""A hub that goes on where another one was killed: nothing is lost, nothing is placed twice."""

from __future__ import annotations

import pytest

from core.house import ALICE, INLINE, House, agent, records, small_house
from ippmpi.core.effects import Keep, Replay
from ippmpi.core.restoring import Past, PastTask
from ippmpi.ids import Peer, TaskId
from ippmpi.wire.messages import (
    Awaited,
    Content,
    Dependency,
    EngineLost,
    EngineRecord,
    EnginesChanged,
    Failure,
    Held,
    Placement,
    Registered,
    RegisterEngines,
    Reply,
    Run,
    StillWaiting,
    Submit,
)

ENGINES = [EngineRecord(rank, rank, "w", "h1", 100 + rank, 2) for rank in range(2)]


def direct(number: int, targets: list[int], ends: dict[int, bool] | None = None) -> PastTask:
    task = f"alice-{number}"
    return PastTask(task, ALICE, ends or {}, Submit(task, "apply", targets, [INLINE]))


def balanced(number: int, placement: Placement | None = None) -> PastTask:
    task = f"alice-{number}"
    return PastTask(task, ALICE, {}, Submit(task, "apply", [], [INLINE], placement=placement or Placement()))


def restored(*tasks: PastTask, early: tuple[Reply, ...] = ()) -> House:
    house = House()
    house.took(house.hub.restore(Past(ENGINES, tasks, early)))
    return house


def back(house: House, *has: list[str | Held], ranks: range = range(2)) -> None:
    """Let the agent of host h1 return, whose engines have these tasks."""
    tasks = [[each if isinstance(each, Held) else Held(each) for each in one] for one in has]
    house.took(house.hub.connected(agent(), {}))
    house.handle(agent(), RegisterEngines("w", 2, records(ranks), tasks=tasks))


def test_who_joined_and_who_left_is_kept() -> None:
    house = small_house(2)
    (change,) = [e.message for e in house.last if isinstance(e, Keep)]
    assert isinstance(change, EnginesChanged)
    assert [(r.id, r.host, r.size) for r in change.joined] == [(0, "h1", 2), (1, "h1", 2)]
    house.lose(1)
    (change,) = [e.message for e in house.last if isinstance(e, Keep)]
    assert change.left == [1]


def test_engines_are_there_under_their_ids_before_their_agent_is() -> None:
    house = restored()
    house.client()
    (change,) = house.changes(to=ALICE)
    assert [(r.id, r.rank, r.pid) for r in change.joined] == [(0, 0, 100), (1, 1, 101)]
    back(house, [], [])
    assert house.sent(Registered) == [Registered("w", 0, [100, 101])]
    assert house.changes() == []


def test_engines_get_work_when_the_store_knows_them_and_not_before() -> None:
    house = House()
    house.stores = False
    house.client()
    house.submit()
    house.node([0, 1], 2)
    (change,) = house.kept()
    assert isinstance(change, EnginesChanged)
    assert house.sent(Registered) == house.changes() == house.runs() == []
    house.took(house.hub.stored(change))
    assert house.sent(Registered) == [Registered("w", 0, [100, 101])]
    assert [record.id for record in house.changes()[0].joined] == [0, 1]
    assert house.runs() == [(agent(), "alice-1", [0])]
    assert house.took(house.hub.stored(change)) == []


def test_an_engine_that_is_lost_before_it_is_stored_never_joins() -> None:
    house = House()
    house.stores = False
    house.client()
    house.node([0, 1], 2)
    (change,) = house.kept()
    house.lose(1)
    assert [e.left for e in house.kept()] == [[1]]
    assert house.changes() == []
    assert isinstance(change, EnginesChanged)
    house.took(house.hub.stored(change))
    assert [record.id for record in house.changes()[0].joined] == [0]
    house.node([1], 2, pid=500)
    (again,) = house.kept()
    house.stop()
    assert house.took(house.hub.stored(again)) == []


def test_what_an_engine_has_that_the_store_never_knew_is_learnt_when_it_joins() -> None:
    house = House()
    house.took(house.hub.restore(Past([], [balanced(1)])))
    back(house, ["alice-1"], [])
    assert house.runs(ever=True) == []
    house.client()
    house.reply("alice-1", 0)
    assert not house.live("alice-1")


def test_a_request_waits_for_its_agent_and_goes_only_where_it_is_not_known() -> None:
    house = restored(direct(1, [0, 1]), direct(2, [0, 1]))
    assert house.runs() == []
    back(house, ["alice-1", "alice-2"], ["alice-1"])
    assert house.runs() == [(agent(), "alice-2", [1])]
    house.client()
    for engine in (0, 1):
        house.reply("alice-1", engine)
        house.reply("alice-2", engine)
    assert not house.live("alice-1")
    assert not house.live("alice-2")


def test_parts_that_have_ended_are_not_run_again() -> None:
    house = restored(direct(1, [0, 1], {0: True}))
    back(house, [], [])
    assert house.runs() == [(agent(), "alice-1", [1])]
    house.reply("alice-1", 1)
    assert not house.live("alice-1")


def test_new_requests_follow_the_old_ones() -> None:
    house = restored(direct(1, [0]))
    house.client()
    house.submit([0], name="alice-2")
    assert house.runs() == []
    back(house, [], [])
    assert [run[1] for run in house.runs()] == ["alice-1", "alice-2"]


def test_no_balanced_task_is_placed_before_it_is_known_where_it_may_be() -> None:
    house = restored(*(balanced(n) for n in (1, 2, 3)))
    house.client()
    house.submit(name="alice-4")
    assert house.runs() == []
    back(house, [], ["alice-2"])
    assert house.runs() == [(agent(), "alice-1", [0])]
    house.reply("alice-2", 1)
    assert house.runs() == [(agent(), "alice-3", [1])]


def test_an_engine_may_have_several_whose_replies_are_on_their_way() -> None:
    house = restored(*(balanced(n) for n in (1, 2, 3)))
    back(house, ["alice-1", "alice-2"], [])
    assert house.runs() == [(agent(), "alice-3", [1])]
    for number in (1, 2):
        house.reply(f"alice-{number}", 0)
        assert not house.live(f"alice-{number}")


def test_a_task_that_was_adopted_and_failed_waits_again_for_what_has_not_ended_again() -> None:
    after = Placement(after=Dependency(["alice-1"]), retries=1)
    house = restored(balanced(1), balanced(2, after))
    back(house, ["alice-2"], ["alice-1"])
    house.client()
    house.reply("alice-2", 0, Failure("Oops", "it broke", kind="code"))
    assert house.runs() == []
    assert house.live("alice-2")
    house.reply("alice-1", 1)
    assert [task for _, task, _ in house.runs()] == ["alice-2"]


def test_an_adopted_task_has_the_attempt_that_its_engine_has() -> None:
    house = restored(balanced(1, Placement(retries=3)))
    house.client()
    back(house, [Held("alice-1", 2)], [])
    house.handle(agent(), Reply("alice-1", 0, INLINE, attempt=0))
    assert house.live("alice-1")
    house.handle(agent(), Reply("alice-1", 0, Content(), Failure("Oops", "", kind="code"), attempt=2))
    (again,) = house.sent(Run)
    assert (again.task, again.attempt) == ("alice-1", 3)
    house.handle(agent(), Reply("alice-1", again.engines[0], INLINE, attempt=3))
    assert not house.live("alice-1")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_latest_attempt_counts_whoever_returns_first(order: tuple[int, int]) -> None:
    other = EngineRecord(2, 0, "v", "h2", 100, 1)
    house = House()
    house.took(house.hub.restore(Past([*ENGINES, other], [balanced(1, Placement(retries=3))])))
    house.client()
    for which in order:
        if which == 0:
            back(house, [Held("alice-1", 0)], [])
        else:
            house.took(house.hub.connected(agent("h2", "v"), {}))
            ranks = records([0], world="v", host="h2")
            house.handle(agent("h2", "v"), RegisterEngines("v", 1, ranks, tasks=[[Held("alice-1", 1)]]))
    house.handle(agent(), Reply("alice-1", 0, Content(), Failure("Oops", "", kind="code"), attempt=0))
    assert house.runs() == []
    house.handle(agent("h2", "v"), Reply("alice-1", 2, INLINE, attempt=1))
    assert not house.live("alice-1")
    assert house.runs(ever=True) == []


def test_a_task_that_waited_for_another_attempt_gets_one_that_no_engine_has_seen() -> None:
    house = restored(balanced(1), balanced(2, Placement(retries=1)))
    house.client()
    back(house, [Held("alice-1", 1, True)], [Held("alice-1", 4, True), Held("alice-2", 0), Held("alice-3", 2, True)])
    (run,) = house.sent(Run)
    assert (run.task, run.attempt) == ("alice-1", 4)
    house.submit(name="alice-3")
    house.reply("alice-1", run.engines[0])
    (run,) = house.sent(Run)
    assert (run.task, run.attempt) == ("alice-3", 2)


@pytest.mark.parametrize("held", [Held("alice-1", 2), Held("alice-1", 2, True)])
def test_retries_that_were_used_before_a_restart_are_used(held: Held) -> None:
    house = restored(balanced(1, Placement(retries=3)))
    house.client()
    back(house, [held], [])
    for attempt in (2, 3):
        assert house.live("alice-1")
        engine = next(int(e) for e in house.hub.ledger.tasks[TaskId("alice-1")].parts)
        house.handle(agent(), Reply("alice-1", engine, Content(), Failure("Oops", "", kind="code"), attempt=attempt))
    assert house.failures() == [("alice-1", engine, "code")]


def test_what_waited_for_an_engine_does_not_run_on_another_process_that_has_its_id() -> None:
    house = restored(direct(1, [0, 1]), direct(2, [1]))
    house.client()
    house.took(house.hub.connected(agent(), {}))
    house.handle(agent(), RegisterEngines("w", 2, [ENGINES[1], *records([0], pid=500)]))
    assert [(task, engine) for task, engine, _ in house.failures()] == [("alice-1", 0)]
    assert house.runs() == [(agent(), "alice-1", [1]), (agent(), "alice-2", [1])]


def test_a_request_that_may_have_run_does_not_run_on_a_process_that_joined_after_it_was_submitted() -> None:
    """The hub that had not stored it was killed, and so was the engine that it had sent it to."""
    house = restored()
    back(house, ranks=range(2))
    house.lose(0)
    house.handle(agent(), RegisterEngines("w", 2, records([0], pid=200)))
    house.client()
    house.handle(ALICE, Submit("alice-1", "apply", [0, 1], [INLINE], seen=0))
    assert house.runs() == [(agent(), "alice-1", [1])]
    assert house.failures() == [("alice-1", 0, "EngineError")]
    (text,) = house.texts()
    assert "engine 0 was lost: the process that had this id when this was submitted has ended" in text
    assert "pid 200) has it now" in text
    house.handle(ALICE, Submit("alice-2", "apply", [0], [INLINE], seen=1))
    assert house.runs() == [(agent(), "alice-2", [0])]


def test_joins_are_counted_on_after_a_restart() -> None:
    house = House()
    house.took(house.hub.restore(Past([EngineRecord(0, 0, "w", "h1", 100, 1, joined=7)])))
    house.client()
    assert [record.joined for change in house.changes(to=ALICE) for record in change.joined] == [7]
    house.node([0], 1, world="other", host="h2")
    assert [record.joined for change in house.changes(to=ALICE) for record in change.joined] == [8]


def test_an_agent_takes_no_tasks_over_from_a_hub_that_was_not_restarted() -> None:
    house = small_house(1)
    tasks = [house.submit() for _ in range(2)]
    house.node([0], 1, world="v", host="h2")
    house.handle(
        agent("h2", "v"), RegisterEngines("v", 1, records([0], world="v", host="h2"), tasks=[[Held(tasks[0], 9)]])
    )
    house.reply(tasks[0], 0)
    assert not house.live(tasks[0])


def test_a_reply_to_an_orphan_that_comes_again_does_not_replace_the_first() -> None:
    house = restored()
    back(house, [Held("alice-1", 1)], [])
    house.handle(agent(), Reply("alice-1", 0, Content(b"early", 5), attempt=1))
    assert len(house.kept()) == 1
    house.handle(agent(), Reply("alice-1", 0, Content(), attempt=1))
    assert house.kept() == []
    house.client()
    house.submit(name="alice-1")
    assert house.runs() == []
    assert [r.content.inline for r in house.sent(Reply, to=ALICE)] == [b"early"]


@pytest.mark.parametrize("how", ["given up", "empty"])
def test_an_agent_that_does_not_return_holds_up_nobody_for_ever(how: str) -> None:
    other = EngineRecord(2, 0, "v", "h2", 7, 1)
    house = House()
    house.took(house.hub.restore(Past([*ENGINES, other], [balanced(1), direct(2, [2])])))
    back(house, [], [])
    assert house.runs() == []
    if how == "given up":
        house.took(house.hub.gone(agent("h2", "v"), "out of reach"))
    else:
        house.took(house.hub.connected(agent("h2", "v"), {}))
        house.handle(agent("h2", "v"), EngineLost("v", 0, "signal 9"))
    assert house.failures() == [("alice-2", 2, "EngineError")]
    assert house.runs() == [(agent(), "alice-1", [0])]


def test_a_request_that_was_not_stored_is_not_run_again_where_it_is() -> None:
    house = restored()
    back(house, ["alice-1"], ["alice-2"])
    house.reply("alice-1", 0, content=Content(b"early", 5))
    assert [type(m) for m in house.kept()] == [Reply]
    house.client()
    house.submit([0, 1], name="alice-1")
    assert house.runs() == [(agent(), "alice-1", [1])]
    assert [r.content.inline for r in house.sent(Reply, to=ALICE)] == [b"early"]
    house.submit(name="alice-2")
    assert house.runs() == []
    house.reply("alice-2", 1)
    assert not house.live("alice-2")


def test_an_early_reply_survives_another_restart() -> None:
    house = restored(early=(Reply("alice-1", 0, INLINE),))
    back(house, [], [])
    house.client()
    house.submit([0], name="alice-1")
    assert house.runs() == []
    assert len(house.sent(Reply, to=ALICE)) == 1


def test_a_client_hears_again_what_had_ended_and_what_is_lost() -> None:
    house = restored(PastTask("alice-1", ALICE, {0: True, 1: True}), direct(2, [0, 1], {1: True}), balanced(3))
    house.client()
    waiting = [("alice-1", [1]), ("alice-2", [0, 1]), ("alice-3", []), ("alice-4", [0, 1]), ("alice-5", [])]
    house.handle(ALICE, StillWaiting([Awaited(*each) for each in waiting]))
    assert [e for e in house.last if isinstance(e, Replay)] == [
        Replay(ALICE, "alice-1", [1]),
        Replay(ALICE, "alice-2", [1]),
    ]
    assert house.failures() == [("alice-4", n, "TaskAborted") for n in (0, 1)] + [("alice-5", -1, "TaskAborted")]


def test_nobody_hears_the_replies_of_others() -> None:
    house = restored(PastTask("alice-1", ALICE, {0: True}))
    house.client(Peer("client:bob"))
    house.handle(Peer("client:bob"), StillWaiting([Awaited("alice-1", [0])]))
    assert house.last == []


def test_what_had_ended_is_not_started_again_and_can_be_depended_on() -> None:
    house = restored(PastTask("alice-1", ALICE, {0: True}))
    house.client()
    house.submit([0], name="alice-1")
    assert house.kept() == []
    back(house, [], [])
    assert house.sent(Run, ever=True) == []
    assert house.query("result_status", ["alice-1"])["completed"] == ["alice-1"]


def test_the_past_names_all_its_contents() -> None:
    submit = Submit("c1-1", "apply", [0], [Content(b"x"), Content(size=9, transfer=5)])
    tasks = [PastTask("c1-1", Peer("client:c1"), {}, submit), PastTask("c1-2", Peer("client:c1"), {0: True})]
    early = [Reply("c1-3", 0, Content(size=9, transfer=7))]
    spooled = [Reply("c1-2", 0, Content(size=9, transfer=3))]
    assert set(Past([], tasks, early, spooled).keys()) == {0, 3, 5, 7}
