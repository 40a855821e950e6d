"""Memory goes back to the system after a rush, and only then."""

from __future__ import annotations

from controller.fakes import FakeLoop
from ippmpi.controller.memory import RUSH, TIMES, Memory, trim


def test_a_rush_is_followed_by_a_few_trims() -> None:
    loop, trims = FakeLoop(), []
    memory = Memory(loop.call_later, lambda: trims.append(loop.now))
    for rush in (1, 2):
        for _ in range(3 * RUSH):
            memory.used()
        loop.pass_time(60)
        assert rush * TIMES <= len(trims) <= rush * (TIMES + 1)
        assert loop.alarms == []


def test_a_quiet_time_needs_no_trim() -> None:
    loop, trims = FakeLoop(), []
    memory = Memory(loop.call_later, lambda: trims.append(loop.now))
    for _ in range(RUSH - 1):
        memory.used()
    assert loop.alarms == []
    assert trims == []


def test_trimming_works_here() -> None:
    trim()
