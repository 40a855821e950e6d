from __future__ import annotations

import pytest

from core.house import agent, records
from ippmpi.core.dependency import Condition, Location, Verdict
from ippmpi.core.engine import Engine, EngineEvent
from ippmpi.ids import EngineId, TaskId, WorldId
from ippmpi.wire.messages import Dependency

A, B = TaskId("a"), TaskId("b")
OPEN, MET, IMPOSSIBLE = Verdict.OPEN, Verdict.MET, Verdict.IMPOSSIBLE


def engine(number: int) -> Engine:
    made = Engine(agent(), WorldId("w"), records([number])[0], 10)
    made.id = EngineId(number)
    made.move(EngineEvent.NAME)
    made.move(EngineEvent.JOIN)
    return made


@pytest.mark.parametrize(
    ("options", "outcomes", "verdicts"),
    [
        ({}, (True, True), (OPEN, MET)),
        ({}, (True, False), (OPEN, IMPOSSIBLE)),
        ({}, (False, True), (IMPOSSIBLE, IMPOSSIBLE)),
        ({"any_of": True}, (True, False), (MET, MET)),
        ({"any_of": True}, (False, True), (OPEN, MET)),
        ({"any_of": True}, (False, False), (OPEN, IMPOSSIBLE)),
        ({"failure": True}, (True, False), (OPEN, MET)),
        ({"success": False, "failure": True}, (True, False), (IMPOSSIBLE, IMPOSSIBLE)),
        ({"success": False, "failure": True}, (False, False), (OPEN, MET)),
        ({"success": False, "failure": True, "any_of": True}, (True, False), (OPEN, MET)),
        ({"success": False, "failure": True, "any_of": True}, (True, True), (OPEN, IMPOSSIBLE)),
    ],
)
@pytest.mark.parametrize("kind", [Condition, Location])
def test_a_condition_on_two_tasks_is_met_or_impossible_as_early_as_can_be_known(
    kind: type[Condition], options: dict[str, bool], outcomes: tuple[bool, bool], verdicts: tuple[Verdict, Verdict]
) -> None:
    condition = kind(Dependency([A, B], **options))
    place = engine(0)
    assert condition.verdict() is OPEN
    for task, outcome, verdict in zip((A, B), outcomes, verdicts, strict=True):
        condition.note(task, outcome, place)
        assert condition.verdict() is verdict
    if verdict is IMPOSSIBLE:
        assert "task" in condition.reason


def test_tasks_to_follow_must_have_run_on_one_engine() -> None:
    condition = Location(Dependency([A, B]))
    condition.note(A, True, engine(0))
    condition.note(B, True, engine(1))
    assert condition.verdict() is IMPOSSIBLE
    assert "several engines: 0, 1" in condition.reason


def test_any_of_several_engines_can_be_followed() -> None:
    condition = Location(Dependency([A, B], any_of=True))
    first, second = engine(0), engine(1)
    condition.note(A, True, first)
    condition.note(B, True, second)
    assert condition.verdict() is MET
    first.move(EngineEvent.LOSE)
    assert condition.verdict() is MET
    assert condition.engines == {second}
    second.move(EngineEvent.LOSE)
    assert condition.verdict() is IMPOSSIBLE


def test_a_location_is_open_again_when_its_engine_is_lost_and_another_task_is_pending() -> None:
    condition = Location(Dependency([A, B], any_of=True))
    first = engine(0)
    condition.note(A, True, first)
    first.move(EngineEvent.LOSE)
    assert condition.verdict() is OPEN
    condition.note(B, True, first)
    assert condition.verdict() is IMPOSSIBLE
    assert "was lost" in condition.reason


def test_what_ran_nowhere_cannot_be_followed() -> None:
    condition = Location(Dependency([A], success=False, failure=True))
    condition.note(A, False, None)
    assert condition.verdict() is IMPOSSIBLE
    assert condition.reason == "task a ran on no engine"


@pytest.mark.parametrize("any_of", [True, False])
@pytest.mark.parametrize("kind", [Condition, Location])
def test_a_condition_on_nothing_is_met(kind: type[Condition], any_of: bool) -> None:
    assert kind(Dependency([], any_of=any_of)).verdict() is MET
