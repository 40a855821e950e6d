from __future__ import annotations

from core.house import ALICE, BOB, House, agent, records, small_house
from core.truth import ids
from ippmpi.core.explaining import explain
from ippmpi.core.limits import Limits
from ippmpi.core.restoring import Past, PastTask
from ippmpi.ids import Peer, TaskId
from ippmpi.wire import reasons as r
from ippmpi.wire.messages import Content, Dependency, EngineRecord, Held, Interrupt, Placement, RegisterEngines, Submit
from ippmpi.wire.reasons import Other, Question, Reason, spans_of


def why(house: House, *tasks: str, limit: int = 1000) -> list[Reason]:
    return explain(house.hub.ledger, Question(list(tasks), limit)).reasons


def one(house: House, task: str) -> Reason:
    (reason,) = why(house, task)
    return reason


# --- what waits ---


def test_without_engines_a_task_waits_for_one_and_the_world_that_is_coming_is_named() -> None:
    house = House()
    house.client()
    task = house.submit()
    assert one(house, task).why == r.NO_ENGINES
    house.node([0], 3)
    assert one(house, task).coming == [("w", 1, 3)]
    house.node([1, 2], 3, host="h2")
    assert one(house, task).why == r.RUNS


def test_a_task_behind_engines_that_end_waits_for_others() -> None:
    house = small_house(2)
    house.stop([0, 1])
    reason = one(house, house.submit())
    assert (reason.why, reason.engines) == (r.STOPPING, [(0, 1)])


def test_a_task_waits_for_a_free_engine_behind_others() -> None:
    house = small_house(2)
    house.tick(10.0)
    first = house.submit()
    house.tick(15.0)
    second, third, fourth = house.submit(), house.submit(), house.submit()
    house.tick(20.0)
    reason = one(house, fourth)
    assert (reason.state, reason.why, reason.count, reason.behind, reason.only) == ("waiting", r.BUSY, 2, 1, None)
    assert reason.others == [
        Other(first, state="running", engines=[(0, 0)], for_s=10.0),
        Other(second, state="running", engines=[(1, 1)], for_s=5.0),
    ]
    assert one(house, third).behind == 0


def test_tasks_that_may_go_to_the_same_engines_are_rivals() -> None:
    house = small_house(3)
    for _ in range(3):
        house.submit()
    picky = house.submit(placement=Placement(candidates=[1, 2], retries=2, timeout_s=30.0))
    other, anywhere = house.submit(placement=Placement(candidates=[0])), house.submit()
    reason = one(house, picky)
    assert (reason.only, reason.candidates, reason.count, reason.rivals) == ([(1, 2)], True, 2, 1)
    assert (reason.retries, reason.within_s) == (2, 30.0)
    assert one(house, other).rivals == 1
    assert one(house, anywhere).rivals == 2


def test_engines_on_which_a_retry_has_failed_are_named() -> None:
    house = small_house(2)
    task = house.submit(placement=Placement(retries=3))
    house.submit()
    house.fail(task, 0)
    house.submit()
    reason = one(house, task)
    assert (reason.why, reason.avoids, reason.retries) == (r.BUSY, [(0, 0)], 2)
    assert (reason.last_failure, reason.attempt) == ("Oops: it broke", 1)
    house.lose(1)
    assert one(house, task).avoids == []  # the one that is left may be tried again


def test_a_task_that_follows_another_says_where_it_must_go() -> None:
    house = small_house(2)
    first = house.submit()
    house.reply(first, 0)
    house.submit(placement=Placement(candidates=[0]))
    reason = one(house, house.submit(placement=Placement(follow=Dependency([first]))))
    assert (reason.follows, reason.only) == (True, [(0, 0)])


def test_dependencies_are_named_with_their_labels_and_states() -> None:
    house = small_house(1)
    house.handle(ALICE, Submit("a", "apply", [], [Content()], "the first", Placement()))
    second = house.submit()
    third = house.submit([0])
    task = house.submit(placement=Placement(after=Dependency(["a", second]), follow=Dependency([second])))
    reason = one(house, task)
    assert (reason.why, reason.count) == (r.NEEDS, 2)
    assert reason.others == [Other("a", "the first", "running", [(0, 0)]), Other(second)]
    later = one(house, house.submit(placement=Placement(after=Dependency([third]))))
    assert later.others == [Other(third, state="queued", engines=[(0, 0)])]
    house.reply("a", 0)
    house.fail(second, 0)
    assert house.texts()[-1] == f"task {second} failed on engine 0 (rank 0 of w on h1, pid 100)"


def test_of_a_task_with_several_targets_the_engines_are_named_on_which_it_failed() -> None:
    house = small_house(12)
    several = house.submit([0, 1, 2])
    many = house.submit(list(range(12)))
    single = house.submit([1, 2])
    for task in (several, many, single):
        house.submit(placement=Placement(after=Dependency([task])))
    house.reply(several, 0)
    house.fail(several, 1)
    house.fail(several, 2)
    assert house.texts()[-1] == f"task {several} failed on engines 1, 2"
    house.reply(single, 1)
    house.fail(single, 2)
    assert house.texts()[-1] == f"task {single} failed on engine 2"
    for engine in range(12):
        house.fail(many, engine)
    assert house.texts()[-1] == f"task {many} failed on engines 0, 1, 2, 3, 4, 5, 6, 7, ..."
    assert one(house, many) == Reason(many, "failed", r.ENDED, client=ALICE, engines=[(0, 11)])


# --- what was handed out ---


def test_a_direct_request_runs_on_some_ranks_and_is_behind_others_elsewhere() -> None:
    house = small_house(3)
    house.tick(1.0)
    first = house.submit([0])
    second = house.submit([0, 1])
    house.tick(4.0)
    third = house.submit([0, 1, 2])
    house.tick(5.0)
    on_0, on_1, on_2 = why(house, third)
    assert (on_0.why, on_0.engines, on_0.behind) == (r.BEHIND, [(0, 0)], 2)
    assert on_0.others == [Other(first, state="running", engines=[(0, 0)], for_s=4.0)]
    assert (on_1.others, on_1.behind) == ([Other(second, state="running", engines=[(1, 1)], for_s=4.0)], 1)
    assert (on_2.state, on_2.why, on_2.engines, on_2.for_s) == ("running", r.RUNS, [(2, 2)], 1.0)
    house.tick(6.0)
    house.reply(first, 0)
    house.tick(8.5)
    assert [reason.for_s for reason in why(house, second)] == [7.5]  # on rank 1; both run now
    assert [ids(reason.engines) for reason in why(house, second)] == [{0, 1}]


def test_direct_and_balanced_work_of_an_engine_is_in_one_order() -> None:
    house = small_house(1)
    balanced, direct = house.submit(), house.submit([0])
    assert one(house, balanced).why == r.RUNS
    assert one(house, direct).others[0].task == balanced


def test_arguments_that_may_be_on_their_way_are_counted() -> None:
    house = small_house(1)
    task = house.submit([0], contents=[Content(size=5000, transfer=9)])
    assert one(house, task).bytes == 5000


def test_what_was_cancelled_waits_for_its_engine() -> None:
    house = small_house(1)
    task = house.submit([0])
    house.handle(ALICE, Interrupt(1, [task]))
    assert one(house, task).why == r.TAKEN_BACK


def test_what_an_engine_that_ends_has_not_begun_is_said() -> None:
    house = small_house(1)
    first, second = house.submit([0]), house.submit([0])
    house.stop([0])
    assert [one(house, task).why for task in (first, second)] == [r.RUNS, r.STOPPING]


def test_nodes_and_clients_that_are_away_are_named() -> None:
    house = small_house(1)
    task = house.submit([0])
    house.took(house.hub.disconnected(agent()))
    house.took(house.hub.disconnected(ALICE))
    reason = one(house, task)
    assert (reason.why, reason.hosts, reason.client_away) == (r.NODE_AWAY, ["h1"], True)


def test_what_ended_or_was_never_known_is_said_too() -> None:
    house = small_house(1)
    good, bad = house.submit([0]), house.submit([0])
    house.reply(good, 0)
    house.fail(bad, 0)
    assert [reason.state for reason in why(house, good, bad, "x")] == ["done", "failed", "unknown"]
    assert why(house, bad)[0].engines == [(0, 0)]


# --- after a restart ---


def test_after_a_restart_the_order_is_that_of_the_engine_and_nothing_is_placed_before_all_nodes_are_back() -> None:
    house = House()
    submits = [Submit(name, "apply", targets, [Content()], placement=placement) for name, targets, placement in (
        ("balanced", [], Placement()), ("direct", [0], None), ("waits", [], Placement()),
    )]  # fmt: skip
    tasks = [PastTask(submit.task, ALICE, {}, submit) for submit in submits]
    house.took(house.hub.restore(Past([EngineRecord(0, 0, "w", "h1", 100)], tasks)))
    assert [reason.why for reason in why(house, "direct", "waits")] == [r.NODE_AWAY, r.RESTORED]
    assert one(house, "waits").hosts == ["h1"]
    house.took(house.hub.connected(agent(), {}))
    held = [[Held("balanced"), Held("direct")]]
    house.handle(agent(), RegisterEngines("w", 1, records([0]), tasks=held))
    assert (one(house, "balanced").why, one(house, "balanced").least) == (r.RUNS, True)
    assert (one(house, "direct").others[0].task, one(house, "direct").others[0].least) == ("balanced", True)
    assert one(house, "waits").why == r.BUSY
    house.reply("balanced", 0)
    fresh = house.submit([0])
    assert (one(house, "waits").why, one(house, fresh).least) == (r.BEHIND, False)


# --- the question ---


def test_all_tasks_can_be_asked_for_those_that_wait_first() -> None:
    house = small_house(1, Limits(kept_tasks=10))
    house.client(BOB)
    running = house.submit(peer=BOB)
    waiting = [house.submit() for _ in range(3)]
    held = house.submit(placement=Placement(after=Dependency(waiting[:1])))
    answer = explain(house.hub.ledger, Question())
    assert [reason.task for reason in answer.reasons] == [*waiting, held, running]
    assert [reason.behind for reason in answer.reasons[:3]] == [0, 1, 2]
    few = explain(house.hub.ledger, Question(limit=2))
    assert ([reason.task for reason in few.reasons], few.left_out) == (waiting[:2], 3)
    asked = house.query("explain", {"tasks": [running]})
    assert isinstance(asked, dict)
    assert [(reason["task"], reason["why"]) for reason in asked["reasons"]] == [(running, r.RUNS)]
    assert isinstance(house.query("explain"), dict)


def test_one_request_on_many_ranks_that_do_different_things_has_a_bounded_number_of_reasons() -> None:
    house = small_house(60)
    for engine in range(60):
        house.submit([engine])
    task = house.submit(list(range(60)))
    reasons = why(house, task)
    assert len(reasons) == r.MOST_PARTS
    assert reasons[0].count == 60 - r.MOST_PARTS


def test_ids_travel_as_spans() -> None:
    assert spans_of([5, 1, 2, 3, 9]) == [(1, 3), (5, 5), (9, 9)]
    assert spans_of([]) == []


def test_a_task_of_a_client_that_is_gone_is_explained_too() -> None:
    house = small_house(1)
    task = house.submit([0])
    house.took(house.hub.gone(Peer(ALICE), "closed"))
    assert TaskId(task) in house.hub.ledger.tasks
    assert one(house, task).client_away
