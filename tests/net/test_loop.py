"""What the loop does with odd times and with errors of those it calls."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

import pytest

from ippmpi.net.loop import Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.mark.parametrize("delay", [1e9, 1e300, math.inf])
def test_a_timer_may_be_due_in_the_far_future(loop: Loop, delay: float) -> None:
    loop.call_later(delay, loop.stop)
    loop.call_soon(loop.stop)
    loop.sleep()
    loop.run()


def test_an_error_of_one_source_does_not_silence_those_behind_it(loop: Loop) -> None:
    served: list[str] = []
    pipes = [os.pipe(), os.pipe()]

    def stumble() -> None:
        raise ZeroDivisionError

    loop.add_source(pipes[0][0], lambda: not served, stumble)
    loop.add_source(pipes[1][0], lambda: not served, lambda: served.append("second"))
    with pytest.raises(ZeroDivisionError):
        loop.work()
    for _ in range(3):
        try:
            loop.work()
        except ZeroDivisionError:
            continue
    assert served == ["second"]
    for pipe in pipes:
        for fd in pipe:
            loop.remove_reader(fd)
            os.close(fd)
