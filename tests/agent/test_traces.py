"""What ranks leave behind, and what the kernel counted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.fakes import Child, HandLoop, StartChild
from ippmpi.agent import procfs
from ippmpi.agent.traces import SAMPLE_S, Traces


@pytest.fixture
def segment() -> Iterator[Path]:
    path = Path(f"{procfs.SEGMENTS}ippmpi-test-{os.getpid()}")
    path.write_bytes(bytes(4096))
    yield path
    path.unlink(missing_ok=True)


def map_it(process: Child, path: Path) -> None:
    process.do(f"import mmap; f = open({str(path)!r}, 'r+b'); m = mmap.mmap(f.fileno(), 0)")


def test_a_segment_of_a_dead_rank_is_removed(loop: HandLoop, child: StartChild, segment: Path) -> None:
    traces = Traces(loop)
    process = child()
    map_it(process, segment)
    traces.note(process.pid)
    process.close()
    traces.clean_up()
    assert not segment.exists()


def test_a_segment_of_a_rank_that_died_before_it_could_join_is_removed(loop: HandLoop, segment: Path) -> None:
    Traces(loop).clean_up()
    assert segment.exists()
    Traces(loop).clean_up(since=segment.stat().st_ctime + 1)  # it was there before
    assert segment.exists()
    Traces(loop).clean_up(since=segment.stat().st_ctime)
    assert not segment.exists()


def test_what_another_job_has_made_meanwhile_and_maps_stays(loop: HandLoop, child: StartChild, segment: Path) -> None:
    map_it(child(), segment)
    Traces(loop).clean_up(since=segment.stat().st_ctime)
    assert segment.exists()


def test_a_segment_that_somebody_maps_stays(loop: HandLoop, child: StartChild, segment: Path) -> None:
    traces = Traces(loop)
    first, second = child(), child()
    map_it(first, segment)
    map_it(second, segment)
    traces.note(first.pid)
    first.close()
    traces.clean_up()
    assert segment.exists()


def test_the_users_own_file_and_one_that_is_removed_already_are_no_concern_of_ours(child: StartChild) -> None:
    process = child()
    own = Path(f"{procfs.SEGMENTS}my-results-{os.getpid()}")
    gone = Path(f"{procfs.SEGMENTS}ippmpi-gone-{os.getpid()}")
    try:
        for path in (own, gone):
            path.write_bytes(bytes(4096))
            map_it(process, path)
            process.do("kept = m, globals().get('kept')")
        gone.unlink()
        assert procfs.segments(process.pid) == set()
    finally:
        own.unlink()
    assert procfs.segments(process.pid) == set()
    process.close()
    assert procfs.segments(process.pid) == set()


def test_busy_ranks_are_looked_at_again_and_idle_ones_cost_no_timer(
    loop: HandLoop, child: StartChild, segment: Path
) -> None:
    traces = Traces(loop)
    process = child()
    traces.note(process.pid)
    assert loop.timers == 0
    map_it(process, segment)
    traces.busy(process.pid)
    traces.busy(process.pid)
    assert loop.timers == 1
    loop.advance(SAMPLE_S)
    assert loop.timers == 0
    process.close()
    traces.clean_up()
    assert not segment.exists()


def test_each_oom_kill_explains_one_death(loop: HandLoop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    counter = tmp_path / "memory.events"
    counter.write_text("oom 0\noom_kill 2\n")
    monkeypatch.setattr(procfs, "oom_kills", lambda _: (str(counter), procfs.count_oom_kills(str(counter))))
    traces = Traces(loop)
    for pid in (1, 2, 3):
        traces.note(pid)
    assert not traces.claim_oom_kill(1)
    counter.write_text("oom 0\noom_kill 3\n")
    assert traces.claim_oom_kill(2)
    assert not traces.claim_oom_kill(3)
    assert not traces.claim_oom_kill(99)


def test_counters_that_are_not_there_say_nothing(tmp_path: Path) -> None:
    assert procfs.count_oom_kills(str(tmp_path / "none")) is None
    (tmp_path / "empty").write_text("low 0\n")
    assert procfs.count_oom_kills(str(tmp_path / "empty")) is None
    assert procfs.oom_kills(2**22 + 1) is None
    found = procfs.oom_kills(os.getpid())
    assert found is None or found[1] >= 0
