"""A loop is run by its own thread or by whoever waits, never by both and never by nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from helpers import eventually
from ippmpi.net.driver import LOOK_S, LOOKS, Driver
from ippmpi.net.loop import Loop


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def ended() -> list[str]:
    return []


@pytest.fixture
def driver(loop: Loop, ended: list[str]) -> Iterator[Driver]:
    driver = Driver(loop, "test-driver", lambda: ended.append(threading.current_thread().name))
    driver.start()
    yield driver
    loop.stop()
    assert driver.join(5)
    loop.close()
    assert ended == ["test-driver"]


def who(loop: Loop) -> str:
    """Return the name of the thread that runs the loop now."""
    names: list[str] = []
    loop.call_soon(lambda: names.append(threading.current_thread().name))
    eventually(lambda: names, timeout_s=2, what="a call on the loop")
    return names[0]


@pytest.mark.usefixtures("driver")
def test_its_own_thread_runs_the_loop_while_nobody_drives(loop: Loop) -> None:
    assert who(loop) == "test-driver"


def test_the_thread_that_waits_runs_the_loop(loop: Loop, driver: Driver) -> None:
    names: list[str] = []
    timer = threading.Timer(0.05, lambda: loop.call_soon(lambda: names.append(threading.current_thread().name)))
    timer.start()
    driver.drive(lambda: bool(names))
    timer.join()
    assert names == [threading.current_thread().name]


def test_the_loop_goes_on_soon_after_the_driver_left(loop: Loop, driver: Driver) -> None:
    driver.drive(lambda: True)
    start = time.monotonic()
    assert who(loop) == "test-driver"
    assert time.monotonic() - start < 20 * LOOK_S


def test_the_loop_goes_on_after_a_very_long_drive_too(loop: Loop, driver: Driver) -> None:
    until = time.monotonic() + LOOK_S * LOOKS * 3
    loop.call_later(LOOK_S * LOOKS * 3, lambda: None)
    driver.drive(lambda: time.monotonic() > until)
    assert who(loop) == "test-driver"


def test_a_timer_set_by_either_fires_under_the_other(loop: Loop, driver: Driver) -> None:
    fired: list[str] = []
    loop.call_soon(lambda: loop.call_later(0.1, lambda: fired.append("set by the thread")))
    driver.drive(lambda: bool(fired))
    loop.call_later(0.05, lambda: fired.append("set by the driver"))
    eventually(lambda: len(fired) == 2, timeout_s=2, what="the second timer")


def test_a_stop_ends_a_drive(loop: Loop, driver: Driver) -> None:
    threading.Timer(0.05, loop.stop).start()
    driver.drive(lambda: False)
    assert loop.stopped


def test_many_short_drives_lose_no_call(loop: Loop, driver: Driver) -> None:
    calls: list[int] = []
    for number in range(500):
        loop.call_soon(lambda number=number: calls.append(number))
        driver.drive(lambda number=number: len(calls) > number)
    assert calls == list(range(500))
