from __future__ import annotations

import itertools

import pytest

from core.house import ALICE, INLINE
from ippmpi.core.task import ENDED, ENDS, HANDED, NOWHERE, TRANSITIONS, Event, State, Task
from ippmpi.errors import ProtocolError
from ippmpi.ids import EngineId
from ippmpi.wire.messages import Submit

PRODUCT = list(itertools.product(State, Event))


def task_in(state: State) -> Task:
    task = Task(ALICE, Submit("a-1", "apply", [0], [INLINE]), [EngineId(0)], [])
    task.parts[EngineId(0)] = state
    return task


@pytest.mark.parametrize(("state", "event"), PRODUCT, ids=[f"{s.name}-{e.name}" for s, e in PRODUCT])
def test_every_pair_of_state_and_event_moves_as_the_table_says_or_is_refused(state: State, event: Event) -> None:
    task = task_in(state)
    if (state, event) in TRANSITIONS:
        assert task.move(EngineId(0), event) is TRANSITIONS[state, event] is task.parts[EngineId(0)]
        assert task.open == (0 if TRANSITIONS[state, event] in ENDED else 1)
    else:
        with pytest.raises(ProtocolError, match=f"task a-1 on engine 0: {event.name} in {state.name}"):
            task.move(EngineId(0), event)
        assert task.parts == {EngineId(0): state}
        assert task.open == 1


@pytest.mark.parametrize(("state", "event"), PRODUCT, ids=[f"{s.name}-{e.name}" for s, e in PRODUCT])
def test_several_parts_move_as_one_does_or_none_of_them(state: State, event: Event) -> None:
    places = [EngineId(number) for number in range(4)]
    task = Task(ALICE, Submit("a-1", "apply", [*places], [INLINE]), places, [])
    task.move(places[0], Event.ASSIGN)
    task.parts[places[1]] = task.parts[places[2]] = state
    before = dict(task.parts)
    if (state, event) in TRANSITIONS:
        task.move_all(places[1:3], event)
        assert task.parts == before | dict.fromkeys(places[1:3], TRANSITIONS[state, event])
        assert task.open == (2 if TRANSITIONS[state, event] in ENDED else 4)
    else:
        with pytest.raises(ProtocolError, match=f"task a-1, 2 parts: {event.name} in {state.name}"):
            task.move_all(places[1:3], event)
        assert task.parts == before
        assert task.open == 4


def test_an_event_ends_a_part_or_it_does_not_whatever_the_part_was_doing() -> None:
    assert not {event for (_, event), state in TRANSITIONS.items() if state not in ENDED} & ENDS


def test_no_event_leaves_an_end() -> None:
    assert not {state for state, _ in TRANSITIONS} & ENDED


def test_every_state_can_be_reached_and_every_live_one_can_end() -> None:
    assert set(TRANSITIONS.values()) | {State.WAITING} == set(State)
    for state in set(State) - ENDED:
        assert {TRANSITIONS[state, event] for event in Event if (state, event) in TRANSITIONS} & ENDED


def test_what_was_asked_back_is_never_queued_again() -> None:
    assert State.WAITING not in {TRANSITIONS.get((State.RECALLED, event)) for event in Event}
    assert {State.RECALLED, State.RETURNING} < HANDED


def test_a_part_that_does_not_exist_cannot_move() -> None:
    with pytest.raises(ProtocolError, match="FINISH in no such part"):
        task_in(State.RUNNING).move(NOWHERE, Event.FINISH)


def test_a_task_succeeded_only_if_every_part_is_done() -> None:
    task = Task(ALICE, Submit("a-1", "apply", [0, 1], [INLINE]), [EngineId(0), EngineId(1)], [])
    for part in (0, 1):
        task.move(EngineId(part), Event.ASSIGN)
    task.move(EngineId(0), Event.FINISH)
    task.move(EngineId(1), Event.FAIL)
    assert not task.succeeded
    assert task.open == 0
