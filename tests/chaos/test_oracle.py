"""The oracle sees what is wrong with a history, and only that."""

from __future__ import annotations

import pytest

from chaos.oracle import ALWAYS, FIRST, Asked, Death, History, Outcome, judge

RIGHT = Outcome()
LOST = Outcome(error="EngineError", text="engine 1 was lost", pid=7)


def history(*asked: Asked, runs: str = "", ends: dict[str, list[Outcome]] | None = None) -> History:
    """Make a history in which everything went well but for *ends*; *runs*: ``key:process`` in order."""
    told = History(asked={each.key: each for each in asked})
    told.runs = [(key, int(pid), float(n)) for n, (key, pid) in enumerate(r.split(":") for r in runs.split())]
    told.ended = {each.key: [[RIGHT] * each.parts] for each in asked} | {k: [v] for k, v in (ends or {}).items()}
    return told


def test_a_history_in_which_all_went_well_is_clean() -> None:
    told = history(
        Asked("a"),
        Asked("b", parts=2),
        Asked("c", retries=1, fails=FIRST, after=("a",)),
        Asked("m", items=2),
        Asked("p", counted=False),
        Asked("x", fails=ALWAYS),
        Asked("y", after=("x",)),
        runs="a:1 b:1 b:2 c:1 c:1 m/0:1 m/1:1 x:2",
        ends={"x": [Outcome(error="ValueError")], "y": [Outcome(error="ImpossibleDependency")]},
    )
    assert judge(told) == []


def test_what_never_ended_or_ended_twice_is_found() -> None:
    told = history(Asked("a"), Asked("b"), runs="a:1 b:1")
    del told.ended["a"]
    told.ended["b"] *= 2
    assert judge(told) == ["a (direct): never ended", "b (direct): ended 2 times"]


def test_a_request_that_was_refused_need_not_end_and_must_not() -> None:
    told = history(Asked("a"), Asked("b"))
    told.refused = {"a", "b"}
    del told.ended["a"]
    assert judge(told)[0] == "b (direct): was refused, and ended"


def test_a_wrong_value_is_found() -> None:
    told = history(Asked("a"), runs="a:1", ends={"a": [Outcome(wrong="1 instead of 2")]})
    assert judge(told) == ["a (direct): wrong value: 1 instead of 2"]


def test_a_value_that_is_missing_is_found() -> None:
    told = history(Asked("a", parts=2), runs="a:1 a:2", ends={"a": [RIGHT]})
    assert judge(told) == ["a (direct): has 1 values, not 2"]


@pytest.mark.parametrize(
    ("asked", "runs", "text"),
    [
        (Asked("a"), "a:1 a:2", "a ran 2 times, at most 1 are allowed"),
        (Asked("a", parts=2), "a:1 a:1", "a ran 2 times in process 1"),
        (Asked("a", retries=2), "a:1 a:1 a:2 a:2", "a ran 4 times, at most 3 are allowed"),
        (Asked("a", items=2), "a/0:1 a/1:1 a/1:2", "a/1 ran 2 times, at most 1 are allowed"),
    ],
)
def test_what_ran_too_often_is_found(asked: Asked, runs: str, text: str) -> None:
    assert judge(history(asked, runs=runs)) == [f"a (direct): {text}"]


def test_what_ran_and_was_never_asked_for_is_found_and_a_value_without_a_run() -> None:
    assert judge(history(Asked("a"), runs="b:1")) == [
        "b: ran, but nobody asked for it",
        "a (direct): has a value and never ran",
    ]


def test_what_began_before_that_which_it_waits_for_is_found() -> None:
    told = history(Asked("a"), Asked("b", after=("a",)), runs="b:1 a:1")
    assert judge(told) == ["b (direct): began before a, which it waits for"]


def test_a_lost_engine_is_an_excuse_if_it_was_killed() -> None:
    told = history(Asked("a"), ends={"a": [LOST]})
    assert judge(told) == ["a (direct): ended with an error that nothing excuses: EngineError: engine 1 was lost"]
    told.deaths = [Death(8, 0.0)]
    assert judge(told)
    told.deaths = [Death(7, 0.0)]
    assert judge(told) == []


def test_a_request_that_did_not_reach_a_living_engine_is_excused_by_no_death() -> None:
    undelivered = Outcome(error="EngineError", text="the request's content did not arrive: x", pid=7)
    told = history(Asked("a"), ends={"a": [undelivered]})
    told.deaths = [Death(7, 100.0)]
    assert len(judge(told)) == 1


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        (Asked("a"), "ValueError"),
        (Asked("a", retries=1, fails=FIRST), "ValueError"),
        (Asked("a"), "TaskAborted"),
        (Asked("a", after=("b",)), "ImpossibleDependency"),
        (Asked("a"), "NameError"),
    ],
)
def test_an_error_without_a_reason_is_found(asked: Asked, error: str) -> None:
    told = history(asked, Asked("b"), runs="b:1", ends={"a": [Outcome(error=error)]})
    assert judge(told) == [f"a (direct): ended with an error that nothing excuses: {error}: "]


def test_a_value_of_a_task_that_always_fails_is_found() -> None:
    told = history(Asked("a", fails=ALWAYS), runs="a:1")
    assert judge(told) == ["a (direct): has a value, though every run raises"]


def test_an_engine_that_dies_near_the_death_of_the_controller_may_be_forgotten() -> None:
    told = history(Asked("a", kind="balanced"), runs="a:1 a:2")
    told.deaths = [Death(1, 3.0)]
    assert judge(told)
    told.restarts = [5.0]
    assert judge(told) == []
    told.restarts = [500.0]
    assert judge(told)


def test_no_process_runs_a_task_more_often_than_all_of_them_may() -> None:
    told = history(Asked("a", kind="balanced", retries=1), runs="a:1 a:2 a:2")
    told.deaths, told.restarts = [Death(2, 3.0)], [2.0]
    assert judge(told) == []
    told = history(Asked("a", kind="balanced", retries=1), runs="a:1 a:2 a:2 a:2")
    told.deaths, told.restarts = [Death(2, 4.0)], [3.0]
    assert judge(told) == ["a (balanced): a ran 3 times in process 2"]
