from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from ippmpi.launchers import _mpiexec
from ippmpi.launchers.mpi import Mpi, find_mpiexec

from ippmpi.errors import LaunchError
from ippmpi.launching import JobSpec

VERSIONS = {
    "mpich": "HYDRA build details:\n    Version:   4.3.2\n    Process Manager:  pmi\n",
    "intel": "Intel(R) MPI Library for Linux* OS, Version 2021.18 Build 20260327\nbased on HYDRA\n",
    "openmpi": "mpiexec (Open MPI) 5.0.11\n\nReport bugs to https://www.open-mpi.org/community/help/\n",
    "": "mpiexec of somebody 1.0\n",
}
OLD_OPENMPI = "mpiexec (OpenRTE) 4.1.4\n\nReport bugs to http://www.open-mpi.org/community/help/\n"


def spec(**changes: object) -> JobSpec:
    fields = {"n": 4, "world": "w", "program": ("engine",), "log_file": "/l", "work_dir": "/", "starter": "/m/mpiexec"}
    return JobSpec(**(fields | changes))  # type: ignore[arg-type]


def command(**changes: object) -> str:
    made = spec(**changes)
    (argv,) = Mpi(made).argv(made)
    return " ".join(argv)


# --- the command ---


@pytest.mark.parametrize(
    ("dialect", "options"),
    [
        ("mpich", "-n 4"),
        ("intel", "-n 4"),
        ("openmpi", "--oversubscribe --bind-to none -n 4"),
        ("", "-n 4"),
    ],
)
def test_each_mpiexec_gets_the_options_it_needs(dialect: str, options: str) -> None:
    assert command(dialect=dialect) == f"/m/mpiexec {options} engine"


@pytest.mark.parametrize(
    ("dialect", "options"),
    [
        ("mpich", "-launcher ssh -hosts c1:2,c2:2 -n 4"),
        ("intel", "-launcher ssh -hosts c1:2,c2:2 -n 4"),
        ("openmpi", "--host c1:2,c2:2 --bind-to none -x EXTRA -n 4"),
    ],
)
def test_hosts_and_their_ranks_are_passed_on(dialect: str, options: str) -> None:
    made = command(dialect=dialect, hosts=("c1:2", "c2:2"), environment={"EXTRA": "1"})
    assert made == f"/m/mpiexec {options} engine"


def test_extra_options_come_just_before_the_program() -> None:
    assert command(dialect="mpich", extra=("-prepend-rank",)) == "/m/mpiexec -n 4 -prepend-rank engine"


def test_only_ranks_on_named_hosts_are_remote() -> None:
    assert Mpi.remote(["c1"])
    assert not Mpi.remote([])


# --- recognising ---


@pytest.mark.parametrize(("name", "text"), [*VERSIONS.items(), ("openmpi", OLD_OPENMPI)])
def test_an_mpiexec_is_recognised_by_its_version_text(name: str, text: str) -> None:
    assert _mpiexec.recognise(text).name == name


def program(folder: Path, text: str) -> Path:
    file = folder / "mpiexec"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return file


@pytest.mark.parametrize("name", VERSIONS)
def test_prepare_asks_the_program_itself(tmp_path: Path, name: str) -> None:
    file = program(tmp_path, f"cat <<'END'\n{VERSIONS[name]}END")
    made = Mpi(spec()).prepare(spec(starter=str(file)))
    assert (made.starter, made.dialect) == (str(file), name)
    allows_root = "OMPI_ALLOW_RUN_AS_ROOT" in made.environment
    assert allows_root == (name == "openmpi" and os.getuid() == 0)


def test_the_users_own_environment_wins(tmp_path: Path) -> None:
    file = program(tmp_path, f"cat <<'END'\n{VERSIONS['openmpi']}END")
    made = Mpi(spec()).prepare(spec(starter=str(file), environment={"OMPI_ALLOW_RUN_AS_ROOT": "0"}))
    assert made.environment["OMPI_ALLOW_RUN_AS_ROOT"] == "0"


# --- finding ---


def test_the_mpiexec_of_this_python_is_preferred_to_that_of_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("python", "path"):
        (tmp_path / name).mkdir()
    other = program(tmp_path / "path", "")
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python" / "python3"))
    assert find_mpiexec() == str(other)
    beside = program(tmp_path / "python", "")
    assert find_mpiexec() == str(beside)
    assert find_mpiexec(str(other)) == str(other)


def test_without_any_the_error_says_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python3"))
    with pytest.raises(LaunchError, match=f"looked for {tmp_path}/mpiexec and mpiexec in PATH.*pip install mpich"):
        Mpi(spec(starter="")).start()
    with pytest.raises(LaunchError, match=r"looked for /not/there\."):
        Mpi(spec(starter="/not/there")).start()


# --- explaining ---


@pytest.mark.parametrize(
    ("output", "cause"),
    [
        ("There are not enough slots available in the system to satisfy the 4\nslots", "no slots"),
        ("prterun has detected an attempt to run as root.\n", "root refused"),
        ("mpirun has detected an attempt to\nrun as root.\n", "root refused"),
        ("[proxy:0@vm] HYDU_create_process (): execvp error on file x (No such file)", "program not found"),
        ("mpiexec was unable to launch the specified application as it could not\nfind an executable:", "program not"),
        ("  Runtime environment uses unsupported PMI version PMIx. Aborting.", "MPI mismatch"),
        ("RuntimeError: cannot load MPI library\nlibmpi.so.12: cannot open", "mpi4py finds no MPI library"),
        ("ModuleNotFoundError: No module named 'mpi4py'", "this Python has no mpi4py"),
        ("ssh: Could not resolve hostname c9: Name or service not known", "ssh to a host failed"),
        ("root@c1: Permission denied (publickey,password).", "ssh to a host failed"),
        (
            "noise\nippmpi-engine: error: 4 worlds of size 1\nippmpi-engine: error: 4 worlds of size 1",
            "4 worlds of size",
        ),
        ("something else", ""),
    ],
)
def test_known_causes_are_recognised_in_the_output(output: str, cause: str) -> None:
    said = Mpi(spec(dialect="mpich")).cause(output)
    assert said.startswith(cause)
    assert bool(said) == bool(cause)
    assert said == "" or said.endswith("(MPICH, /m/mpiexec)")


# --- the real one ---


CODE = "from mpi4py import MPI; import os; os.write(1, b'size %d\\n' % MPI.COMM_WORLD.size)"


def real(folder: Path, python: Path, starter: str = "", **changes: object) -> Mpi:
    program = (str(python), "-c", CODE)
    places = {"log_file": str(folder / "log"), "work_dir": str(folder)}
    return Mpi(spec(**({"starter": starter, "n": 3, "program": program} | places | changes)))


@pytest.mark.mpi
def test_the_real_mpiexec_starts_one_world(tmp_path: Path) -> None:
    launcher = real(tmp_path, Path(sys.executable))
    launcher.start()
    assert launcher.wait(30)
    assert launcher.poll() == 0, launcher.get_output()
    assert launcher.get_output().count("size 3") == 3


@pytest.mark.mpi
def test_the_real_mpiexec_tells_that_a_program_is_missing(tmp_path: Path) -> None:
    launcher = real(tmp_path, Path("/not/there"))
    launcher.start()
    assert launcher.wait(30)
    assert "program not found" in str(launcher.failure())


@pytest.mark.openmpi
def test_open_mpi_starts_one_world_also_as_root_and_with_more_ranks_than_cores(tmp_path: Path, openmpi: Path) -> None:
    n = 2 * (os.cpu_count() or 1) + 1
    launcher = real(tmp_path, openmpi / "bin/python", str(openmpi / "bin/mpiexec"), n=n)
    launcher.start()
    assert launcher.wait(60)
    assert launcher.spec.dialect == "openmpi"
    assert launcher.poll() == 0, launcher.get_output()
    assert launcher.get_output().count(f"size {n}") == n


@pytest.mark.openmpi
def test_ranks_of_one_mpi_under_the_mpiexec_of_another_are_explained(tmp_path: Path, openmpi: Path) -> None:
    launcher = real(tmp_path, Path(sys.executable), str(openmpi / "bin/mpiexec"), n=2)
    launcher.start()
    assert launcher.wait(30)
    assert "MPI mismatch" in str(launcher.failure())
