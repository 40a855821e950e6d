"""Starting this node's agent: the first rank of a world that takes the lock does it, before ``MPI_Init``.

Should the agent die, the first rank that finds its lock free takes it and passes it on to a new one, so there
is never more than one, whatever the others do.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ippmpi.config import child_environment
from ippmpi.connection import AGENT_LOCK, take_lock

STARTERS_LOCK = ".lock"
LOG = ".agent.log"
_LOCK_FD = 3  # in the new agent

LOOK_S = 0.02
"""How long after the loss of the agent this node is first searched for one; then in growing intervals."""

LONGEST_LOOK_S = 30.0

_log = logging.getLogger(__name__)

_started: list[int] = []  # agents that are children of this process

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


def replace_agent(folder: Path, prefix: str, *, file: str, world: str) -> int | None:
    """Start a new agent if this node has none; return its pid. Raises OSError."""
    try:
        lock = take_lock(folder / (prefix + AGENT_LOCK))
    except BlockingIOError:
        return None
    for pid in list(_started):  # the dead one may be a child of this process
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG)[0] == 0:
                continue
        _started.remove(pid)
    arguments = ["--file", file, "--world", world, "--lock-fd", str(_LOCK_FD)]
    try:
        return start_agent(folder / (prefix + LOG), arguments, lock)
    finally:
        os.close(lock)  # the agent has it now


def start_agent(log: Path, arguments: list[str], lock: int | None = None) -> int:
    """Start an agent that shares nothing with this process but *lock*; return its pid. A second one ends by itself.

    Never forks: a copy of a process that uses MPI may hang. Raises OSError.
    """
    actions: list[tuple[object, ...]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    actions += [(os.POSIX_SPAWN_CLOSE, fd) for fd in _inheritable()]
    if lock is not None:
        actions.append((os.POSIX_SPAWN_DUP2, lock, _LOCK_FD))
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-P", "-m", "ippmpi.agent", *arguments],
        agent_environment(),
        file_actions=actions,
        setsid=True,
        setsigmask=(),
    )
    _started.append(pid)
    return pid


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


class Timer(Protocol):
    """Something that happens later unless it is cancelled."""

    def cancel(self) -> None:
        """Make it not happen."""


class Successors:
    """Starts a new agent whenever this node has none, as long as it is wanted."""

    def __init__(
        self, start: Callable[[], int | None], call_later: Callable[[float, Callable[[], None]], Timer]
    ) -> None:
        """Use *start*, which is ``replace_agent``, and the loop's *call_later*."""
        self._start = start
        self._call_later = call_later
        self._timer: Timer | None = None

    def want(self, after_s: float = LOOK_S) -> None:
        """Look for an agent in *after_s* seconds, and again later."""
        self.cease()
        self._timer = self._call_later(after_s, lambda: self._look(after_s))

    def cease(self) -> None:
        """There is an agent, or nobody needs one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, waited_s: float) -> None:
        self.want(min(LONGEST_LOOK_S, max(1.0, 2 * waited_s)))  # a new agent needs a while
        try:
            pid = self._start()
        except OSError as error:
            _log.error("cannot start a new agent: %s", error)
            return
        if pid is not None:
            _log.warning("this node's agent has died; started a new one, pid %d", pid)
