"""The dialects of ``mpiexec``: how each is recognised, the options it needs, what its errors mean."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ippmpi.launching import JobSpec

Options = Callable[[JobSpec], list[str]]


def _hydra(spec: JobSpec) -> list[str]:
    hosts = ["-launcher", "ssh", "-hosts", ",".join(spec.hosts)] if spec.hosts else []
    return [*hosts, "-n", str(spec.n)]


def _openmpi(spec: JobSpec) -> list[str]:
    # Its own defaults refuse more ranks than cores, and pin each rank to a core that its I/O thread
    # then has to share. With hosts their numbers of ranks say enough; --oversubscribe would be
    # read as "all on the first".
    where = ["--host", ",".join(spec.hosts)] if spec.hosts else ["--oversubscribe"]
    exported = [word for key in spec.environment if spec.hosts for word in ("-x", key)]
    return [*where, "--bind-to", "none", *exported, "-n", str(spec.n)]


def _standard(spec: JobSpec) -> list[str]:
    return ["-n", str(spec.n)]


@dataclass(frozen=True, slots=True)
class Dialect:
    """One family of ``mpiexec``. ``as_root``: what root must have in the environment."""

    name: str
    title: str
    version: str
    options: Options
    as_root: tuple[str, ...] = ()


# Intel's is made from hydra and says so too, hence the order.
DIALECTS = (
    Dialect("intel", "Intel MPI", r"Intel\(R\) MPI", _hydra),
    Dialect("mpich", "MPICH", r"HYDRA|MPICH|MVAPICH", _hydra),
    Dialect(
        "openmpi",
        "Open MPI",
        r"Open ?MPI|OpenRTE|PRRTE|prterun",
        _openmpi,
        as_root=(
            "OMPI_ALLOW_RUN_AS_ROOT",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM",
            "PRTE_ALLOW_RUN_AS_ROOT",
            "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM",
        ),
    ),
    Dialect("", "unknown MPI", "", _standard),
)


def recognise(version_text: str) -> Dialect:
    """Return the dialect of the program whose ``--version`` printed *version_text*; the last one if none fits."""
    return next(d for d in DIALECTS if re.search(d.version, version_text, re.IGNORECASE))


def dialect(name: str) -> Dialect:
    """Return a dialect by its name."""
    return next(d for d in DIALECTS if d.name == name)


# (what the output shows, what it means and what to do); the first that fits is taken.
_CAUSES = (
    (
        r"not enough slots",
        "no slots: more ranks than this mpiexec believes to have cores; set the hosts' ranks (host:n)",
    ),
    (
        r"more cpus than are available|bind.*(cpus|cores).*available",
        "this mpiexec wants a core per rank (--bind-to none)",
    ),
    (
        r"run (\S+ )?as root|allow-run-as-root",
        "root refused: set OMPI_ALLOW_RUN_AS_ROOT=1 and OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1, or be a normal user",
    ),
    (r"No module named '?mpi4py", "this Python has no mpi4py; install it (pip install mpi4py)"),
    (
        r"cannot load MPI library|libmpi\S*: cannot open shared object",
        "mpi4py finds no MPI library; install one beside it (pip install mpich) or load your system's MPI module",
    ),
    (
        r"unsupported PMI version",
        "MPI mismatch: this mpiexec belongs to another MPI than the one that mpi4py loads; use the mpiexec beside it",
    ),
    (
        r"execvp error|unable to (find|access|launch).*executable|executable.*not (found|find)",
        "program not found: the ranks' program is missing on a host that should run it",
    ),
    (
        r"Host key verification failed|Permission denied \(publickey|Could not resolve hostname|Connection refused",
        "ssh to a host failed: 'ssh <host> true' must work without a question",
    ),
)


def meaning(output: str) -> str:
    """Return what mpiexec's own messages in *output* mean, or ""."""
    # Open MPI breaks its lines within sentences
    text = " ".join(output.split())
    return next((text_for for pattern, text_for in _CAUSES if re.search(pattern, text, re.IGNORECASE)), "")
