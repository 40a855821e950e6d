"""Starting this node's agent: the first rank of a world that takes the lock does it, before ``MPI_Init``."""

from __future__ import annotations

import fcntl
import os
import re
import sys
from pathlib import Path

from ippmpi.config import child_environment

STARTERS_LOCK = ".lock"
LOG = ".agent.log"

# The rest of what makes a process part of a Slurm step or of an engine; the job's own variables stay.
_STEP_VARIABLES = re.compile(
    r"SLURM_(STEP|TASK|TOPOLOGY|CPU_BIND|MEM_BIND|LOCALID|PROCID|NODEID|GTIDS|SRUN|LAUNCH|PMI|PMIX|MPI)|IPPMPI_PARENT"
)


def ensure_agent(folder: Path, prefix: str, *, file: str, world: str) -> int | None:
    """Start the agent unless another rank of this host does; return the lock, to be kept open, if this one did."""
    lock = os.open(folder / (prefix + STARTERS_LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    start_agent(folder / (prefix + LOG), ["--file", file, "--world", world])
    return lock


def start_agent(log: Path, arguments: list[str]) -> int:
    """Start an agent that shares nothing with this process; return its pid. A second one ends by itself.

    Never forks: a copy of a process that uses MPI may hang. Raises OSError.
    """
    actions: list[tuple[object, ...]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    actions += [(os.POSIX_SPAWN_CLOSE, fd) for fd in _inheritable()]
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-P", "-m", "ippmpi.agent", *arguments],
        agent_environment(),
        file_actions=actions,
        setsid=True,
        setsigmask=(),
    )


def agent_environment() -> dict[str, str]:
    """Return the environment of a process that is not part of the MPI job."""
    return {key: value for key, value in child_environment().items() if not _STEP_VARIABLES.match(key)}


def _inheritable() -> list[int]:
    """Return the descriptors that exec would pass on, such as those of mpiexec's PMI."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        try:
            if fd > 2 and os.get_inheritable(fd):
                found.append(fd)
        except OSError:  # the one that listed the folder
            continue
    return found
