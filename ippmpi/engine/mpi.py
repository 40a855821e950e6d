"""This rank's place in its MPI world. The only importer of mpi4py, which calls ``MPI_Init`` when imported."""

from __future__ import annotations

import os
import re
import sys
from typing import NamedTuple

from ippmpi.errors import LaunchError


class WorldFacts(NamedTuple):
    """Where this rank stands. ``local_size``: ranks of the world on this host. ``library``: MPI's own version text."""

    rank: int
    size: int
    local_size: int
    host: str
    library: str = ""


def world_facts(expected: int, host: str, *, local_rank: int | None = None) -> WorldFacts:
    """Enter MPI and return this rank's place in a world of *expected* ranks.

    With *local_rank* there is no MPI: the world is that many processes on this host. Blocks until
    all ranks have come. Raises LaunchError, with the likely cause, if the world is another one.
    """
    if local_rank is not None:
        return WorldFacts(local_rank, expected, expected, host)
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise LaunchError(
            f"rank on {host} cannot load MPI library: {error} (install one beside mpi4py, as in 'pip install mpich', "
            "or load your system's MPI module; engines='local' needs no MPI)"
        ) from None
    world = MPI.COMM_WORLD
    library = MPI.Get_library_version().strip("\0\n ").splitlines()[0]
    if world.size != expected:
        raise LaunchError(_explain(world.size, expected, host, library))
    local_size = _told_local_size(world.size) or world.allgather(host).count(host)
    return WorldFacts(world.rank, world.size, local_size, host, library)


def names(facts: WorldFacts) -> dict[str, object]:
    """Return what users of ipyparallel find in the namespace of a rank; nothing if MPI is not in use."""
    if "mpi4py.MPI" not in sys.modules:
        return {}
    return {"MPI": sys.modules["mpi4py.MPI"], "mpi_rank": facts.rank, "mpi_size": facts.size}


def _told_local_size(size: int) -> int:
    """Return how many ranks the starter says it has put on this host, 0 if it does not say.

    A collective at the start makes ranks that are there spin while others, on the same cores, still import:
    with 64 ranks on 2 cores that takes 0.7 s.
    """
    for name in _LOCAL_SIZES:
        told = os.environ.get(name, "")
        if told.isdecimal() and 0 < int(told) <= size:
            return int(told)
    return 0


def _explain(size: int, expected: int, host: str, library: str) -> str:
    found = f"mpi4py uses {library}" + (f" ({path})" if (path := _library_path()) else "")
    if size != 1:
        return f"the MPI world has {size} ranks, {expected} were asked for (on {host}; {found})"
    starter = _starter()
    return (
        f"{expected} worlds of size 1 instead of one of {expected}: mpiexec and mpi4py use different MPI libraries. "
        f"On {host} {found}, but the ranks were started by {starter}. Start them with the mpiexec of that library, or "
        "install the library that belongs to your mpiexec (MPI4PY_LIBMPI names one by its path)"
    )


_LOCAL_SIZES = ("MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE")
"""Variables in which MPICH's and Intel MPI's mpiexec, and Open MPI's, say so; all ranks of a job have them, or none."""

# What each starter leaves in the environment of its ranks; the first that fits is taken.
_STARTERS = (
    (r"OMPI_COMM_WORLD_|PRTE_|PMIX_", "Open MPI's mpiexec (or a PMIx starter such as srun --mpi=pmix)"),
    (r"I_MPI_", "Intel MPI's mpiexec"),
    (r"HYDI_|HYDRA_|MPIR_CVAR|PMI_RANK", "an mpiexec of the MPICH family (or srun --mpi=pmi2)"),
    (r"SLURM_STEP_ID", "srun (try another --mpi=..., 'srun --mpi=list' shows what there is)"),
)


def _starter() -> str:
    variables = "\n".join(os.environ)
    for pattern, name in _STARTERS:
        if re.search(rf"^({pattern})", variables, re.MULTILINE):
            return name
    return "something that set none of the variables of Open MPI, MPICH, Intel MPI or Slurm"


def _library_path() -> str:
    """Return the file of the MPI library in this process, if the system tells."""
    try:
        with open("/proc/self/maps") as maps:
            found = re.search(r"/\S*/lib(mpi|mpich)(_\w+)?\.so\S*", maps.read())
    except OSError:
        return ""
    return found.group() if found else ""
