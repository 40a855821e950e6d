"""Large arrays between real processes of one host, while one of them is killed."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import ippmpi as ipp
from clusters import defined, running, script
from helpers import PROC, eventually
from ippmpi.client.contents import BlobSource, BufferSink

SIZE = 48 * 1024 * 1024

WORK = defined("""
    def describe(array):
        array[0] = 7  # its own
        return int(array.sum()), array.nbytes

    def make(size):
        import numpy
        return numpy.full(size, 5, dtype=numpy.uint8)
""")

PUSHER = """
import sys
import numpy as np
import ippmpi as ipp

rc = ipp.Client(profile_dir=sys.argv[1], cluster_id="")
array = np.ones(int(sys.argv[2]), dtype=np.uint8)
print("ready", flush=True)
while True:
    rc[0].push({"a": array}, block=True)
    rc[0].pull("a", block=True)
    print("once", flush=True)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ipp.Cluster, ipp.Client, Path]]:
    monkeypatch.setenv("IPPMPI_CONTROLLER_UPLOAD_GONE_S", "1")
    with running(tmp_path / "profile", 2, "local") as (cluster, rc):
        yield cluster, rc, Path(cluster.to_record().folders[0]) / "spool"


def spooled(spool: Path) -> list[str]:
    return [path.name for path in spool.iterdir()]


def own_files(spool: Path) -> list[str]:
    """Return by what paths this process has files without a name open."""
    found = []
    for path in (PROC / "self" / "fd").iterdir():
        with suppress(OSError):
            if str(spool.parent) in os.readlink(path):
                found.append(str(path))
    return found


def handed_files(spool: Path) -> set[str]:
    """Return which files without a name, of the controller's folder, any process has open."""
    found = set()
    for link in PROC.glob("[0-9]*/fd/*"):
        try:
            target = os.readlink(link)
        except OSError:
            continue
        if target.startswith(str(spool.parent)) and "deleted" in target:
            found.add(target)
    return found


def test_arrays_go_there_and_back_as_files_and_nothing_stays(
    place: tuple[ipp.Cluster, ipp.Client, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, rc, spool = place
    by_socket: list[int] = []
    monkeypatch.setattr(BlobSource, "read", lambda _, start, stop: by_socket.append(stop - start))
    monkeypatch.setattr(BufferSink, "write", lambda _, offset, data: by_socket.append(len(data)))
    array = np.ones(SIZE, dtype=np.uint8)
    total = int(array.sum()) + 6
    assert rc[0].apply_sync(WORK.describe, array) == (total, SIZE)
    assert rc[:].apply_sync(WORK.describe, array) == [(total, SIZE)] * 2
    assert rc.load_balanced_view().apply_sync(WORK.describe, array) == (total, SIZE)
    assert array[0] == 1
    for back in rc[:].apply_sync(WORK.make, SIZE):
        back[0] = 1
        assert int(back.sum()) == 5 * SIZE - 4
    assert not by_socket
    eventually(lambda: not spooled(spool), what="the spool is empty")
    eventually(lambda: not handed_files(spool), what="all files are closed")


def test_a_call_that_does_not_wait_writes_nothing_itself(place: tuple[ipp.Cluster, ipp.Client, Path]) -> None:
    cluster, rc, spool = place
    assert cluster.controller is not None
    controller = cluster.controller.identity.pid
    os.kill(controller, signal.SIGSTOP)
    try:
        results = [rc[i % 2].apply_async(WORK.describe, np.full(SIZE, i, dtype=np.uint8)) for i in range(4)]
        eventually(lambda: len(handed_files(spool)) == 4, what="the files are there")
        assert all(os.stat(path).st_size == 0 for path in own_files(spool)), "before anybody wants the bytes"
    finally:
        os.kill(controller, signal.SIGCONT)
    assert [result.get(timeout=60) for result in results] == [(SIZE * i + 7 - i, SIZE) for i in range(4)]
    eventually(lambda: not handed_files(spool), what="all files are closed")


def agent_of(cluster: ipp.Cluster) -> int:
    """Return the process of the one agent."""
    folder = str(cluster.profile_dir).encode()
    for path in PROC.glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if b"ippmpi.agent" in (words := path.read_bytes().split(b"\0")) and any(folder in word for word in words):
                return int(path.parent.name)
    raise LookupError("no agent runs")


def forget_peak(pid: int) -> None:
    (PROC / str(pid) / "clear_refs").write_text("5")


def peak_mb(pid: int) -> float:
    """Return the largest resident size since ``forget_peak``."""
    (line,) = (line for line in (PROC / str(pid) / "status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


@pytest.mark.parametrize("link", ["unix", "tcp"])
def test_neither_controller_nor_agent_grows_with_what_passes_through_them(
    place: tuple[ipp.Cluster, ipp.Client, Path], link: str
) -> None:
    cluster, _, _ = place
    assert cluster.controller is not None
    connection = json.loads((Path(cluster.profile_dir) / "security" / "ipcontroller-client.json").read_text())
    with ipp.Client(connection | ({"socket": ""} if link == "tcp" else {})) as rc:
        array = np.ones(8 * SIZE, dtype=np.uint8)
        rc[:].push({"a": array[:SIZE]}, block=True)
        pids = [cluster.controller.identity.pid, agent_of(cluster)]
        for pid in pids:
            forget_peak(pid)
        before = [peak_mb(pid) for pid in pids]
        rc[:].push({"a": array}, block=True)
        assert rc[0].pull("a", block=True).nbytes == 8 * SIZE
        for pid, was in zip(pids, before, strict=True):
            assert peak_mb(pid) - was < 50  # of 384


@pytest.mark.parametrize("delay_s", [0.0, 0.01, 0.03, 0.06])
def test_a_client_that_is_killed_in_the_middle_leaves_nothing(
    place: tuple[ipp.Cluster, ipp.Client, Path], tmp_path: Path, delay_s: float
) -> None:
    _, rc, spool = place
    with script(PUSHER, str(tmp_path / "profile"), str(SIZE)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert process.stdout.readline() == "once\n"
        time.sleep(delay_s)  # spreads the moments; nothing is waited for
        process.kill()
    assert rc[0].apply_sync(WORK.describe, np.ones(SIZE, dtype=np.uint8)) == (SIZE + 6, SIZE)
    # a result that nobody took may be kept for others; the request's content may not
    eventually(lambda: len(spooled(spool)) <= 1, what="the spool has at most the value of the dead client")


@pytest.mark.parametrize("delay_s", [0.0, 0.02, 0.05])
def test_an_engine_that_is_killed_in_the_middle_ends_its_tasks_and_leaves_nothing(
    place: tuple[ipp.Cluster, ipp.Client, Path], delay_s: float
) -> None:
    _, rc, spool = place
    pid = rc[1].apply_sync(os.getpid)
    there = rc[1].apply_async(WORK.describe, np.ones(SIZE, dtype=np.uint8))
    back = rc[1].apply_async(WORK.make, SIZE)
    time.sleep(delay_s)  # spreads the moments; nothing is waited for
    os.kill(pid, signal.SIGKILL)
    for result in (there, back):
        error = result.exception(timeout=20)
        assert error is None or isinstance(error, ipp.EngineError)
    assert rc[0].apply_sync(WORK.describe, np.ones(SIZE, dtype=np.uint8)) == (SIZE + 6, SIZE)
    eventually(lambda: not spooled(spool), what="the spool is empty")
    eventually(lambda: not handed_files(spool), what="all files are closed")
