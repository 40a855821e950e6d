"""Real clusters for end-to-end tests, and functions and classes as a user's ``__main__`` would define them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ippmpi as ipp


def defined(source: str) -> SimpleNamespace:
    """Run *source* as a script's ``__main__`` would be run; return its names.

    Its functions see the engine's namespace as globals; those of a test module would go by reference.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(textwrap.dedent(source), names)
    return SimpleNamespace(**names)


@contextlib.contextmanager
def running(
    profile_dir: Path, n: int = 4, engines: str = "mpi", **options: Any
) -> Iterator[tuple[ipp.Cluster, ipp.Client]]:
    """Start a cluster of *n* engines with files of its own; stop it whatever happens."""
    cluster = ipp.Cluster(n=n, engines=engines, profile_dir=str(profile_dir), cluster_id="", **options)
    try:
        yield cluster, cluster.start_and_connect_sync()
    finally:
        cluster.stop_cluster_sync()


@contextlib.contextmanager
def script(source: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run *source* as a program of its own with piped output; kill it at the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", textwrap.dedent(source), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()
