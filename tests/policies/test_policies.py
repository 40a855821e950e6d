"""The contract that every scheduling policy keeps, against a slow but obvious model."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

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


@pytest.mark.parametrize("name", NAMES)
def test_engines_with_direct_work_are_asked_last(name: str) -> None:
    policy = make(name)
    busy, free, other = (EngineId(i) for i in range(3))
    policy.update(busy, 1, 0, 1)
    assert policy.choose() == busy, "all have direct work"
    policy.update(free, 0, 1, 0)
    assert policy.choose() is None, "an engine without direct work is worth waiting for"
    assert policy.choose(among=frozenset({busy, other})) == busy
    assert policy.choose(without=frozenset({free})) == busy
    policy.update(free, 0, 1, 1)
    assert policy.choose() == free
    policy.remove(free)
    assert policy.choose() == busy


@pytest.mark.parametrize("name", NAMES)
def test_a_policy_costs_the_same_for_many_engines(name: str) -> None:
    def steps(engines: int) -> int:
        policy = make(name)
        for engine in range(engines):
            policy.update(EngineId(engine), 0, 0, 1)
        counted = 0

        def count(*_: object) -> Any:
            nonlocal counted
            counted += 1
            return count

        sys.settrace(count)  # every line that runs
        try:
            for _ in range(50):
                chosen = policy.choose()
                assert chosen is not None
                policy.update(chosen, 0, 1, 0)
                policy.update(chosen, 0, 0, 1)
        finally:
            sys.settrace(None)
        return counted

    assert steps(5000) < 2 * steps(50)
