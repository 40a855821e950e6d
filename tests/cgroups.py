"""A memory cgroup of our own, where this machine lets us make one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import eventually

ROOT = Path("/sys/fs/cgroup")


class MemoryGroup:
    """One cgroup; version 1 and 2 differ in names only."""

    def __init__(self, folder: Path, home: Path, limit: str, usage: str) -> None:
        self.folder, self._home, self._limit, self._usage = folder, home, limit, usage

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Be in it, so that what is started here is too."""
        (self.folder / "cgroup.procs").write_text(str(os.getpid()))
        try:
            yield
        finally:
            (self._home / "cgroup.procs").write_text(str(os.getpid()))

    def used(self) -> int:
        return int((self.folder / self._usage).read_text())

    def limit(self, size: int) -> None:
        (self.folder / self._limit).write_text(str(size))

    def wait_empty(self) -> None:
        eventually(lambda: not (self.folder / "cgroup.procs").read_text().split(), what="the cgroup is empty")


def _own() -> tuple[Path, str, str]:
    """Return our memory cgroup and the names of its files."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return ROOT / "memory" / path.lstrip("/"), "memory.limit_in_bytes", "memory.usage_in_bytes"
    path = Path("/proc/self/cgroup").read_text().splitlines()[-1].split(":", 2)[2]
    return ROOT / path.lstrip("/"), "memory.max", "memory.current"


@contextlib.contextmanager
def memory_group() -> Iterator[MemoryGroup]:
    """Make one below ours, and remove it; skip where that is not possible."""
    home, limit, usage = _own()
    folder = home / f"ippmpi-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"cannot be had here: a memory cgroup ({error})")
    try:
        if not (folder / limit).exists():
            pytest.skip(f"cannot be had here: {folder} has no {limit}")
        yield MemoryGroup(folder, home, limit, usage)
    finally:
        eventually(lambda: _removed(folder), what="the cgroup is removed")


def _removed(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        folder.rmdir()
    return not folder.exists()
