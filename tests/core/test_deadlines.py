from __future__ import annotations

from core.house import ALICE, INLINE
from ippmpi.core.deadlines import Deadlines
from ippmpi.core.task import BalancedTask
from ippmpi.wire.messages import Placement, Submit


def task(serial: int) -> BalancedTask:
    return BalancedTask(ALICE, Submit(f"a-{serial}", "apply", [], [INLINE], placement=Placement()), serial)


def test_deadlines_expire_in_order_and_only_once() -> None:
    deadlines, tasks = Deadlines(), [task(i) for i in range(4)]
    for one, at in zip(tasks, (3.0, 1.0, 2.0, 9.0), strict=True):
        deadlines.set(one, at)
    assert deadlines.next() == 1.0
    assert deadlines.expired(3.0) == [tasks[1], tasks[2], tasks[0]]
    assert deadlines.expired(3.0) == []
    assert deadlines.next() == 9.0
    assert len(deadlines) == 1


def test_a_cleared_deadline_does_not_expire_and_can_be_set_anew() -> None:
    deadlines, one = Deadlines(), task(0)
    deadlines.set(one, 1.0)
    deadlines.clear(one)
    deadlines.clear(one)
    assert deadlines.next() is None
    deadlines.set(one, 1.0)
    assert deadlines.expired(5.0) == [one]
    assert len(deadlines) == 0


def test_stale_entries_do_not_pile_up() -> None:
    deadlines = Deadlines()
    for i in range(10_000):
        one = task(i)
        deadlines.set(one, 1e6 + i)
        deadlines.clear(one)
    assert len(deadlines._heap) < 100
