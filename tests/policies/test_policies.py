"""The contract that every scheduling policy keeps, against a slow but obvious model."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ippmpi import plugins
from ippmpi.core.policy import Policy
from ippmpi.ids import EngineId

NAMES = plugins.names("ippmpi.policies")
ENGINES = st.integers(0, 5).map(EngineId)
SETS = st.frozensets(ENGINES)


@dataclass
class Load:
    direct: int
    balanced: int
    room: int


@dataclass
class Model:
    loads: dict[EngineId, Load] = field(default_factory=dict)

    def check(self, chosen: EngineId | None, among: frozenset[EngineId] | None, without: frozenset[EngineId]) -> None:
        able = {e: load for e, load in self.loads.items() if (among is None or e in among) and e not in without}
        idle = [e for e, load in able.items() if load.direct == load.balanced == 0 and load.room > 0]
        if chosen is None:
            assert not idle
            assert not able or any(load.room <= 0 for load in able.values())
            return
        assert able[chosen].room > 0
        assert not idle or chosen in idle


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("update"), ENGINES, st.integers(0, 2), st.integers(0, 2), st.integers(-1, 1)),
        st.tuples(st.just("remove"), ENGINES),
        st.tuples(st.just("choose"), st.none() | SETS, SETS),
    ),
    max_size=60,
)


def make(name: str) -> Policy:
    return plugins.load("ippmpi.policies", name)()


@pytest.mark.parametrize("name", NAMES)
@given(steps=STEPS)
@settings(max_examples=200, deadline=None)
def test_a_policy_chooses_only_what_qualifies_and_never_leaves_an_idle_engine(name: str, steps: list[tuple]) -> None:
    policy, model = make(name), Model()
    for kind, *arguments in steps:
        if kind == "update":
            engine, *load = arguments
            policy.update(engine, *load)
            model.loads[engine] = Load(*load)
        elif kind == "remove":
            policy.remove(*arguments)
            model.loads.pop(arguments[0], None)
        else:
            chosen = policy.choose(*arguments)
            assert chosen == policy.choose(*arguments), "choosing changes nothing"
            model.check(chosen, *arguments)


@pytest.mark.parametrize("name", NAMES)
def test_a_policy_uses_every_engine(name: str) -> None:
    policy = make(name)
    for engine in range(8):
        policy.update(EngineId(engine), 0, 0, 1)
    used = []
    while (chosen := policy.choose()) is not None:
        policy.update(chosen, 0, 1, 0)
        used.append(chosen)
    assert sorted(used) == list(range(8))
