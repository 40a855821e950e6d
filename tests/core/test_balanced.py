from __future__ import annotations

import pytest

from core.house import ALICE, House, agent, small_house
from ippmpi.wire.messages import Content, Dependency, Failure, Placement, Reply


def where(house: House) -> list[tuple[str, int]]:
    """Return which tasks the last call started, and where."""
    return [(task, engines[0]) for _, task, engines in house.runs()]


# --- placing ---


def test_tasks_go_to_idle_engines_and_then_wait_for_the_first_that_is_free() -> None:
    house = small_house(2)
    a, b, c, d = (house.submit() for _ in range(4))
    assert [(task, e) for _, task, (e,) in house.runs(ever=True)] == [(a, 0), (b, 1)]
    house.reply(b, 1)
    assert where(house) == [(c, 1)]
    house.reply(a, 0)
    assert where(house) == [(d, 0)]


def test_a_task_waits_until_an_engine_comes() -> None:
    house = House()
    house.client()
    task = house.submit()
    assert house.runs() == []
    house.node([0], 1)
    assert where(house) == [(task, 0)]


def test_a_task_is_never_put_behind_direct_work_while_another_engine_will_be_free() -> None:
    house = small_house(2)
    house.submit([0])
    a, b = house.submit(), house.submit()
    assert [(task, e) for _, task, (e,) in house.runs(ever=True)][1:] == [(a, 1)]
    house.reply(a, 1)
    assert where(house) == [(b, 1)]


def test_when_every_engine_has_direct_work_the_least_loaded_gets_one_task() -> None:
    house = small_house(2)
    for targets in ([0], [0, 1]):
        house.submit(targets)
    a = house.submit()
    assert where(house) == [(a, 1)]
    b = house.submit()
    assert where(house) == [(b, 0)]
    house.submit()
    assert where(house) == []


def test_a_waiting_task_starts_when_direct_work_reaches_the_last_engine_without() -> None:
    house = small_house(2)
    direct = house.submit([0])
    a, b = house.submit(), house.submit()
    house.submit([1])
    assert where(house)[1:] == [(b, 0)]
    house.reply(direct, 0)
    house.reply(a, 1)
    assert where(house) == []


def test_candidates_restrict_where_a_task_runs() -> None:
    house = small_house(4)
    tasks = [house.submit(placement=Placement(candidates=[2, 3])) for _ in range(3)]
    free = house.submit()
    assert [(task, e) for _, task, (e,) in house.runs(ever=True)] == [(tasks[0], 2), (tasks[1], 3), (free, 0)]
    house.reply(tasks[1], 3)
    assert where(house) == [(tasks[2], 3)]


def test_candidates_of_which_none_is_there_are_impossible() -> None:
    house = small_house(2)
    task = house.submit(placement=Placement(candidates=[5, 7]))
    assert house.failures() == [(task, -1, "ImpossibleDependency")]
    assert house.texts() == ["no engine qualifies: candidates 5, 7; have 0-1"]


def test_an_old_task_for_one_engine_goes_before_younger_ones_for_any() -> None:
    house = small_house(1)
    house.submit()
    named = house.submit(placement=Placement(candidates=[0]))
    house.submit()
    house.reply("alice-1", 0)
    assert where(house) == [(named, 0)]


# --- dependencies ---


def test_a_task_starts_after_those_it_waits_for() -> None:
    house = small_house(2)
    a, b = house.submit(), house.submit()
    c = house.submit(placement=Placement(after=Dependency([a, b, a])))
    house.reply(b, 1)
    assert where(house) == []
    house.reply(a, 0)
    assert [task for task, _ in where(house)] == [c]


def test_a_task_may_come_after_a_direct_one() -> None:
    house = small_house(2)
    push = house.submit([0, 1])
    task = house.submit(placement=Placement(after=Dependency([push])))
    house.reply(push, 1)
    assert where(house) == []
    house.reply(push, 0)
    assert [name for name, _ in where(house)] == [task]


def test_a_dependency_on_what_has_ended_already_is_decided_at_once() -> None:
    house = small_house(2)
    good, bad = house.submit(), house.submit()
    house.reply(good, 0)
    house.fail(bad, 1)
    task = house.submit(placement=Placement(after=Dependency([good]), follow=Dependency([bad], failure=True)))
    assert where(house) == [(task, 1)]
    task = house.submit(placement=Placement(after=Dependency([good, bad])))
    assert house.failures() == [(task, -1, "ImpossibleDependency")]
    assert house.texts() == [f"task {bad} failed on engine 1 (rank 1 of w on h1, pid 101)"]


def test_a_task_follows_others_to_their_engine() -> None:
    house = small_house(3)
    a, b, c = (house.submit() for _ in range(3))
    follower = house.submit(placement=Placement(follow=Dependency([b])))
    for task, engine in ((a, 0), (c, 2)):
        house.reply(task, engine)
    assert where(house) == []
    house.reply(b, 1)
    assert where(house) == [(follower, 1)]


def test_following_and_candidates_must_agree() -> None:
    house = small_house(2)
    a = house.submit()
    follower = house.submit(placement=Placement(follow=Dependency([a]), candidates=[1]))
    house.reply(a, 0)
    assert house.failures() == [(follower, -1, "ImpossibleDependency")]
    assert "candidates 1 and followed tasks on engine 0 (rank 0" in house.texts()[0]


def test_a_failure_falls_through_a_long_chain() -> None:
    house = small_house(1)
    house.checks = False
    names = [house.submit()]
    for _ in range(3000):
        names.append(house.submit(placement=Placement(after=Dependency([names[-1]]))))
    house.checks = True
    house.fail(names[0], 0)
    assert [task for task, _, _ in house.failures()] == names
    assert not house.hub.ledger.tasks


def test_a_task_that_ran_where_an_engine_was_lost_cannot_be_followed_to_its_successor() -> None:
    house = small_house(2)
    a = house.submit()
    house.reply(a, 0)
    house.lose(0)
    house.lose(1)
    house.node([0, 1], 2, pid=500)
    task = house.submit(placement=Placement(follow=Dependency([a])))
    assert house.failures() == [(task, -1, "ImpossibleDependency")]
    assert "was lost" in house.texts()[0]


def test_waiting_followers_fail_when_their_engine_is_lost_or_stopped() -> None:
    house = small_house(3)
    a, b, c = (house.submit() for _ in range(3))
    ready = house.submit(placement=Placement(follow=Dependency([a])))
    held = house.submit(placement=Placement(follow=Dependency([a]), after=Dependency([c])))
    house.reply(a, 0)
    assert where(house) == [(ready, 0)]
    second = house.submit(placement=Placement(follow=Dependency([a])))
    house.lose(0)
    assert {(task, kind) for task, _, kind in house.failures()} == {
        (ready, "EngineError"), (second, "ImpossibleDependency"), (held, "ImpossibleDependency")
    }  # fmt: skip
    third = house.submit(placement=Placement(follow=Dependency([b])))
    house.reply(b, 1)
    fourth = house.submit(placement=Placement(follow=Dependency([b])))
    house.stop([1])
    assert house.failures() == [(fourth, -1, "ImpossibleDependency")]
    assert house.live(third)


# --- trying again ---


@pytest.mark.parametrize("kind", ["code", "EngineError"])
def test_retries_go_to_engines_that_were_not_tried_and_then_to_any(kind: str) -> None:
    house = small_house(2)
    task = house.submit(placement=Placement(retries=2))
    house.fail(task, 0, kind)
    assert (where(house), house.failures()) == ([(task, 1)], [])
    house.fail(task, 1, kind)
    assert [name for name, _ in where(house)] == [task]
    house.fail(task, where(house)[0][1], kind)
    assert [(name, found) for name, _, found in house.failures()] == [(task, kind)]


def test_without_retries_the_first_failure_is_the_end() -> None:
    house = small_house(2)
    task = house.submit()
    house.fail(task, 0)
    assert house.failures() == [(task, 0, "code")]


def test_what_was_aborted_by_the_engine_is_not_tried_again() -> None:
    house = small_house(2)
    task = house.submit(placement=Placement(retries=2))
    house.fail(task, 0, "TaskAborted")
    assert house.failures() == [(task, 0, "TaskAborted")]


def test_a_retry_waits_for_an_untried_engine_ahead_of_younger_tasks() -> None:
    house = small_house(2)
    a, b = house.submit(placement=Placement(retries=1)), house.submit()
    c = house.submit()
    house.fail(a, 0)
    assert where(house) == [(c, 0)]
    d = house.submit()
    house.reply(b, 1)
    assert where(house) == [(a, 1)]
    house.reply(c, 0)
    assert where(house) == [(d, 0)]


def test_a_retry_takes_a_tried_engine_when_the_last_other_one_is_lost() -> None:
    house = small_house(2)
    a, b = house.submit(placement=Placement(retries=1)), house.submit()
    house.fail(a, 0)
    assert where(house) == []
    house.lose(1)
    assert house.failures() == [(b, 1, "EngineError")]
    assert where(house) == [(a, 0)]


def test_a_task_that_is_refused_moves_on_without_using_a_retry_until_nobody_is_left() -> None:
    house = small_house(3)
    task = house.submit(placement=Placement(retries=1))
    for engine in (0, 1):
        house.fail(task, engine, "UnmetDependency")
        assert where(house) == [(task, engine + 1)]
    house.fail(task, 2, "UnmetDependency")
    assert house.failures() == [(task, -1, "ImpossibleDependency")]
    assert house.texts() == ["no engine is left: it was refused by engines 0-2; before that: Oops: it broke"]


def test_a_refused_task_among_candidates_is_impossible_when_all_have_refused() -> None:
    house = small_house(3)
    task = house.submit(placement=Placement(candidates=[0, 1]))
    house.fail(task, 0, "UnmetDependency")
    house.fail(task, 1, "UnmetDependency")
    assert house.failures() == [(task, -1, "ImpossibleDependency")]


def test_an_engine_that_refused_is_not_asked_again_by_a_retry() -> None:
    house = small_house(2)
    task = house.submit(placement=Placement(retries=5))
    house.fail(task, 0, "UnmetDependency")
    for _ in range(5):
        house.fail(task, 1)
        assert where(house) == [(task, 1)]
    house.fail(task, 1)
    assert house.failures() == [(task, 1, "code")]


def test_a_refused_task_fails_when_the_only_engine_left_is_lost() -> None:
    house = small_house(2)
    task, other = house.submit(), house.submit()
    house.fail(task, 0, "UnmetDependency")
    house.lose(1)
    assert sorted(house.failures()) == [(task, -1, "ImpossibleDependency"), (other, 1, "EngineError")]


def test_tasks_of_a_lost_engine_are_tried_again_if_they_may() -> None:
    house = small_house(2)
    a, b = house.submit(placement=Placement(retries=1)), house.submit()
    house.lose(0)
    assert house.failures() == []
    house.reply(b, 1)
    assert where(house) == [(a, 1)]
    house.lose(1, "out of memory")
    assert house.failures() == [(a, 1, "EngineError")]
    assert "engine 1 (rank 1 of w on h1, pid 101) was lost: out of memory" in house.texts()[0]


def test_a_retry_whose_only_candidate_is_lost_names_the_loss() -> None:
    house = small_house(2)
    task = house.submit(placement=Placement(retries=1, candidates=[0]))
    house.lose(0, "out of memory")
    assert house.failures() == [(task, -1, "ImpossibleDependency")]
    assert "out of memory" in house.texts()[0]


def test_a_follower_that_fails_is_tried_again_on_its_engine() -> None:
    house = small_house(2)
    a = house.submit()
    house.reply(a, 0)
    task = house.submit(placement=Placement(follow=Dependency([a]), retries=1))
    house.fail(task, 0)
    assert where(house) == [(task, 0)]


def test_the_content_of_a_failed_try_is_released_and_the_request_kept_until_the_end() -> None:
    house = small_house(2)
    task = house.submit(contents=[Content(size=9, transfer=1)], placement=Placement(retries=1))
    failing = Reply(task, 0, Content(size=9, transfer=2), Failure("Oops", "it broke"))
    house.handle(agent(), failing)
    assert house.released() == [2]
    house.reply(task, 1)
    assert house.released() == [1]


# --- time ---


def test_a_task_that_finds_no_free_engine_in_time_fails() -> None:
    house = small_house(1)
    house.tick(100.0)
    house.submit()
    task = house.submit(placement=Placement(timeout_s=2.5))
    assert house.hub.next_deadline() == 102.5
    assert house.tick(102.4) == []
    house.tick(102.5)
    assert house.failures() == [(task, -1, "TaskTimeout")]
    assert house.texts() == ["no engine was free within 2.5 s"]
    assert house.hub.next_deadline() is None


def test_a_task_whose_dependencies_are_not_met_in_time_fails() -> None:
    house = small_house(2)
    a = house.submit()
    house.submit(placement=Placement(timeout_s=1, after=Dependency([a])))
    house.tick(1.0)
    assert house.texts() == ["its dependencies were not met within 1 s"]


def test_the_timeout_does_not_bound_the_run_and_starts_anew_with_a_retry() -> None:
    house = small_house(1)
    task = house.submit(placement=Placement(timeout_s=1, retries=1))
    assert house.hub.next_deadline() is None
    house.tick(50.0)
    house.submit([0])
    blocker = house.submit(placement=Placement(candidates=[0]))
    house.fail(task, 0)
    assert where(house) == [(task, 0)]
    house.reply(task, 0)
    assert where(house) == [(blocker, 0)]
    assert house.hub.next_deadline() is None


# --- engines come and go ---


def test_waiting_tasks_use_the_engines_that_are_left_and_those_that_come_back() -> None:
    house = small_house(2)
    blockers = [house.submit(), house.submit()]
    a, b, c = (house.submit(placement=Placement(candidates=[0, 1])) for _ in range(3))
    house.lose(0)
    assert house.failures() == [(blockers[0], 0, "EngineError")]
    house.reply(blockers[1], 1)
    assert where(house) == [(a, 1)]
    house.node([0], 2, pid=900)
    assert where(house) == [(b, 0)]
    house.lose(1)
    house.lose(0)
    assert (c, -1, "ImpossibleDependency") in house.failures()


def test_a_loss_can_free_a_task_that_waited_for_the_lost_engine() -> None:
    house = small_house(2)
    house.submit([0])
    a, b = house.submit(), house.submit()
    assert [(task, e) for _, task, (e,) in house.runs(ever=True)][1:] == [(a, 1)]
    house.lose(1)
    assert where(house) == [(b, 0)]


def test_a_task_with_untouched_dependencies_fails_at_once_when_its_candidates_go() -> None:
    house = small_house(2)
    a = house.submit(placement=Placement(candidates=[1]))
    held = house.submit(placement=Placement(after=Dependency([a]), candidates=[0]))
    house.lose(0)
    assert house.failures() == [(held, -1, "ImpossibleDependency")]
    assert house.sent(Reply, to=ALICE)
