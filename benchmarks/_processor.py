"""Who uses the machine's processors: we, or others. Linux only."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

_PROCESS_CLOCK = 2  # CPUCLOCK_SCHED of the kernel: what clock_getcpuclockid() makes of a process id


def used_s(pids: Iterable[int]) -> float:
    """Return the processor time that these processes have used, and this one; OSError if one has ended."""
    return time.process_time() + sum(time.clock_gettime((~pid << 3) | _PROCESS_CLOCK) for pid in pids)


def machine_used_s() -> float:
    """Return the processor time that everybody has used since the machine's start, stolen time included."""
    words = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, words[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def marked(word: str) -> set[int]:
    """Return the other processes that have *word* in their environment."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if word.encode() in (process / "environ").read_bytes():
                found.add(int(process.name))
        except OSError:  # it has ended, or belongs to somebody else
            continue
    return found - {os.getpid()}


class Others:
    """Watches how much of the machine others use; *ours* are the processes that are not others."""

    def __init__(self, ours: Iterable[int]) -> None:
        """Begin to watch."""
        self._ours = tuple(ours)
        self._began = time.perf_counter()
        self._used, self._all = used_s(self._ours), machine_used_s()

    def share(self) -> float:
        """Return which part of the machine others have used since the beginning: 0 to 1."""
        elapsed = time.perf_counter() - self._began
        used = (machine_used_s() - self._all) - (used_s(self._ours) - self._used)
        return max(0.0, used / (elapsed * (os.cpu_count() or 1)))
