"""Ctrl-C, signals and lost clients: the work ends, the world stays. One real cluster for all of it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import ippmpi as ipp
from clusters import defined, running, script
from helpers import eventually

pytestmark = pytest.mark.mpi

N = 4

WORK = defined("""
    import os, pathlib, time

    def sleep(folder):
        pathlib.Path(folder, str(os.getpid())).touch()
        time.sleep(60)

    def spin(folder):
        pathlib.Path(folder, str(os.getpid())).touch()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            pass

    def wait(folder, end):
        pathlib.Path(folder, str(os.getpid())).touch()
        while not os.path.exists(end):
            time.sleep(0.01)
        return "done"
""")

BLOCKED_CLIENT = """
    import os, pathlib, sys, time
    import ippmpi as ipp

    def sleep(folder):
        pathlib.Path(folder, str(os.getpid())).touch()
        time.sleep(60)

    rc = ipp.Client(profile_dir=sys.argv[1])
    rc.wait_for_engines(4, timeout=10)
    try:
        rc[0].apply_sync(sleep, sys.argv[2])
    except KeyboardInterrupt:
        print("interrupted")
"""


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("profile")


@pytest.fixture(scope="module")
def shared(profile: Path) -> Iterator[ipp.Client]:
    with running(profile, N) as (_, rc):
        yield rc


@pytest.fixture
def rc(shared: ipp.Client) -> Iterator[ipp.Client]:
    """Give a client of a world whose ranks are all free; see that they still are the same, and free, afterwards."""
    pids = shared[:].apply_async(os.getpid).get(timeout=10)
    yield shared
    assert shared[:].apply_async(os.getpid).get(timeout=10) == pids


def busy(folder: Path, ranks: int) -> bool:
    return len(list(folder.iterdir())) == ranks


@pytest.mark.parametrize("work", [WORK.sleep, WORK.spin], ids=["sleep", "loop"])
def test_sigint_interrupts_running_code_within_a_second(rc: ipp.Client, tmp_path: Path, work: object) -> None:
    result = rc[:].apply_async(work, str(tmp_path))
    eventually(lambda: busy(tmp_path, N), what="all ranks busy")
    sent = time.monotonic()
    rc.send_signal("SIGINT")
    with pytest.raises(ipp.RemoteError) as caught:
        result.get(timeout=10)
    assert time.monotonic() - sent < 1.0
    assert isinstance(caught.value, ipp.CompositeError)
    assert [error.ename for error in caught.value.errors] == ["KeyboardInterrupt"] * N


def test_sigint_to_idle_engines_does_nothing(rc: ipp.Client) -> None:
    for _ in range(5):
        rc.send_signal("SIGINT")
    assert rc[:].pull("6 * 7", block=True) == [42] * N


def test_sigint_to_one_engine_leaves_the_others_alone(rc: ipp.Client, tmp_path: Path) -> None:
    hit = rc[1].apply_async(WORK.sleep, str(tmp_path))
    spared = rc[2].apply_async(WORK.sleep, str(tmp_path))
    eventually(lambda: busy(tmp_path, 2), what="two ranks busy")
    rc.send_signal("SIGINT", 1)
    with pytest.raises(ipp.RemoteError, match="KeyboardInterrupt"):
        hit.get(timeout=5)
    assert not spared.ready()
    rc.send_signal("SIGINT", 2)
    with pytest.raises(ipp.RemoteError, match="KeyboardInterrupt"):
        spared.get(timeout=5)


def test_sigint_reaches_the_running_request_and_not_the_waiting_one(rc: ipp.Client, tmp_path: Path) -> None:
    running_one = rc[0].apply_async(WORK.sleep, str(tmp_path))
    waiting = rc[0].apply_async(os.getpid)
    eventually(lambda: busy(tmp_path, 1), what="a rank busy")
    rc.send_signal("SIGINT", 0)
    with pytest.raises(ipp.RemoteError, match="KeyboardInterrupt"):
        running_one.get(timeout=5)
    assert isinstance(waiting.get(timeout=5), int)


@pytest.mark.parametrize("work", [WORK.sleep, WORK.spin], ids=["sleeps", "computes"])
def test_cancel_interrupts_what_runs_drops_what_waits_and_leaves_world_and_data(
    rc: ipp.Client, tmp_path: Path, work: object
) -> None:
    rc[:].push({"kept": 42}, block=True)
    rc[:].execute("from mpi4py import MPI", block=True)
    runs = rc[:].apply_async(work, str(tmp_path))
    waits = rc[:].apply_async(WORK.sleep, str(tmp_path / "never"))
    stays = rc[:].pull("kept")
    eventually(lambda: busy(tmp_path, N))
    began = time.monotonic()
    assert waits.cancel()
    assert runs.cancel()
    assert stays.get(timeout=5) == [42] * N
    assert time.monotonic() - began < 1
    with pytest.raises(ipp.CompositeError) as caught:
        runs.get(timeout=1)
    assert [error.ename for error in caught.value.errors] == ["KeyboardInterrupt"] * N
    with pytest.raises(ipp.CompositeError) as caught:
        waits.get(timeout=1)
    assert all(isinstance(error, ipp.TaskAborted) for error in caught.value.errors)
    assert waits.status == ["aborted"] * N
    rc[:].execute("total = MPI.COMM_WORLD.allreduce(kept)", block=True)
    assert rc[:]["total"] == [42 * N] * N


def test_cancel_interrupts_code_that_is_executed(rc: ipp.Client, tmp_path: Path) -> None:
    code = f"import os, pathlib, time\npathlib.Path({str(tmp_path)!r}, str(os.getpid())).touch()\nwhile True: pass"
    result = rc[:].execute(code, silent=False)
    eventually(lambda: busy(tmp_path, N))
    began = time.monotonic()
    result.cancel()
    assert result.wait(5)
    assert time.monotonic() - began < 1
    assert {error.ename for error in result.error} == {"KeyboardInterrupt"}


def test_cancel_is_for_its_own_request_only(rc: ipp.Client, profile: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    end = tmp_path / "end"
    runs = rc[0].apply_async(WORK.wait, str(tmp_path / "a"), str(end))
    waits = rc[0].apply_async(WORK.sleep, str(tmp_path / "b"))
    with ipp.Client(profile_dir=str(profile)) as other:
        also = other[0].apply_async(os.getpid)
        eventually(lambda: busy(tmp_path / "a", 1))
        waits.cancel()
        with pytest.raises(ipp.TaskAborted):
            waits.get(timeout=1)
        assert not runs.done()
        end.touch()
        assert runs.get(timeout=5) == "done"
        assert also.get(timeout=5) == rc[0].apply_sync(os.getpid)


def test_balanced_tasks_are_cancelled_where_they_run_and_where_they_wait(rc: ipp.Client, tmp_path: Path) -> None:
    tasks = [rc.load_balanced_view().apply_async(WORK.spin, str(tmp_path)) for _ in range(3 * N)]
    eventually(lambda: busy(tmp_path, N))
    began = time.monotonic()
    for task in reversed(tasks):  # else those that wait would take the places of those that ran
        task.cancel()
    assert all(task.wait(5) for task in tasks)
    assert time.monotonic() - began < 1
    kinds = [task.exception().ename for task in tasks]  # type: ignore[union-attr] # a RemoteError
    assert sorted(kinds) == ["KeyboardInterrupt"] * N + ["TaskAborted"] * 2 * N


def test_what_is_aborted_raises(rc: ipp.Client, tmp_path: Path) -> None:
    end = tmp_path / "end"
    (tmp_path / "a").mkdir()
    runs = rc[0].apply_async(WORK.wait, str(tmp_path / "a"), str(end))
    waits = rc[0].apply_async(os.getpid)
    eventually(lambda: busy(tmp_path / "a", 1))
    waits.abort()
    with pytest.raises(ipp.TaskAborted):
        waits.get(timeout=5)
    end.touch()
    assert runs.get(timeout=5) == "done"


def test_ctrl_c_ends_a_blocking_call(rc: ipp.Client, profile: Path, tmp_path: Path) -> None:
    with script(BLOCKED_CLIENT, str(profile), str(tmp_path)) as client:
        eventually(lambda: busy(tmp_path, 1), what="the call runs")
        client.send_signal(signal.SIGINT)
        output, _ = client.communicate(timeout=5)
    assert output.strip().endswith("interrupted")
    assert client.returncode == 0
    rc.send_signal("SIGINT", 0)  # the call itself, if it goes on


def test_a_client_killed_in_mid_call_leaves_the_cluster_usable(rc: ipp.Client, profile: Path, tmp_path: Path) -> None:
    with script(BLOCKED_CLIENT, str(profile), str(tmp_path)) as client:
        eventually(lambda: busy(tmp_path, 1), what="the call runs")
        client.kill()
        assert client.wait(timeout=5) == -signal.SIGKILL
    assert rc[1:].apply_async(os.getpid).get(timeout=5)
    rc.send_signal("SIGINT", 0)


def test_a_time_limit_on_get_is_kept_while_a_rank_is_busy(rc: ipp.Client, tmp_path: Path) -> None:
    result = rc[3].apply_async(WORK.spin, str(tmp_path))
    eventually(lambda: busy(tmp_path, 1), what="a rank busy")
    with pytest.raises(TimeoutError):
        result.get(timeout=0.2)
    rc.send_signal("SIGINT", 3)
    with pytest.raises(ipp.RemoteError, match="KeyboardInterrupt"):
        result.get(timeout=5)


def test_a_client_that_waits_can_be_interrupted_again_and_again(profile: Path, rc: ipp.Client, tmp_path: Path) -> None:
    again = BLOCKED_CLIENT.replace('print("interrupted")', 'print("interrupted")\n        rc.send_signal("SIGINT", 0)')
    for round_number in range(2):
        folder = tmp_path / str(round_number)
        folder.mkdir()
        with script(again, str(profile), str(folder)) as client:
            eventually(lambda folder=folder: busy(folder, 1), what="the call runs")
            client.send_signal(signal.SIGINT)
            try:
                output, _ = client.communicate(timeout=5)
            except subprocess.TimeoutExpired:
                pytest.fail("the client did not end within 5 s of SIGINT")
        assert "interrupted" in output
    assert rc[0].apply_async(os.getpid).get(timeout=5)
