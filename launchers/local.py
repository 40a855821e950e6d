"""Engines as plain processes of this machine, without MPI."""

from __future__ import annotations

from typing import ClassVar

from ippmpi.errors import LaunchError
from ippmpi.launching import JobSpec, Launcher


class Local(Launcher):
    """Start ``n`` independent processes; each is told its rank."""

    name: ClassVar[str] = "local"

    def prepare(self, spec: JobSpec) -> JobSpec:
        """Refuse hosts; there is nothing to complete."""
        if spec.hosts:
            raise LaunchError(f"engines='local' are processes of this machine; for hosts={list(spec.hosts)} use 'mpi'")
        return spec

    def argv(self, spec: JobSpec) -> list[list[str]]:
        """Return one command per rank."""
        return [[*spec.program, "--local-rank", str(rank)] for rank in range(spec.n)]
