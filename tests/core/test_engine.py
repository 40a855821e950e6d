from __future__ import annotations

import itertools

import pytest

from core.house import agent, records
from ippmpi.core.engine import ENGINE_TRANSITIONS, Engine, EngineEvent, EngineState
from ippmpi.errors import ProtocolError
from ippmpi.ids import WorldId

PRODUCT = list(itertools.product(EngineState, EngineEvent))


@pytest.mark.parametrize(("state", "event"), PRODUCT, ids=[f"{s.name}-{e.name}" for s, e in PRODUCT])
def test_every_pair_of_state_and_event_moves_as_the_table_says_or_is_refused(
    state: EngineState, event: EngineEvent
) -> None:
    engine = Engine(agent(), WorldId("w"), records([3])[0], 10)
    engine.state = state
    if (state, event) in ENGINE_TRANSITIONS:
        engine.move(event)
        assert engine.state is ENGINE_TRANSITIONS[state, event]
    else:
        with pytest.raises(ProtocolError, match=f"{event.name} in {state.name}"):
            engine.move(event)
        assert engine.state is state


def test_a_lost_engine_stays_lost() -> None:
    assert EngineState.LOST not in {state for state, _ in ENGINE_TRANSITIONS}


def test_an_engine_is_named_by_id_rank_world_host_and_pid() -> None:
    engine = Engine(agent(), WorldId("w"), records([3])[0], 10)
    assert str(engine) == "engine -1 (rank 3 of w on h1, pid 103)"
    assert engine.record(8).size == 8
