"""An interrupt that comes while our own code waits for a task is raised when that is over, and ends it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from ippmpi.engine.interrupts import HANDLED, Interrupts


@pytest.fixture
def interrupts() -> Iterator[Interrupts]:
    before = {number: signal.getsignal(number) for number in HANDLED}
    interrupts = Interrupts(lambda: None)
    interrupts.install()
    interrupts.task = "a-1"
    yield interrupts
    interrupts.task = ""
    for number, handler in before.items():
        signal.signal(number, handler)


class Wait:
    """Our own code, which must not be interrupted; it looks whether it may go on after each thing that happens."""

    def __init__(self, *happens: Callable[[], object]) -> None:
        self.happens = list(happens)
        self.wakes = 0

    def __call__(self, until: Callable[[], bool]) -> None:
        while not until():
            self.happens.pop(0)()

    def wake(self) -> None:
        self.wakes += 1


def test_an_interrupt_of_the_task_ends_the_wait_and_is_raised_after_it(interrupts: Interrupts) -> None:
    wait = Wait(lambda: interrupts.interrupt("a-1"))
    with pytest.raises(KeyboardInterrupt):
        interrupts.defer(wait, lambda: False, wait.wake)
    assert (wait.wakes, interrupts.task) == (1, "a-1")


def test_an_interrupt_of_another_task_does_nothing(interrupts: Interrupts) -> None:
    happened: list[None] = []
    wait = Wait(lambda: interrupts.interrupt("a-2"), lambda: happened.append(None))
    interrupts.defer(wait, lambda: bool(happened), wait.wake)
    assert wait.wakes == 0


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_from_outside_ends_the_wait(
    interrupts: Interrupts, number: signal.Signals, error: type[BaseException]
) -> None:
    wait = Wait(lambda: os.kill(os.getpid(), number))
    with pytest.raises(error):
        interrupts.defer(wait, lambda: False, wait.wake)


def test_after_the_wait_the_task_may_be_interrupted_as_ever(interrupts: Interrupts) -> None:
    interrupts.defer(Wait(), lambda: True, lambda: None)
    with pytest.raises(KeyboardInterrupt):
        interrupts.interrupt("a-1")
    interrupts.task = ""
    interrupts.interrupt("a-1")
