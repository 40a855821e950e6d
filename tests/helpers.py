"""What many tests need: waiting for a condition with a deadline, and saying what is running."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ippmpi.handed import HandedFile, write

T = TypeVar("T")

PROC = Path("/proc")


def eventually(condition: Callable[[], T], timeout_s: float = 10.0, what: str = "") -> T:
    """Return what *condition* returns as soon as that is true; fail when it is not within *timeout_s* seconds."""
    deadline = time.monotonic() + timeout_s
    pause_s = 0.001
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what or getattr(condition, '__name__', condition)}")
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 0.05)
    return value


def alive(pid: int) -> bool:
    """Whether process *pid* runs; a zombie has ended."""
    try:
        state = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def handed(folder: Path, data: bytes) -> HandedFile:
    """Return a file without a name in *folder* that holds *data*."""
    file = HandedFile(str(folder), len(data))
    write(file.fd, [data])
    return file
