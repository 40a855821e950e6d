"""Clusters from start to end: launchers that fail say why, a normal stop leaves nothing, the commands work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import ippmpi as ipp
from clusters import running
from helpers import PROC, eventually

pytestmark = pytest.mark.mpi

LAUNCH_LIMIT_S = 2.0

MARK = "IPPMPI_TEST_CLUSTER"


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a word that the environment of everything we start will hold."""
    word = uuid.uuid4().hex
    monkeypatch.setenv(MARK, word)
    return word


def marked(word: str) -> dict[int, str]:
    """Return the processes whose environment holds the mark, but for this one."""
    found = {}
    for process in PROC.glob("[0-9]*"):
        try:
            ours = f"{MARK}={word}".encode() in (process / "environ").read_bytes().split(b"\0")
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if ours and int(process.name) != os.getpid():
            found[int(process.name)] = command
    return found


def traces() -> set[str]:
    """Return what a cluster may leave in memory and file systems, and its named sockets."""
    sockets = [line.split()[7] for line in (PROC / "net/unix").read_text().splitlines() if "ippmpi" in line]
    files = [*Path("/dev/shm").iterdir(), *Path("/tmp").glob("ippmpi-*")]
    return {*sockets, *map(str, files)}


# --- stopping ---


@pytest.mark.parametrize("engines", ["mpi", "local"])
def test_a_normal_stop_leaves_no_process_socket_segment_or_file(engines: str, tmp_path: Path, mark: str) -> None:
    before = traces()
    with running(tmp_path, 3, engines) as (_, rc):
        assert rc[:].apply_sync(len, "abc") == [3] * 3
        rc[:].push({"x": bytes(5_000_000)}, block=True)
        assert len(marked(mark)) >= 5, "controller, agent and three engines are seen by their mark"
        during = traces()
    eventually(lambda: not marked(mark), what="no process of the cluster is left")
    # what came during the run: others' clusters may come and go at the same time
    eventually(lambda: not traces() & (during - before), what="no file, socket or segment is left")
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file() and path.parent.name == "security") == []


def test_a_cluster_can_be_started_again_in_the_same_profile(tmp_path: Path) -> None:
    for _ in range(2):
        with running(tmp_path, 1, "local") as (_, rc):
            assert rc.ids == [0]


def test_local_engines_work_without_mpi(tmp_path: Path) -> None:
    with running(tmp_path, 3, "local") as (_, rc):
        pids = rc[:].apply_sync(os.getpid)
        assert len(set(pids)) == 3
        rc[:].scatter("part", list(range(7)), block=True)
        assert rc[:].gather("part", block=True) == list(range(7))
        assert rc.load_balanced_view().map_sync(abs, [-1, -2, -3]) == [1, 2, 3]


def test_more_ranks_than_cores_work(tmp_path: Path) -> None:
    n = 2 * (os.cpu_count() or 1) + 1
    with running(tmp_path, n, "mpi") as (_, rc):
        assert rc.ids == list(range(n))
        rc[:].execute("from mpi4py import MPI; total = MPI.COMM_WORLD.allreduce(1)", block=True)
        assert rc[:]["total"] == [n] * n


# --- launchers that fail ---


@pytest.fixture
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ipp.Cluster]:
    """Give a cluster with a controller whose mpiexec is the shell script of the test's parameter."""
    mpiexec = tmp_path / "mpiexec"
    mpiexec.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo HYDRA && exit\n{request.param}\n', encoding="ascii")
    mpiexec.chmod(0o755)
    cluster = ipp.Cluster(n=2, engines="mpi", mpiexec=str(mpiexec), profile_dir=str(tmp_path / "profile"))
    cluster.start_controller_sync()
    yield cluster
    cluster.stop_cluster_sync()


WORLDS_OF_ONE = 'n=$2; shift 2; for i in $(seq "$n"); do "$@" & done; wait'


@pytest.mark.parametrize(
    ("cluster", "cause", "output"),
    [
        ("echo There are not enough slots available in the system; exit 1", "no slots", "not enough slots"),
        ("echo something odd >&2; exit 9", "exit code 9", "something odd"),
        ("kill -SEGV $$", "SIGSEGV", ""),
        (WORLDS_OF_ONE, "worlds of size 1", ""),
    ],
    indirect=["cluster"],
    ids=["slots", "unknown", "crash", "worlds of one"],
)
def test_a_launcher_that_fails_says_so_within_two_seconds(cluster: ipp.Cluster, cause: str, output: str) -> None:
    started = time.monotonic()
    with pytest.raises(ipp.LaunchError) as caught:
        cluster.start_and_connect_sync()
    assert time.monotonic() - started < LAUNCH_LIMIT_S
    assert cause in str(caught.value)
    assert output in caught.value.output


def test_a_missing_mpiexec_is_said_with_what_to_do(tmp_path: Path, mark: str) -> None:
    cluster = ipp.Cluster(n=2, engines="mpi", mpiexec=str(tmp_path / "nowhere"), profile_dir=str(tmp_path))
    with pytest.raises(ipp.LaunchError, match=r"no mpiexec.*nowhere.*pip install mpich"):
        cluster.start_and_connect_sync()
    eventually(lambda: not marked(mark), what="the controller has ended, too")


# --- by hand ---


def command(name: str) -> str:
    """Return a command of the installed package."""
    path = Path(sys.executable).parent / name
    if not path.exists():
        pytest.skip(f"{path} is missing: pip install the package, a checkout on the path is not enough")
    return str(path)


def test_the_lines_of_the_readme_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: str) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    ipcluster = command("ipcluster")
    log = (tmp_path / "start.log").open("w", encoding="utf-8")
    with log, subprocess.Popen([ipcluster, "start", "--engines=MPI", "-n", "2"], stdout=log, stderr=log) as start:
        try:
            eventually(lambda: list(tmp_path.glob("profile_*/security/*-client.json")), what="a connection file")
            with ipp.Client(timeout=10) as rc:
                rc.wait_for_engines(2, timeout=20)
                assert rc[:].apply_sync(len, "ab") == [2, 2]
            listed = subprocess.run([ipcluster, "list", "-o", "json"], check=True, capture_output=True, timeout=20)
            assert len(json.loads(listed.stdout)) == 1
            status = subprocess.run([ipcluster, "status"], check=True, capture_output=True, text=True, timeout=20)
            assert [line.split()[:2] for line in status.stdout.splitlines()[1:]] == [["0", "0"], ["1", "1"]]
            subprocess.run([ipcluster, "stop"], check=True, timeout=20)
            assert start.wait(timeout=20) == 0, (tmp_path / "start.log").read_text(encoding="utf-8")
        finally:
            start.kill()
    eventually(lambda: not marked(mark), what="no process of the cluster is left")


def test_magics_run_lines_and_cells_on_all_ranks(tmp_path: Path) -> None:
    session = tmp_path / "session.ipy"
    session.write_text(
        "import sys, ippmpi as ipp\n"
        "rc = ipp.Client(profile_dir=sys.argv[1])\n"
        "rc.wait_for_engines(2, timeout=10)\n"
        "%px a = 40\n"
        "get_ipython().run_cell_magic('px', '', 'from mpi4py import MPI\\nprint(\"sum\", a + MPI.COMM_WORLD.size)')\n",
        encoding="utf-8",
    )
    with running(tmp_path / "profile", 2, "mpi"):
        done = subprocess.run(
            [sys.executable, "-P", "-m", "IPython", "--no-banner", str(session), str(tmp_path / "profile")],
            env={**os.environ, "IPYTHONDIR": str(tmp_path / "ipython")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    assert "[0-1] sum 42" in done.stdout or done.stdout.count("sum 42") == 2, done.stdout + done.stderr
