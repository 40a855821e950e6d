"""Short tasks are handed out ahead of time, and nothing waits behind a long one."""

from __future__ import annotations

import math

import pytest

from core.house import ALICE, House, agent, small_house
from ippmpi.core.ahead import AHEAD_S, MOST_AHEAD, PATIENCE_S
from ippmpi.core.effects import Release
from ippmpi.core.task import State
from ippmpi.ids import EngineId, TaskId
from ippmpi.wire.messages import Abort, Content, EngineLost, Failure, Placement, Reply, Revoke

TAKEN_BACK = Failure("TaskAborted", "taken back before it started", kind="TaskAborted")


def finish(house: House, engine: int, took_s: float) -> str:
    """End the oldest balanced task of an engine, which took that long."""
    task = next(iter(house.hub.ledger.engines[EngineId(engine)].balanced.values()))
    house.handle(agent(), Reply(task.id, engine, Content(), None, 100.0, 100.0 + took_s, task.attempt))
    return task.id


def give_back(house: House, task: str, engine: int) -> None:
    attempt = house.hub.ledger.tasks[TaskId(task)].attempt
    house.handle(agent(), Reply(task, engine, Content(), TAKEN_BACK, attempt=attempt))


def held(house: House, engine: int = 0) -> list[str]:
    return list(house.hub.ledger.engines[EngineId(engine)].balanced)


def warm(engines: int, tasks: int, *, took_s: float = 1e-4) -> tuple[House, list[str]]:
    """Return a house whose engines are known for short tasks and hold several of them; and the tasks that are left."""
    house = small_house(engines)
    names = [house.submit() for _ in range(tasks)]
    for _ in range(3):
        for engine in range(engines):
            names.remove(finish(house, engine, took_s))
    return house, names


def test_an_engine_gets_one_task_until_it_is_known_to_be_quick() -> None:
    house = small_house(1)
    for _ in range(200):
        house.submit()
    counts = [len(held(house))]
    for _ in range(12):
        finish(house, 0, 1e-4)
        counts.append(len(held(house)))
    assert counts[:5] == [1, 2, 4, 8, 16]
    assert AHEAD_S / 1e-4 <= counts[-1] <= AHEAD_S / 1e-4 + 1 < MOST_AHEAD


@pytest.mark.parametrize("took_s", [AHEAD_S * 1.01, 0.3, 1e9, -1.0, 0.0, math.nan, math.inf])
def test_long_tasks_and_those_that_make_no_sense_come_one_at_a_time(took_s: float) -> None:
    house = small_house(1)
    for _ in range(20):
        house.submit()
    for _ in range(5):
        finish(house, 0, took_s)
        assert len(held(house)) == 1


def test_an_engine_need_not_wait_for_the_next_of_tasks_that_take_milliseconds() -> None:
    house = small_house(1)
    for _ in range(20):
        house.submit()
    for _ in range(5):
        finish(house, 0, AHEAD_S * 0.9)
    assert len(held(house)) == 2


def test_few_tasks_are_spread_over_all_engines() -> None:
    house, _ = warm(4, 12)
    assert not len(house.hub.ledger.queue)
    tasks = [house.submit() for _ in range(4)]
    assert sorted(held(house, engine)[-1] for engine in range(4)) == tasks


def test_what_waits_behind_a_long_task_is_asked_back_and_goes_to_others_in_its_order() -> None:
    house, _ = warm(2, 24)
    mine, other = held(house, 0), held(house, 1)
    assert mine[1:], "several were handed to it"
    house.tick(PATIENCE_S / 2)
    finish(house, 1, 1e-4)
    house.tick(PATIENCE_S * 1.1)
    asked = house.sent(Revoke)
    assert [revoke.task for revoke in asked] == mine[:0:-1]
    assert {tuple(revoke.engines) for revoke in asked} == {(0,)}
    assert held(house, 1)[: len(other) - 1] == other[1:], "the other one is not late"
    for revoke in asked:
        give_back(house, revoke.task, 0)
    assert held(house, 0) == mine[:1]
    while held(house, 1):
        finish(house, 1, 1e-4)
    assert set(held(house, 0)) == set(mine[:1])
    assert house.hub.ledger.tasks.keys() == {TaskId(mine[0])}


def test_one_that_had_begun_when_it_was_asked_back_ends_where_it_is() -> None:
    house, _ = warm(1, 24)
    first, second, *rest = held(house)
    house.tick(PATIENCE_S * 1.1)
    assert house.hub.ledger.tasks[TaskId(second)].parts == {EngineId(0): State.RETURNING}
    finish(house, 0, 0.05)
    finish(house, 0, 0.05)
    assert {first, second} & house.hub.ledger.tasks.keys() == set()
    for task in reversed(rest):
        give_back(house, task, 0)
    assert held(house) == [rest[0]], "it was slow, so one at a time"


def test_one_that_fails_while_it_is_asked_back_is_tried_again() -> None:
    house, _ = warm(1, 24)
    task = house.submit(placement=Placement(retries=1))
    while task not in held(house):
        finish(house, 0, 1e-4)
    house.tick(PATIENCE_S * 1.1)
    while held(house)[0] != task:
        finish(house, 0, 0.05)
    house.fail(task, 0)
    assert house.failures() == []
    assert task in house.hub.ledger.tasks


def test_a_task_that_its_client_takes_back_while_it_is_asked_back_is_not_given_to_others() -> None:
    house, _ = warm(1, 24)
    _, second, *_ = held(house)
    house.tick(PATIENCE_S * 1.1)
    house.handle(ALICE, Abort(1, [second]))
    give_back(house, second, 0)
    assert house.failures() == [(second, 0, "TaskAborted")]


def test_nothing_is_asked_back_of_engines_that_go_on() -> None:
    house, _ = warm(1, 200)
    now = 0.0
    while len(house.hub.ledger.tasks) > 1:
        now += PATIENCE_S / 2
        house.tick(now)
        assert house.sent(Revoke) == []
        finish(house, 0, 1e-4)
    house.tick(now + 10)
    assert house.hub.next_deadline() is None


def test_a_large_value_that_comes_with_a_task_given_back_is_dropped() -> None:
    house, _ = warm(1, 24)
    *_, last = held(house)
    house.tick(PATIENCE_S * 1.1)
    value = Content(size=9, transfer=7)
    effects = house.handle(agent(), Reply(last, 0, value, TAKEN_BACK))
    assert Release(value) in effects


def test_what_a_lost_engine_had_not_begun_runs_elsewhere_in_its_order_without_a_retry() -> None:
    house, _ = warm(2, 24)
    first, *others = held(house, 0)
    here = held(house, 1)
    house.handle(agent(), EngineLost("w", 0, "signal 9", untouched=[*others, "nobody-1"]))
    assert house.failures() == [(first, 0, "EngineError")]
    done = []
    while house.hub.ledger.tasks:
        done.append(finish(house, 1, 1e-4))
    assert done[: len(here + others)] == here + others


def test_what_its_client_took_back_and_a_lost_engine_had_not_begun_is_aborted() -> None:
    house, _ = warm(1, 24)
    _, second, *_ = held(house)
    house.handle(ALICE, Abort(1, [second]))
    house.handle(agent(), EngineLost("w", 0, "signal 9", untouched=[second]))
    assert (second, 0, "TaskAborted") in house.failures()
