"""The first failure of a call on many ranks of MPI: told while the others are still at work, and cleanly left."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import ippmpi as ipp
from clusters import defined, running, script
from helpers import eventually
from ippmpi.client import firsterror


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("profile")


@pytest.fixture(scope="module")
def rc(folder: Path) -> Iterator[ipp.Client]:
    with running(folder, 4) as (_, rc):
        yield rc


MAIN = defined("""
    def fail_on_2(folder):
        import os, time
        from mpi4py import MPI
        rank = MPI.COMM_WORLD.rank
        if rank == 2:
            while not os.path.exists(os.path.join(folder, "fail")):
                time.sleep(0.001)
            open(os.path.join(folder, "failed"), "w").close()
            raise ValueError(f"rank {rank} has no number")
        while not os.path.exists(os.path.join(folder, "end")):
            time.sleep(0.01)
        return rank
""")


HOLDING = defined("""
    def fail_on_2(folder):
        import ctypes, os, time
        from mpi4py import MPI
        rank = MPI.COMM_WORLD.rank
        if rank == 2:
            while not os.path.exists(os.path.join(folder, "fail")):
                time.sleep(0.001)
            open(os.path.join(folder, "failed"), "w").close()
            raise ValueError(f"rank {rank} has no number")
        while not os.path.exists(os.path.join(folder, "end")):
            ctypes.PyDLL(None).usleep(100_000)  # with the GIL
        return rank
""")


@pytest.mark.parametrize("gil", [False, True], ids=["", "others hold the gil"])
def test_the_first_failure_is_told_within_a_second_while_other_ranks_go_on(
    rc: ipp.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gil: bool
) -> None:
    said: list[tuple[float, str]] = []
    monkeypatch.setattr(firsterror, "say", lambda text: said.append((time.monotonic(), text)))
    caught: list[BaseException] = []

    def call() -> None:
        try:
            rc[:].apply_sync(HOLDING.fail_on_2 if gil else MAIN.fail_on_2, str(tmp_path))
        except Exception as error:
            caught.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    (tmp_path / "fail").touch()
    eventually((tmp_path / "failed").exists)
    began = time.monotonic()
    eventually(lambda: said)
    assert said[0][0] - began < 1
    assert not caught
    assert "ValueError: rank 2 has no number" in said[0][1]
    assert said[0][1].endswith("Not answered yet: engines 0-1, 3. Ctrl-C stops waiting.")
    (tmp_path / "end").touch()
    thread.join(10)
    (error,) = caught
    assert isinstance(error, ipp.CompositeError)
    assert isinstance(error.errors[0], ValueError)
    assert said[1][1] == "All have answered: 1 of 4 failed."


SCRIPT = """
    import sys
    import ippmpi as ipp

    def fail_on_2(folder):
        import os, time
        from mpi4py import MPI
        if MPI.COMM_WORLD.rank == 2:
            raise ValueError("rank 2 has no number")
        while not os.path.exists(os.path.join(folder, "end")):
            time.sleep(0.01)

    with ipp.Client(profile_dir=sys.argv[1]) as rc:
        print("begins")
        try:
            rc[:].apply_sync(fail_on_2, sys.argv[2])
        except KeyboardInterrupt:
            print("left")
            rc.get_result().cancel()
            print("engines can be used again:", rc[:].apply_sync(abs, -1))
"""


def test_a_script_prints_it_on_stderr_and_ctrl_c_leaves_cleanly(rc: ipp.Client, folder: Path, tmp_path: Path) -> None:
    assert len(rc) == 4
    with script(SCRIPT, str(folder), str(tmp_path)) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line.rstrip())
            if line.startswith("Not answered yet"):
                break
        assert lines[:2] == ["begins", "fail_on_2 has failed, others go on:"]
        assert lines[-2:] == [
            "ValueError: rank 2 has no number",
            "Not answered yet: engines 0-1, 3. Ctrl-C stops waiting.",
        ]
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read().splitlines()
        assert rest[0].startswith("Stopped waiting; what is not answered goes on (engines 0-1, 3). client.get_result('")
        assert rest[1:] == ["left", "engines can be used again: [1, 1, 1, 1]"]
        assert process.wait(10) == 0
