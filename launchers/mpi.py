"""Engines as the ranks of one MPI job, started by ``mpiexec``: of MPICH, Open MPI or Intel MPI."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import msgspec

from ippmpi import config
from ippmpi.errors import LaunchError
from ippmpi.launching import JobSpec, Launcher

from ._mpiexec import Dialect, dialect, meaning, recognise


class Mpi(Launcher):
    """Start ``mpiexec -n N`` with the options that its kind needs."""

    name: ClassVar[str] = "mpi"

    def prepare(self, spec: JobSpec) -> JobSpec:
        """Find the mpiexec and what kind it is."""
        starter = find_mpiexec(spec.starter)
        kind = recognise(_version(starter))
        environment = {**_as_root(kind), **spec.environment}
        return msgspec.structs.replace(spec, starter=starter, dialect=kind.name, environment=environment)

    def argv(self, spec: JobSpec) -> list[list[str]]:
        """Return the one command that starts all ranks."""
        return [[spec.starter, *dialect(spec.dialect).options(spec), *spec.extra, *spec.program]]

    def cause(self, output: str) -> str:
        """Prefer what an engine says; else translate what mpiexec says."""
        said = super().cause(output) or meaning(output)
        return f"{said} ({dialect(self.spec.dialect).title}, {self.spec.starter})" if said else ""


def find_mpiexec(wanted: str = "") -> str:
    """Return the mpiexec to use: *wanted* if given, else the one beside this Python, else the first in PATH.

    An MPI of the same virtual environment is the one that its mpi4py loads; another one's mpiexec
    would start n worlds of size 1.

    Raises:
        LaunchError: there is none; the text says where it was looked for.
    """
    beside = str(Path(sys.executable).parent)
    if wanted:
        found = shutil.which(wanted)
        tried = [wanted]
    else:
        found = shutil.which("mpiexec", path=beside) or shutil.which("mpiexec")
        tried = [f"{beside}/mpiexec", "mpiexec in PATH"]
    if found:
        return os.path.abspath(found)
    raise LaunchError(
        f"no mpiexec found; looked for {' and '.join(tried)}. Install an MPI beside mpi4py (pip install mpich), "
        "load your system's MPI module, or name the program (mpiexec=...); engines='local' needs no MPI"
    )


def _version(starter: str) -> str:
    try:
        done = subprocess.run(
            [starter, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=10,
            env=config.child_environment(dict.fromkeys(dialect("openmpi").as_root, "1")),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LaunchError(f"cannot ask {starter} for its version: {error}") from None
    return done.stdout + done.stderr


def _as_root(kind: Dialect) -> dict[str, str]:
    return dict.fromkeys(kind.as_root, "1") if os.getuid() == 0 else {}
