"""A controller that is killed under load and started again: nothing is lost, nothing runs twice."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import ippmpi as ipp
from chaos.harm import agents
from clusters import defined, running
from helpers import alive, eventually

pytestmark = pytest.mark.mpi

WORK = defined("""
    def note(folder, name, pause_s):
        import os, pathlib, time
        with open(pathlib.Path(folder, str(os.getpid())), "a") as file:
            file.write(f"{name}\\n")
        time.sleep(pause_s)
        return name

    def doubled(array):
        return array * 2
""")


def counts(folder: Path) -> Counter[str]:
    """Count how often each task has run."""
    return Counter(name for file in folder.iterdir() for name in file.read_text().split())


def kill_controller(cluster: ipp.Cluster) -> None:
    process = cluster.controller
    assert process is not None
    os.kill(process.identity.pid, signal.SIGKILL)
    eventually(lambda: process.poll() is not None)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("transport", ["auto", "tcp"])
def test_work_goes_on_when_the_controller_is_killed_under_load(tmp_path: Path, notes: Path, transport: str) -> None:
    environment = {"IPPMPI_AGENT_TRANSPORT": transport}
    with running(tmp_path / "profile", 4, "local", environment=environment) as (cluster, rc):
        ids, pids = rc.ids, rc[:].apply_sync(os.getpid)
        balanced = rc.load_balanced_view()
        sleep = rc[0].apply_async(WORK.note, str(notes), "direct", 1.0)
        results = [balanced.apply_async(WORK.note, str(notes), f"b{n}", 0.02) for n in range(200)]
        everywhere = rc[:].apply_async(WORK.note, str(notes), "all", 0.01)
        for round_ in range(3):
            eventually(lambda: sum(r.ready() for r in results) > 30 * (round_ + 1), what="work goes on")  # noqa: B023
            kill_controller(cluster)
            late = balanced.apply_async(WORK.note, str(notes), f"late{round_}", 0.0)
            began = time.monotonic()
            cluster.restore_controller_sync()
            results.append(late)
            rc[3].apply_async(WORK.note, str(notes), f"after{round_}", 0.0).get(timeout=10)
            assert time.monotonic() - began < 10
        names = [f"b{n}" for n in range(200)] + [f"late{n}" for n in range(3)]
        assert [r.get(timeout=30) for r in results] == names
        assert sleep.get(timeout=5) == "direct"
        assert everywhere.get(timeout=5) == ["all"] * 4
        assert rc.ids == ids
        assert rc[:].apply_sync(os.getpid) == pids
        once = dict.fromkeys([*names, "direct", "after0", "after1", "after2"], 1)
        assert counts(notes) == once | {"all": 4}


def test_an_agent_that_is_killed_at_the_same_time_has_nothing_run_twice(tmp_path: Path, notes: Path) -> None:
    profile = tmp_path / "profile"
    with running(profile, 4, "local") as (cluster, rc):
        balanced = rc.load_balanced_view()
        results = [balanced.apply_async(WORK.note, str(notes), f"b{n}", 0.03) for n in range(200)]
        for round_ in range(4):
            eventually(lambda: sum(r.ready() for r in results) > 30 * (round_ + 1), what="work goes on")  # noqa: B023
            (agent,) = eventually(lambda: agents(profile))
            kill_controller(cluster)
            os.kill(agent, signal.SIGKILL)
            cluster.restore_controller_sync()
        assert [r.get(timeout=30) for r in results] == [f"b{n}" for n in range(200)]
        assert counts(notes) == dict.fromkeys((f"b{n}" for n in range(200)), 1)


def test_large_contents_survive_wherever_they_are(tmp_path: Path) -> None:
    with running(tmp_path / "profile", 2, "local") as (cluster, rc):
        arrays = [np.random.default_rng(n).integers(0, 255, 20_000_000, dtype=np.uint8) for n in range(4)]
        for pause_s in (0.0, 0.02, 0.2):
            results = [rc[n % 2].apply_async(WORK.doubled, array) for n, array in enumerate(arrays)]
            time.sleep(pause_s)
            kill_controller(cluster)
            cluster.restore_controller_sync()
            for result, array in zip(results, arrays, strict=True):
                assert np.array_equal(result.get(timeout=30), array * 2)


def test_what_a_damaged_store_has_lost_ends_with_an_error_and_the_rest_goes_on(tmp_path: Path, notes: Path) -> None:
    with running(tmp_path / "profile", 2, "local") as (cluster, rc):
        balanced = rc.load_balanced_view()
        results = [balanced.apply_async(WORK.note, str(notes), f"b{n}", 0.02) for n in range(100)]
        eventually(lambda: sum(r.ready() for r in results) > 20, what="work goes on")
        kill_controller(cluster)
        records = Path(cluster.to_record().folders[0], "records.sqlite")
        for ending in ("-wal", ""):
            os.truncate(f"{records}{ending}", 10_000)
        cluster.restore_controller_sync()
        errors = [error for error in (result.exception(timeout=20) for result in results) if error is not None]
        assert all("its store has no record of it" in str(error) for error in errors)
        done = [result.get() for result in results if result.successful()]
        assert len(done) + len(errors) == 100
        assert set(counts(notes).values()) == {1}
        eventually(lambda: rc.ids == [0, 1])
        assert rc[:].apply_sync(os.getpid) is not None


def test_engines_leave_when_no_controller_comes_back(tmp_path: Path) -> None:
    environment = {"IPPMPI_AGENT_CONTROLLER_WAIT_S": "1"}
    with running(tmp_path / "profile", 2, "local", environment=environment) as (cluster, rc):
        pids = rc[:].apply_sync(os.getpid)
        kill_controller(cluster)
        eventually(lambda: not any(alive(pid) for pid in pids), timeout_s=8, what="the engines have left")


def test_without_a_store_unfinished_work_ends_with_an_error_and_the_engines_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPPMPI_CONTROLLER_STORE", "none")
    with running(tmp_path / "profile", 2, "local") as (cluster, rc):
        pids = rc[:].apply_sync(os.getpid)
        balanced = rc.load_balanced_view(targets=[0])
        first, *_, last = [balanced.apply_async(time.sleep, 0.5) for _ in range(6)]
        first.get(timeout=10)
        kill_controller(cluster)
        cluster.restore_controller_sync()
        assert "its store has no record of it" in str(last.exception(timeout=20))
        eventually(lambda: rc.ids == [0, 1], what="the engines are back")
        assert rc[:].apply_async(os.getpid).get(timeout=20) == pids
