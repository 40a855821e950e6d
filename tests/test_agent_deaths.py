"""An agent that is killed is replaced: no work is lost, nothing runs twice, engines stay, output goes on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import ippmpi as ipp
from clusters import defined, running
from helpers import PROC, alive, eventually

pytestmark = pytest.mark.mpi

WORK = defined("""
    def count(folder, name):
        import os, pathlib, time
        time.sleep(0.002)
        with open(pathlib.Path(folder, name), "ab") as file:
            file.write(b"%d\\n" % os.getpid())
        return name

    def talk(n):
        import time
        for number in range(n):
            print("line", number, flush=True)
            time.sleep(0.005)
        return n

    def make(n):
        import numpy
        return numpy.arange(n)

    def fail(folder, name):
        import pathlib, time
        with open(pathlib.Path(folder, name), "ab") as file:
            file.write(b"run\\n")
        print(name, "begins")
        time.sleep(0.002)
        print(name, "ends")
        raise ValueError(name)

    def nap(seconds):
        import time
        time.sleep(seconds)
        return seconds
""")


@pytest.fixture(params=["mpi", "local"])
def rc(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ipp.Client]:
    with running(tmp_path / "profile", 2, request.param) as (_, rc):
        yield rc


def agents(profile: Path) -> list[int]:
    """Return the pids of the agents of the cluster in the profile folder."""
    found = []
    for folder in PROC.glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if "ippmpi.agent" in command and any(part.startswith(str(profile)) for part in command):
            found.append(int(folder.name))
    return [pid for pid in found if alive(pid)]


def kill_agent(profile: Path) -> int:
    """Kill the one agent; return its pid."""
    (pid,) = eventually(lambda: agents(profile))
    os.kill(pid, signal.SIGKILL)
    return pid


def replaced(profile: Path, dead: int) -> None:
    """Wait until there is another one."""
    eventually(lambda: (found := agents(profile)) and dead not in found, what="a new agent")
    assert len(agents(profile)) == 1


def test_running_and_waiting_tasks_run_once_while_agents_are_killed(rc: ipp.Client, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    pids, ids = rc[:].apply_sync(os.getpid), rc.ids
    direct, balanced = rc[:], rc.load_balanced_view()
    results = {}
    for number in range(300):
        results[f"d{number}"] = rc[number % 2].apply_async(WORK.count, str(folder), f"d{number}")
        results[f"b{number}"] = balanced.apply_async(WORK.count, str(folder), f"b{number}")
        if number % 100 == 50:
            eventually(lambda: any(folder.iterdir()))
            replaced(tmp_path, kill_agent(tmp_path))
    assert {name: result.get(timeout=30) for name, result in results.items()} == {name: name for name in results}
    assert {path.name: len(path.read_text().split()) for path in folder.iterdir()} == dict.fromkeys(results, 1)
    assert (rc.ids, direct.apply_sync(os.getpid)) == (ids, pids)


def test_attempts_that_have_failed_do_not_run_again_when_an_agent_is_killed(rc: ipp.Client, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    balanced = rc.load_balanced_view(targets=[0])
    balanced.retries = 3
    for number in range(5):
        with pytest.raises(ValueError, match=str(number)):
            balanced.apply_sync(WORK.fail, str(folder), str(number))
        dead = kill_agent(tmp_path)  # the controller has not heard that the engine has got them
        later = [rc[0].apply_async(print, f"later {n}") for n in range(3)]
        for n, result in enumerate(later):
            result.get(timeout=20)
            eventually(lambda result=result, n=n: result.stdout == f"later {n}\n", what="its own output")
        replaced(tmp_path, dead)
    assert {path.name: path.read_text().count("run") for path in folder.iterdir()} == {str(n): 4 for n in range(5)}


def test_a_task_that_runs_goes_on_and_its_output_too(rc: ipp.Client, tmp_path: Path) -> None:
    results = [rc[i].apply_async(WORK.talk, 100) for i in (0, 1)]
    for result in results:
        eventually(lambda result=result: "line 5\n" in result.stdout)
    replaced(tmp_path, kill_agent(tmp_path))
    assert [result.get(timeout=20) for result in results] == [100, 100]
    lines = [f"line {number}" for number in range(100)]
    for result in results:
        eventually(lambda result=result: result.stdout.splitlines() == lines, what="every line once")


@pytest.mark.parametrize("delay_s", [0.0, 0.01, 0.03, 0.06, 0.1])
def test_a_large_push_arrives(rc: ipp.Client, tmp_path: Path, delay_s: float) -> None:
    array = np.arange(8_000_000)
    rc[:].apply_sync(WORK.nap, 0)
    push = rc[:].push({"a": array}, block=False)
    after = rc[:].pull(["int(a.sum())", "a.nbytes"], block=False)
    time.sleep(delay_s)  # spreads the moments; nothing is waited for
    dead = kill_agent(tmp_path)
    push.get(timeout=30)
    assert after.get(timeout=30) == [[int(array.sum()), array.nbytes]] * 2
    replaced(tmp_path, dead)


@pytest.mark.parametrize("delay_s", [0.0, 0.03, 0.06, 0.1])
def test_a_large_result_arrives(rc: ipp.Client, tmp_path: Path, delay_s: float) -> None:
    rc[:].apply_sync(WORK.nap, 0)
    result = rc[:].apply_async(WORK.make, 8_000_000)
    time.sleep(0.05 + delay_s)  # spreads the moments; nothing is waited for
    dead = kill_agent(tmp_path)
    for array in result.get(timeout=30):
        assert int(array.sum()) == sum(range(8_000_000))
    replaced(tmp_path, dead)


def test_an_idle_cluster_gets_a_new_agent_and_ends_well(rc: ipp.Client, tmp_path: Path) -> None:
    pids = rc[:].apply_sync(os.getpid)
    for _ in range(3):
        replaced(tmp_path, kill_agent(tmp_path))
        assert rc[:].apply_sync(os.getpid) == pids


def test_a_rank_that_dies_while_there_is_no_agent_is_lost(tmp_path: Path) -> None:
    with running(tmp_path / "profile", 2, "local") as (_, rc):
        pids = rc[:].apply_sync(os.getpid)
        result = rc[1].apply_async(WORK.nap, 60)
        kill_agent(tmp_path)
        os.kill(pids[1], signal.SIGKILL)
        with pytest.raises(ipp.EngineError, match="when its node got a new agent"):
            result.get(timeout=10)
        assert rc.ids == [0]
        assert rc[0].apply_sync(os.getpid) == pids[0]
