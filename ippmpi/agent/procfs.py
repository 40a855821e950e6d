"""What ``/proc`` and cgroups tell about other processes; every question may come too late."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

SEGMENTS = "/dev/shm/"
"""Where shared memory with names lives."""

LOOK_AGAIN_S = 0.5
"""Between the two looks that find a segment abandoned."""

# Names that MPI libraries (and ourselves) choose. A user's own file there may be meant to stay.
_OURS = re.compile(r"(mpich_sh|ucx_shm|vader_segment|sm_segment|Intel_MPI|psm2_shm|psm3_shm|ippmpi)[^/]*")


def segments(pid: int) -> set[str]:
    """Return the paths of shared memory of MPI libraries that *pid* maps."""
    return {path for path in _mapped(pid) if _OURS.fullmatch(path.removeprefix(SEGMENTS))}


def read_segments(notes: Path) -> set[str]:
    """Return the paths that an agent has written to the file *notes*; other paths in it do not count."""
    try:
        lines = notes.read_text().splitlines()
    except OSError:
        return set()
    return {path for path in lines if path.startswith(SEGMENTS) and _OURS.fullmatch(path.removeprefix(SEGMENTS))}


def remove_segments(paths: set[str]) -> list[str]:
    """Remove those of *paths* that belong to this user and that no live process maps; return them."""
    if not paths:
        return []
    used = {path for pid in _pids() for path in _mapped(pid)}
    return [path for path in sorted(paths - used) if _remove_own(path)]


def abandoned(since: float) -> set[str]:
    """Return the segments of this user that were made after *since* (s since the epoch) and that nobody maps.

    For worlds whose ranks died before anybody could look what they map. Whoever makes a segment maps it at once, so
    one that is not mapped twice in a row is nobody's; only if there is one, this waits a moment.
    """
    found = _unmapped(since)
    if found:
        time.sleep(LOOK_AGAIN_S)
        found &= _unmapped(since)
    return found


def _unmapped(since: float) -> set[str]:
    made = set()
    with contextlib.suppress(OSError), os.scandir(SEGMENTS) as entries:
        for entry in entries:
            if _OURS.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    facts = entry.stat(follow_symlinks=False)
                    if facts.st_uid == os.getuid() and facts.st_ctime >= since:
                        made.add(entry.path)
    return made - {path for pid in _pids() for path in _mapped(pid)} if made else made


def oom_kills(pid: int) -> tuple[str, int] | None:
    """Return the memory cgroup of *pid* and how many processes the kernel has killed there for lack of memory."""
    try:
        with open(f"/proc/{pid}/cgroup") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return None
    for _, controllers, path in lines:
        if not controllers:
            counter = f"/sys/fs/cgroup{path}/memory.events"
        elif "memory" in controllers.split(","):
            counter = f"/sys/fs/cgroup/memory{path}/memory.oom_control"
        else:
            continue
        kills = count_oom_kills(counter)
        if kills is not None:
            return counter, kills
    return None


def count_oom_kills(counter: str) -> int | None:
    """Read *counter*, a file that ``oom_kills`` named; None when it has no such line or is gone."""
    try:
        with open(counter) as file:
            return next((int(line.split()[1]) for line in file if line.startswith("oom_kill ")), None)
    except OSError:
        return None


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def _mapped(pid: int) -> set[str]:
    try:
        with open(f"/proc/{pid}/maps", "rb") as file:
            text = file.read()
    except OSError:
        return set()
    start = SEGMENTS.encode()
    if start not in text:
        return set()
    paths = (line[line.index(start) :] for line in text.splitlines() if start in line)
    return {os.fsdecode(path) for path in paths if not path.endswith(b" (deleted)")}


def _remove_own(path: str) -> bool:
    try:
        if os.lstat(path).st_uid != os.getuid():
            return False
        os.unlink(path)
    except OSError:
        return False
    return True
