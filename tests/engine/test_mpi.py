from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ippmpi.engine.mpi import WorldFacts, world_facts

MPIEXEC = Path(sys.executable).with_name("mpiexec")
FACTS = """
import os, sys
from ippmpi.engine.mpi import world_facts
from ippmpi.errors import LaunchError
try:
    line = " ".join(map(str, world_facts(int(sys.argv[1]), "c1")))
except LaunchError as error:
    line = f"LaunchError: {error}"
os.write(1, f"{line}\\n".encode())  # in one piece: mpiexec mixes those of the ranks
"""


def run(*command: str) -> list[str]:
    done = subprocess.run([*command], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.splitlines()


def test_without_mpi_the_world_is_what_it_was_told() -> None:
    assert world_facts(4, "c1", local_rank=2) == WorldFacts(2, 4, 4, "c1")


@pytest.mark.mpi
@pytest.mark.skipif(not MPIEXEC.exists(), reason="needs an MPI in this environment")
def test_ranks_know_their_place() -> None:
    lines = sorted(run(str(MPIEXEC), "-n", "3", sys.executable, "-P", "-c", FACTS, "3"))
    assert [line.split()[:4] for line in lines] == [[str(rank), "3", "3", "c1"] for rank in range(3)]
    assert all(line.split()[4] for line in lines)


@pytest.mark.mpi
@pytest.mark.skipif(not MPIEXEC.exists(), reason="needs an MPI in this environment")
def test_a_world_of_size_one_is_explained() -> None:
    (line,) = run(sys.executable, "-P", "-c", FACTS, "4")
    assert line.startswith("LaunchError: 4 worlds of size 1 instead of one of 4: mpiexec and mpi4py use different")
    assert "libmpi" in line
    assert "started by something that set none of the variables" in line


@pytest.mark.mpi
@pytest.mark.skipif(not MPIEXEC.exists(), reason="needs an MPI in this environment")
def test_a_world_of_another_size_is_told() -> None:
    lines = run(str(MPIEXEC), "-n", "2", sys.executable, "-P", "-c", FACTS, "3")
    assert len(lines) == 2
    assert "the MPI world has 2 ranks, 3 were asked for (on c1; mpi4py uses" in lines[0]
