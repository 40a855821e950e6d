"""Which MPI job this process is a rank of, as far as whoever started it says so; nothing here enters MPI.

``mpiexec ... ipengine`` must know that before ``MPI_Init``: all ranks of a job need the same name for their world, on
every host, and none of another job.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ippmpi.errors import LaunchError
from ippmpi.identity import host_name

MOST_ANCESTORS = 6
"""How many processes may be between a rank and its starter: shells, wrappers of batch systems."""


class MpiJob(NamedTuple):
    """The world's name, and its number of ranks."""

    world: str
    size: int


def find_job(
    environ: Mapping[str, str] | None = None, ancestors: Iterable[Sequence[str]] | None = None, *, mpi: bool = False
) -> MpiJob | None:
    """Return the MPI job that this process is a rank of, None if it was started by itself.

    *ancestors* are the command lines of the processes above this one, the nearest first. With *mpi* the user says that
    it is one: then tasks of a Slurm step are ranks, also where nothing else shows that.

    Raises:
        LaunchError: it is one, but which cannot be found out.
    """
    environ = os.environ if environ is None else environ
    if "OMPI_COMM_WORLD_SIZE" in environ:
        name = environ.get("PMIX_NAMESPACE") or environ.get("OMPI_MCA_ess_base_jobid") or _of_batch_job(environ)
        return _job("Open MPI", name, environ["OMPI_COMM_WORLD_SIZE"])
    if "SLURM_STEP_ID" in environ and _by_srun(environ):
        tasks = environ.get("SLURM_STEP_NUM_TASKS", "1")
        if not mpi and not {"PMI_RANK", "PMIX_RANK"} & environ.keys():  # srun --mpi=none: plain processes
            return None
        return _job("srun", f"{environ.get('SLURM_JOB_ID')}.{environ['SLURM_STEP_ID']}", tasks)
    if "PMI_SIZE" in environ:
        name = _of_proxy(_ancestors() if ancestors is None else ancestors) or _of_batch_job(environ)
        return _job("mpiexec", name, environ["PMI_SIZE"])
    if "PMIX_RANK" in environ:
        raise LaunchError(_unknown("a PMIx starter, which does not say how many ranks there are"))
    return None


def alone() -> str:
    """Return a name for a world that is this process."""
    return f"single-{_short(host_name())}-{os.getpid()}"


def _job(starter: str, name: str, size: str) -> MpiJob:
    if not name or not size.isdecimal():
        raise LaunchError(_unknown(starter))
    return MpiJob(f"mpi-{_short(name)}", int(size))


def _unknown(starter: str) -> str:
    return (
        f"this is a rank of {starter}, and which of its jobs cannot be found out on {host_name()}: "
        "say it with --world NAME (the same for all ranks of the job) --size N (how many there are)"
    )


def _by_srun(environ: Mapping[str, str]) -> bool:
    """Say whether srun started the rank itself, and not the proxies of an mpiexec, which starts several."""
    return "SLURM_PROCID" in environ and "HYDI_CONTROL_FD" not in environ and "MPI_LOCALRANKID" not in environ


def _of_proxy(ancestors: Iterable[Sequence[str]]) -> str:
    """Return where mpiexec listens: MPICH's and Intel's proxies are told by an option; "" if there is none."""
    for argv in ancestors:
        words = list(argv)
        for option, value in itertools.pairwise(words):
            if option == "--control-port":
                return value
            if option == "--upstream-port":
                host = words[words.index("--upstream-host") + 1] if "--upstream-host" in words[:-1] else ""
                return f"{host}:{value}"
    return ""


def _of_batch_job(environ: Mapping[str, str]) -> str:
    """Return the id of the application, or of the batch job: right as long as a job script starts its engines once."""
    names = ("PALS_APID", "SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID", "FLUX_JOB_ID")
    return next((f"{name}={environ[name]}" for name in names if environ.get(name)), "")


def _ancestors() -> Iterator[list[str]]:
    """Yield the command lines of the processes above this one."""
    pid = os.getppid()
    for _ in range(MOST_ANCESTORS):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            status = Path(f"/proc/{pid}/status").read_text(errors="replace")
        except OSError:
            return
        yield command.decode(errors="replace").split("\0")
        found = re.search(r"^PPid:\s*(\d+)", status, re.MULTILINE)
        pid = int(found[1]) if found else 0
        if pid <= 1:
            return


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
