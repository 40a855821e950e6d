"""Ranks that die: whoever waits hears of it within two seconds, with rank, host, process and cause."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import ippmpi as ipp
from cgroups import memory_group
from chaos.harm import agents, engines
from clusters import defined, running
from helpers import alive, eventually

pytestmark = pytest.mark.mpi

LIMIT_S = 2.0

DYING = defined("""
    def leave():
        import os
        os._exit(7)

    def crash():
        import ctypes
        ctypes.string_at(0)

    def abort():
        import os
        os.abort()

    def eat(size):
        block = bytearray(size)
        for start in range(0, size, 4096):
            block[start] = 1
        return len(block)

    def sleep(folder):
        import os, pathlib, time
        pathlib.Path(folder, str(os.getpid())).touch()
        time.sleep(60)
""")


@pytest.fixture(params=["mpi", "local"])
def rc(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ipp.Client]:
    with running(tmp_path / "profile", 2, request.param) as (_, rc):
        yield rc


def lost(result: ipp.AsyncResult) -> ipp.RemoteError:
    """Wait for the error of a task whose engine died; fail if it comes late."""
    started = time.monotonic()
    with pytest.raises(ipp.EngineError) as caught:
        result.get(timeout=10)
    assert time.monotonic() - started < LIMIT_S
    assert isinstance(caught.value, ipp.RemoteError)
    return caught.value


def assert_tells(error: ipp.RemoteError, pid: int, cause: str) -> None:
    text = str(error)
    for word in ("rank 1", os.uname().nodename, str(pid), cause):
        assert word in text, f"{word!r} is not in {text!r}"
    assert error.engine_info["rank"] == 1
    assert error.engine_info["pid"] == pid


@pytest.mark.parametrize(
    ("function", "cause"),
    [(DYING.leave, "code 7"), (DYING.crash, "SIGSEGV"), (DYING.abort, "SIGABRT")],
    ids=["_exit", "segfault", "abort"],
)
def test_a_task_that_ends_its_process_is_told_apart(rc: ipp.Client, function: object, cause: str) -> None:
    pid = rc[1].apply_sync(os.getpid)
    assert_tells(lost(rc[1].apply_async(function)), pid, cause)


def test_a_killed_rank_fails_its_running_and_its_waiting_tasks(rc: ipp.Client, tmp_path: Path) -> None:
    folder = tmp_path / "busy"
    folder.mkdir()
    pid = rc[1].apply_sync(os.getpid)
    first, second = rc[1].apply_async(DYING.sleep, str(folder)), rc[1].apply_async(os.getpid)
    eventually(lambda: any(folder.iterdir()), what="the task runs")
    os.kill(pid, signal.SIGKILL)
    assert_tells(lost(first), pid, "SIGKILL")
    assert_tells(lost(second), pid, "SIGKILL")
    eventually(lambda: not alive(pid))


def test_a_task_of_a_killed_rank_is_retried_on_another(tmp_path: Path) -> None:
    with running(tmp_path / "profile", 2, "local") as (_, rc):
        victim = rc[1].apply_sync(os.getpid)
        survivor = rc[0].apply_sync(os.getpid)
        once = defined(f"""
            def once():
                import os, signal
                if os.getpid() == {victim}:
                    os.kill({victim}, signal.SIGKILL)
                return os.getpid()
        """).once
        balanced = rc.load_balanced_view()
        with balanced.temp_flags(retries=1):
            results = [balanced.apply_async(once) for _ in range(6)]
        assert [result.get(timeout=10) for result in results] == [survivor] * 6
        assert rc.ids == [0]


def test_the_death_of_one_rank_ends_its_world(tmp_path: Path) -> None:
    with running(tmp_path / "profile", 2, "mpi") as (_, rc):
        pids = rc[:].apply_sync(os.getpid)
        os.kill(pids[1], signal.SIGKILL)
        eventually(lambda: not any(alive(pid) for pid in pids), timeout_s=5, what="all ranks have ended")
        eventually(lambda: rc.ids == [], timeout_s=5, what="no engines are left")
        with pytest.raises(ipp.NoEnginesRegistered):
            rc[:].apply_sync(os.getpid)


def test_a_rank_that_the_kernel_kills_for_lack_of_memory_says_so(tmp_path: Path) -> None:
    cluster = ipp.Cluster(n=2, engines="local", profile_dir=str(tmp_path / "profile"), cluster_id="")
    try:
        cluster.start_controller_sync()
        with memory_group() as group:
            with group.entered():
                rc = cluster.start_and_connect_sync()
            pid = rc[1].apply_sync(os.getpid)
            group.limit(group.used() + (64 << 20))
            assert_tells(lost(rc[1].apply_async(DYING.eat, 1 << 30)), pid, "out of memory")
            assert rc[0].apply_sync(abs, -1) == 1
            cluster.stop_cluster_sync()
            group.wait_empty()
    finally:
        cluster.stop_cluster_sync()


def test_a_killed_mpiexec_ends_its_world_and_no_other(tmp_path: Path) -> None:
    with running(tmp_path / "profile", 2, "mpi") as (cluster, rc):
        other = cluster.start_engines_sync(1, engines="local")
        cluster.wait_for_engines_sync(rc, 3)
        survivor = rc[2].apply_sync(os.getpid)
        pids = rc[:2].apply_sync(os.getpid)
        result = rc[1].apply_async(time.sleep, 60)
        untouched = rc[2].apply_async(time.sleep, 1)
        (mpiexec,) = cluster.engines["0"].processes
        mpiexec.signal(signal.SIGKILL)
        error = lost(result)
        assert error.engine_info["rank"] == 1
        assert re.search(r"SIG[A-Z]+|killed together with its parent: .*mpiexec", str(error))
        eventually(lambda: not any(alive(pid) for pid in pids), timeout_s=5, what="all its ranks have ended")
        eventually(lambda: rc.ids == [2], timeout_s=5)
        assert untouched.get(timeout=10) is None
        assert rc[2].apply_sync(os.getpid) == survivor
        assert other == "1"


def test_a_killed_world_leaves_no_shared_memory(tmp_path: Path) -> None:
    before = set(os.listdir("/dev/shm"))
    with running(tmp_path / "profile", 2, "mpi") as (_, rc):
        for pid in rc[:].apply_sync(os.getpid):
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: rc.ids == [], timeout_s=5)
        eventually(lambda: set(os.listdir("/dev/shm")) <= before, timeout_s=5, what="its segments are gone")


def test_a_world_that_is_killed_with_its_agent_leaves_no_shared_memory(tmp_path: Path) -> None:
    before = set(os.listdir("/dev/shm"))
    with running(tmp_path / "profile", 2, "mpi") as (_, rc):
        victims = [*agents(tmp_path / "profile"), *rc[:].apply_sync(os.getpid)]
        for pid in victims:
            os.kill(pid, signal.SIGSTOP)  # or one would see the others die
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: not any(alive(pid) for pid in victims))
    assert set(os.listdir("/dev/shm")) <= before


@pytest.mark.parametrize("agent_too", [False, True], ids=["agent lives", "agent killed"])
def test_a_world_that_is_killed_before_its_ranks_have_joined_leaves_no_shared_memory(
    tmp_path: Path, agent_too: bool
) -> None:
    before = set(os.listdir("/dev/shm"))
    profile = tmp_path / "profile"
    with running(profile, 1, "local") as (cluster, _):
        cluster.start_engines_sync(2, engines="mpi")
        deadline = time.monotonic() + 20
        while not (made := set(os.listdir("/dev/shm")) - before) and time.monotonic() < deadline:
            pass  # no pause: the ranks join in a moment
        for pid in (pid for world in engines(profile).values() for pid in world if len(world) > 1):
            os.kill(pid, signal.SIGKILL)
        if agent_too:
            for pid in agents(profile):
                os.kill(pid, signal.SIGKILL)
        assert made
    eventually(lambda: set(os.listdir("/dev/shm")) <= before, what=f"{made} is removed")


@pytest.mark.parametrize("engines", ["mpi", "local"])
def test_a_killed_rank_is_named_every_time(tmp_path: Path, engines: str) -> None:
    with running(tmp_path / "profile", 2, engines, restart="always") as (_, rc):
        for _ in range(3):
            pid = eventually(lambda: rc.ids == [0, 1] and rc[1].apply_sync(os.getpid), 20)
            result = rc[1].apply_async(time.sleep, 60)
            os.kill(pid, signal.SIGKILL)
            assert_tells(lost(result), pid, "SIGKILL")
            eventually(lambda pid=pid: rc.ids == [0, 1] and pid not in rc[:].apply_sync(os.getpid), 20)
