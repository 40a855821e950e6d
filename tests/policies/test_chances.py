"""What tells the policies apart that take one of many alike."""

from __future__ import annotations

from collections import Counter

from ippmpi.ids import EngineId
from ippmpi.policies._pools import Pools
from ippmpi.policies.lru import Lru
from ippmpi.policies.plainrandom import PlainRandom
from ippmpi.policies.twobin import TwoBin
from ippmpi.policies.weighted import Weighted

N = 8


def idle(policy: Pools, n: int = N) -> Pools:
    for engine in range(n):
        policy.update(EngineId(engine), 0, 0, 1)
    policy._seed = 12345
    return policy


def used(policy: Pools, rounds: int) -> list[EngineId]:
    """Give so many tasks, each of which ends before the next comes; return who got them."""
    found = []
    for _ in range(rounds):
        chosen = policy.choose()
        assert chosen is not None
        policy.update(chosen, 0, 1, 0)
        policy.update(chosen, 0, 0, 1)
        found.append(chosen)
    return found


def test_lru_goes_round() -> None:
    assert used(idle(Lru()), 3 * N) == list(range(N)) * 3


def test_lru_ignores_loads_as_long_as_there_is_room() -> None:
    policy = Lru()
    policy.update(EngineId(0), 0, 1, 5)
    policy.update(EngineId(1), 0, 9, 5)
    policy.update(EngineId(0), 0, 2, 5)
    assert policy.choose() == 1
    assert policy.choose(among=frozenset({EngineId(0), EngineId(1)})) == 1


def test_the_memory_of_lru_is_bounded() -> None:
    policy = Lru()
    idle(policy)
    used(policy, 5000)
    assert sum(map(len, policy._queues.values())) < 1000


def test_plain_random_uses_all_alike() -> None:
    counts = Counter(used(idle(PlainRandom()), 8000))
    assert all(850 < counts[EngineId(engine)] < 1150 for engine in range(N)), counts


def test_two_bins_are_fairer_than_one() -> None:
    def longest_gap(policy: Pools) -> int:
        order = used(idle(policy), 4000)
        at = dict.fromkeys(range(N), 0)
        gaps = []
        for place, engine in enumerate(order):
            gaps.append(place - at[engine])
            at[engine] = place
        return max(gaps)

    assert longest_gap(Lru()) <= N < longest_gap(TwoBin()) < longest_gap(PlainRandom())


def test_weighted_prefers_who_has_less_to_do_without_always_taking_them() -> None:
    policy = Weighted()
    for engine in range(4):
        policy.update(EngineId(engine), 0, 1 + 3 * engine, 5)
    policy._seed = 1
    counts: Counter[EngineId | None] = Counter()
    for _ in range(4000):
        policy.update(EngineId(0), 0, 1, 5)  # the same again: new random numbers
        counts[policy.choose()] += 1
    assert counts[EngineId(0)] > counts[EngineId(1)] > counts[EngineId(2)] > counts[EngineId(3)] > 0
    assert counts[EngineId(0)] > 2500
