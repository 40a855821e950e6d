"""The agent's files in the node folder, and their end: nothing of this world may stay behind."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from pathlib import Path

from ippmpi.connection import take_lock

SOCKET = ".agent"
STARTERS_LOCK = ".lock"
SEGMENTS = ".segments"


class Lock:
    """Held by the one agent of a world on this host."""

    def __init__(self, path: Path, fd: int | None = None) -> None:
        """Take the lock at *path*, or own *fd*, which holds it. Raises BlockingIOError if another process has it."""
        self._path = path
        self._fd = take_lock(path) if fd is None else fd
        os.set_inheritable(self._fd, False)

    def release(self) -> None:
        """Remove the file, then let go: so a new holder has a file that others can see."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        os.close(self._fd)


def remove_traces(folder: Path, prefix: str) -> None:
    """Remove the exit records of this host's ranks, what they had as kernels, and the lock of who starts the agent."""
    record = re.compile(re.escape(prefix) + r"\.([0-9]+\.exit(\.new)?|kernel-[0-9]+(-[0-9]|\.json))")
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            if record.fullmatch(path.name) or path.name == prefix + STARTERS_LOCK:
                path.unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """Remove the folder if nobody else (another host that shares it) has files there."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def remove_empty_log(fd: int = 2) -> None:
    """Remove the file that *fd* writes to if nothing was ever written."""
    with contextlib.suppress(OSError):
        found = os.fstat(fd)
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))
        if stat.S_ISREG(found.st_mode) and found.st_size == 0 and path.stat().st_ino == found.st_ino:
            path.unlink()
