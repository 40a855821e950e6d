from __future__ import annotations

from core.house import ALICE, INLINE
from ippmpi.core.queue import ANYWHERE, Choice, Queue
from ippmpi.core.task import BalancedTask
from ippmpi.ids import EngineId
from ippmpi.wire.messages import Placement, Submit

E0, E1, E2 = (EngineId(i) for i in range(3))


def task(serial: int) -> BalancedTask:
    return BalancedTask(ALICE, Submit(f"a-{serial}", "apply", [], [INLINE], placement=Placement()), serial)


def among(*engines: EngineId) -> Choice:
    return Choice(frozenset(engines))


def test_tasks_leave_a_group_in_order_and_returned_ones_first() -> None:
    queue = Queue()
    tasks = [task(i) for i in range(3)]
    for one in tasks[1:]:
        group = queue.put(one, ANYWHERE)
    queue.put(tasks[0], ANYWHERE, first=True)
    assert [queue.pop(group) for _ in range(3)] == tasks
    assert not queue.groups
    assert len(queue) == queue.ready == 0


def test_an_engine_sees_the_groups_that_it_may_serve_oldest_first() -> None:
    queue = Queue()
    queue.put(task(3), ANYWHERE)
    queue.put(task(2), among(E0))
    queue.put(task(1), Choice(None, frozenset({E0})))
    queue.put(task(0), among(E1, E2))
    assert [group.head() for group in queue.groups_for(E0)] == [2, 3]
    assert [group.head() for group in queue.groups_for(E1)] == [0, 1, 3]


def test_a_task_can_be_taken_out_wherever_it_waits() -> None:
    queue = Queue()
    held, ready = task(0), task(1)
    queue.held[held.id] = held
    queue.put(ready, among(E0))
    assert len(queue) == 2
    assert list(queue) == [held, ready]
    for one in (held, ready, ready):
        queue.discard(one)
    assert len(queue) == 0
    assert queue.groups_for(E0) == []


def test_a_forgotten_engine_is_struck_from_every_choice() -> None:
    queue = Queue()
    queue.put(task(0), among(E0, E1))
    queue.put(task(1), Choice(None, frozenset({E0, E2})))
    only_here = queue.put(task(2), among(E0))
    assert queue.forget(E0) == [only_here]
    assert queue.drain([only_here])[0].serial == 2
    assert set(queue.groups) == {among(E1), Choice(None, frozenset({E2}))}
    assert [group.head() for group in queue.groups_for(E1)] == [0, 1]
    assert queue.groups_for(E0) == [queue.groups[Choice(None, frozenset({E2}))]]


def test_groups_that_become_equal_are_drained_in_order_of_submission() -> None:
    queue = Queue()
    queue.put(task(0), among(E1))
    merged = queue.put(task(2), among(E0, E1))
    queue.put(task(1), among(E0, E1), first=True)
    assert queue.forget(E0) == [merged]
    assert [one.serial for one in queue.drain([merged])] == [1, 2]
