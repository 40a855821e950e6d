"""How fast the hub decides. The bars are far below what is measured, so that a busy machine passes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import pytest

from core.house import ALICE, House, agent, small_house
from ippmpi.core.effects import Send
from ippmpi.wire.messages import Abort, Content, Dependency, Placement, Reply, Run, Submit

TASKS = 20_000
CONTENT = [Content(inline=b"x" * 200, size=200)]

pytestmark = pytest.mark.slow


def quick_house(engines: int) -> House:
    house = small_house(engines)
    house.checks = False
    return house


def timed(work: Callable[[], int]) -> float:
    """Return operations per second, measured in CPU time of this process."""
    start = time.process_time()
    return work() / (time.process_time() - start)


def flow(house: House, placement: Callable[[int], Placement]) -> int:
    """Submit all tasks, then answer what runs, oldest first, until nothing is left; return the number of calls."""
    hub, running, calls = house.hub, deque[Run](), 0

    def note(effects: object) -> None:
        running.extend(e.message for e in effects if type(e) is Send and type(e.message) is Run)

    for i in range(TASKS):
        note(hub.handle(ALICE, Submit(f"a-{i}", "apply", [], CONTENT, placement=placement(i))))
        calls += 1
    while running:
        run = running.popleft()
        note(hub.handle(agent(), Reply(run.task, run.engines[0], Content())))
        calls += 1
    assert not hub.ledger.tasks
    assert calls == 2 * TASKS
    return calls


def chain(i: int) -> Placement:
    return Placement(after=Dependency([f"a-{i - 1}"])) if i % 100 else Placement()


@pytest.mark.parametrize("engines", [4, 1000])
@pytest.mark.parametrize(
    "placement",
    [lambda _: Placement(), lambda i: Placement(candidates=[i % 4]), chain],
    ids=["anywhere", "candidates", "chains"],
)
def test_queued_tasks_flow(engines: int, placement: Callable[[int], Placement], capsys: pytest.CaptureFixture) -> None:
    rate = timed(lambda: flow(quick_house(engines), placement))
    with capsys.disabled():
        print(f" {rate:,.0f} calls/s")
    assert rate > 20_000


def test_direct_tasks_flow() -> None:
    house, targets = quick_house(16), list(range(16))

    def work() -> int:
        for i in range(1000):
            house.took(house.hub.handle(ALICE, Submit(f"a-{i}", "apply", targets, CONTENT)))
            for engine in targets:
                house.took(house.hub.handle(agent(), Reply(f"a-{i}", engine, Content())))
        return 17_000

    assert timed(work) > 20_000


def test_a_full_queue_is_taken_back_at_once() -> None:
    house = quick_house(4)
    for i in range(TASKS):
        house.took(house.hub.handle(ALICE, Submit(f"a-{i}", "apply", [], CONTENT, placement=Placement())))

    def work() -> int:
        house.took(house.hub.handle(ALICE, Abort(1)))
        return TASKS

    assert timed(work) > 20_000
    assert len(house.hub.ledger.queue) == 0
