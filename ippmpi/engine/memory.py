"""Large contents as memory files: results on their way out, requests on their way in."""

from __future__ import annotations

import fcntl
import mmap
import os

from ippmpi.identity import identify
from ippmpi.wire.messages import INLINE_LIMIT, Content
from ippmpi.wire.pickling import Blob

_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_MOST_PARTS = 512  # of one writev


def store(blob: Blob) -> tuple[Content, int | None]:
    """Return *blob* as a content, and the memory file to close once the content has been read (None: inline).

    Raises OSError when there is no memory.
    """
    if blob.size <= INLINE_LIMIT:
        return Content(inline=blob.join(), size=blob.size), None
    fd = os.memfd_create("ippmpi-result", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, blob.size)  # so that a reader sees the size whatever happens
        _write(fd, [memoryview(part).cast("B") for part in blob.parts])
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return Content(size=blob.size, path=f"/proc/{os.getpid()}/fd/{fd}"), fd


def _write(fd: int, parts: list[memoryview]) -> None:
    parts = [part for part in parts if part.nbytes]
    start = 0
    while start < len(parts):
        written = os.writev(fd, parts[start : start + _MOST_PARTS])
        while start < len(parts) and written >= parts[start].nbytes:
            written -= parts[start].nbytes
            start += 1
        if written:
            parts[start] = parts[start][written:]


class Arriving:
    """A request's content in a memory file of the agent's, which may not be complete yet."""

    def __init__(self, content: Content) -> None:
        """Open the file, so that it stays when the agent goes. If it has gone already, its successor sends another.

        Raises OSError: the agent lives, and there is no such file.
        """
        self.transfer = content.transfer
        self._size = content.size
        self._fd = -1
        try:
            self._fd = os.open(content.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            if _lives(content.path):
                raise

    @property
    def opened(self) -> bool:
        """Whether the file was still there."""
        return self._fd >= 0

    def map(self) -> mmap.mmap:
        """Return the complete file as private memory: writable, its pages copied only when written. Call once."""
        if not self.opened:
            raise ValueError("it was not opened")  # mmap would give zeros
        try:
            return mmap.mmap(self._fd, self._size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the file; harmless when done."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _lives(path: str) -> bool:
    """Say whether the process in whose ``/proc/<pid>/fd`` *path* is lives."""
    try:
        identify(int(path.split("/")[2]))
    except ProcessLookupError:
        return False
    except (ValueError, IndexError):  # it is no such path: nobody will send another
        return True
    return True
