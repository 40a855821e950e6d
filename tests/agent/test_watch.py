"""The end of real processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Never

import pytest

from agent.fakes import Child, HandLoop, StartChild
from ippmpi.agent.causes import Ending
from ippmpi.agent.watch import RECORD_WAIT_S, SETTLE_S, Watch, Watched


@pytest.fixture(params=["pidfd", "poll"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: int) -> Never:
        raise OSError("an old kernel")

    if request.param == "poll":
        monkeypatch.setattr(os, "pidfd_open", none)


@pytest.fixture
def process(child: StartChild) -> Child:
    return child()


@pytest.fixture
def ends() -> list[Ending]:
    return []


def write(record: Path, text: str) -> None:
    record.with_suffix(".new").write_text(text)
    record.with_suffix(".new").rename(record)


@pytest.mark.usefixtures("kernel")
def test_a_death_is_noticed_and_its_record_read(
    loop: HandLoop, process: Child, tmp_path: Path, ends: list[Ending]
) -> None:
    record = tmp_path / "host.1.exit"
    Watch(loop, Watched(process.pid, process.started, record), ends.append)
    process.tell("os._exit(3)")
    process.process.wait()
    write(record, "exit 3\n")
    loop.until(lambda: ends, 1.9)
    assert ends == [Ending(exit_code=3)]
    assert (loop.readers, loop.timers) == (0, 0)


def test_a_record_that_comes_late_is_waited_for(
    loop: HandLoop, process: Child, tmp_path: Path, ends: list[Ending]
) -> None:
    record = tmp_path / "host.1.exit"
    Watch(loop, Watched(process.pid, process.started, record), ends.append)
    process.close()
    loop.until(lambda: not loop.readers)
    loop.advance(RECORD_WAIT_S / 2)
    assert not ends
    write(record, "signal 9\n")
    loop.advance(0.1)
    assert ends == [Ending(signal=9)]


@pytest.mark.parametrize("text", [None, "nonsense"])
def test_without_a_readable_record_the_cause_stays_unknown_but_the_loss_does_not(
    loop: HandLoop, process: Child, tmp_path: Path, ends: list[Ending], text: str
) -> None:
    record = tmp_path / "host.1.exit"
    if text:
        write(record, text)
    Watch(loop, Watched(process.pid, process.started, record), ends.append)
    process.close()
    loop.until(lambda: not loop.readers)
    loop.advance(SETTLE_S + RECORD_WAIT_S + 0.1)
    assert ends == [Ending()]


@pytest.mark.usefixtures("kernel")
def test_a_process_that_is_gone_already_is_reported(loop: HandLoop, process: Child, ends: list[Ending]) -> None:
    process.close()
    Watch(loop, Watched(process.pid, process.started, None), ends.append)
    loop.until(lambda: ends, 1.0)


@pytest.mark.usefixtures("kernel")
def test_another_process_with_the_same_pid_is_not_ours(loop: HandLoop, process: Child, ends: list[Ending]) -> None:
    watch = Watch(loop, Watched(process.pid, process.started - 1, None), ends.append)
    assert not watch.send(signal.SIGKILL)
    loop.until(lambda: ends, 1.0)
    assert process.process.poll() is None


@pytest.mark.usefixtures("kernel")
def test_signals_reach_the_process(loop: HandLoop, process: Child, ends: list[Ending]) -> None:
    watch = Watch(loop, Watched(process.pid, process.started, None), ends.append)
    assert watch.send(signal.SIGTERM)
    assert process.process.wait(5) == -signal.SIGTERM
    assert not watch.send(signal.SIGTERM)
    watch.close()
    loop.advance(10)
    assert (ends, loop.readers) == ([], 0)
