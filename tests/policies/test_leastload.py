from __future__ import annotations

from ippmpi.ids import EngineId
from ippmpi.policies.leastload import LeastLoad

E0, E1, E2 = (EngineId(i) for i in range(3))


def policy(*loads: tuple[int, int, int]) -> LeastLoad:
    made = LeastLoad()
    for engine, load in enumerate(loads):
        made.update(EngineId(engine), *load)
    return made


def test_the_engine_that_is_idle_for_longest_comes_first() -> None:
    chooser = policy((0, 0, 1), (0, 0, 1))
    chooser.update(E0, 0, 1, 0)
    chooser.update(E0, 0, 0, 1)
    assert chooser.choose() == E1
    assert chooser.choose(without={E1}) == E0


def test_a_task_waits_for_an_engine_that_has_no_direct_work() -> None:
    assert policy((1, 0, 1), (0, 1, 0)).choose() is None
    assert policy((1, 0, 1), (0, 1, 0)).choose(frozenset({E0})) == E0
    assert policy((1, 0, 1), (0, 1, 0)).choose(without=frozenset({E1})) == E0


def test_when_all_have_direct_work_the_least_loaded_with_room_gets_it() -> None:
    chooser = policy((3, 0, 1), (1, 1, 0), (2, 0, 1))
    assert chooser.choose() == E2
    chooser.remove(E2)
    assert chooser.choose() == E0


def test_with_room_for_more_the_least_busy_of_those_without_direct_work_gets_it() -> None:
    chooser = policy((0, 2, 1), (0, 1, 1), (1, 0, 1))
    assert chooser.choose() == E1
    assert chooser.choose(without=frozenset({E1})) == E0


def test_nobody_is_chosen_when_nobody_is_there() -> None:
    chooser = policy((0, 0, 1))
    chooser.remove(E0)
    chooser.remove(E0)
    assert chooser.choose() is None
    assert chooser.choose(frozenset({E0, E1})) is None
