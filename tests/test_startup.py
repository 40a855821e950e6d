"""Startup files and commands of engines, on real clusters."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

import ippmpi as ipp
from clusters import running
from ippmpi import config

pytestmark = pytest.mark.usefixtures("no_startup_of_ours")


@pytest.fixture
def no_startup_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONSTARTUP", raising=False)


def startup(profile: Path, **files: str) -> Path:
    folder = profile / "startup"
    folder.mkdir()
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder


@pytest.mark.mpi
def test_files_and_commands_have_run_before_an_engine_joins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # printing more than a pipe holds, and talking to the other ranks, is allowed
    code = "from mpi4py import MPI\nranks = MPI.COMM_WORLD.allgather(MPI.COMM_WORLD.rank)\nprint('x' * 200_000)"
    startup(tmp_path, a=code)
    (tmp_path / config.FILE_NAME).write_text('[engine]\nstartup_command = "b = [*ranks, 2]"\n')
    script = tmp_path / "script.py"
    script.write_text("c = 'script'")
    monkeypatch.setenv(config.variable(config.EngineSettings, "startup_script"), str(script))
    with running(tmp_path, 2) as (_, rc):
        assert rc[:].pull(["mpi_rank", "mpi_size", "MPI.COMM_WORLD.rank"]).get(10) == [[0, 2, 0], [1, 2, 1]]
        assert rc[:].pull(["b", "c"]).get(10) == [[[0, 1, 2], "script"]] * 2


def test_a_file_that_fails_is_a_warning_with_ranks_host_and_file(tmp_path: Path) -> None:
    folder = startup(tmp_path, a="kept = 1\nmissing_name", b="later = 2")
    what = (
        rf"at the start of ranks 0-2 on \S+: {folder}/a.py: NameError: name 'missing_name' is not defined; see \S+log"
    )
    with contextlib.ExitStack() as stack:
        with pytest.warns(RuntimeWarning, match=what):
            cluster, rc = stack.enter_context(running(tmp_path, 3, "local"))
        assert rc[:].pull(["kept", "later"]).get(10) == [[1, 2]] * 3
        output = cluster.engine_set.get_output() if cluster.engine_set else ""
        assert f'File "{folder}/a.py", line 2' in output


def test_engines_that_come_later_run_them_too(tmp_path: Path) -> None:
    startup(tmp_path, a="import os; a = os.getpid()")
    with running(tmp_path, 1, "local") as (cluster, rc):
        cluster.start_engines_sync(1)
        rc.wait_for_engines(2, timeout=30)
        assert rc[:].pull("a").get(10) == rc[:].apply(ipp.Reference("os.getpid")).get(10)
