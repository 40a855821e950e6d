"""The parent of each rank: a C program built by CMake, or the shell script that does the same without a compiler."""

from __future__ import annotations

import functools
import os
import subprocess
from importlib.resources import as_file, files

_LACKS = (
    "no C program ippmpi-rank (there was no C compiler at installation, or it does not run on this machine);"
    " using the shell script; to get the program: install gcc and the C headers (Debian: gcc, libc6-dev), then install"
    " ippmpi again"
)


@functools.cache
def rank_program() -> str | None:
    """Return the path of the C program, or None where it is not installed or does not run."""
    program = _path("bin", "ippmpi-rank")
    if program is None or not os.access(program, os.X_OK):
        return None
    try:
        said = subprocess.run([program, "--version"], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):  # built for another machine
        return None
    return program if said.returncode == 0 and said.stdout.startswith(b"ippmpi-rank") else None


def rank_script() -> str:
    """Return the path of the shell script."""
    script = _path("ippmpi-rank.sh")
    if script is None:
        raise FileNotFoundError("ippmpi/native/ippmpi-rank.sh is missing from this installation; install ippmpi again")
    return script


def rank_command(folder: str) -> list[str]:
    """Return what to put before a rank's command so that its end is recorded in *folder*.

    *folder* is made with mode 0700 if it is missing; the parent refuses one that others can write to.
    """
    program = rank_program()
    start = [program] if program is not None else ["sh", rank_script()]
    return [*start, "--folder", folder, "--"]


def describe() -> str:
    """Say in one line which of the two is used, and what is lacking if it is the script."""
    program = rank_program()
    return f"rank parent: {program}" if program is not None else f"rank parent: {_LACKS}"


def _path(*names: str) -> str | None:
    resource = files(__name__).joinpath(*names)
    if not resource.is_file():
        return None
    with as_file(resource) as path:  # installed as plain files: nothing is extracted, so the path stays
        return str(path)
