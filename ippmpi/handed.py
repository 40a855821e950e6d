"""Large contents that one process hands to another of its host as a file, so that their bytes cross no socket.

The giver writes a file without a name, once, in a folder of the controller's, and names its own descriptor:
``/proc/<pid>/fd/<number>``. Who gets that path has it from the process ``pid`` itself, over a Unix socket, and opens
it while the giver waits for its acknowledgement. The file goes with its last descriptor, so a kill leaves nothing
behind; the controller gives it a name when it takes it. Whoever cannot open it pulls the bytes as from afar.

It is the page cache, not memory files, that carries the bytes: its pages are made several at a time where the file
system can do that, which makes writing three times as fast *(tried)*, and what is not fetched need not stay in memory.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import re
import stat
from collections.abc import Sequence

SMALLEST = 1 << 20
"""Bytes; for less, opening and closing costs more than sending."""

STEP_BYTES = 8 << 20
"""How much is copied at once by a thread that others wait for."""

_MOST_PARTS = 512  # of one writev
_MOST_BYTES = 32 << 20  # of one call: no signal is heard before its end
_SPARE = 2  # so many times the size must be free


class HandedFile:
    """An open file without a name that is to be handed on; closed with the last reference to it."""

    __slots__ = ("_fd", "size")

    def __init__(self, folder: str, parts: Sequence[bytes | memoryview], size: int) -> None:
        """Write *parts*, together *size* bytes, to a new file in *folder*. Raises OSError."""
        self._fd = -1
        self.size = size
        room = os.statvfs(folder)
        if room.f_bavail * room.f_frsize < _SPARE * size:
            raise OSError(errno.ENOSPC, f"{folder} has too little room for {size} bytes more")
        self._fd = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        write(self._fd, parts)

    @property
    def path(self) -> str:
        """Return how others open it."""
        return path_of(self._fd)

    def detach(self) -> int:
        """Return the descriptor, which is the caller's to close from now on."""
        fd, self._fd = self._fd, -1
        return fd

    def close(self) -> None:
        """Let go of the file; harmless when done."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        """Close it."""
        self.close()


def path_of(fd: int) -> str:
    """Return how another process of this user opens what *fd* is here."""
    return f"/proc/{os.getpid()}/fd/{fd}"


def write(fd: int, parts: Sequence[bytes | memoryview]) -> None:
    """Write all of *parts* to the end of *fd*. Raises OSError."""
    whole = [memoryview(part).cast("B") for part in parts]
    views = [view[at : at + _MOST_BYTES] for view in whole for at in range(0, view.nbytes, _MOST_BYTES)]
    start = 0
    while start < len(views):
        stop = total = 0
        while total < _MOST_BYTES and stop < _MOST_PARTS and start + stop < len(views):
            total += views[start + stop].nbytes
            stop += 1
        written = os.writev(fd, views[start : start + stop])
        while start < len(views) and written >= views[start].nbytes:
            written -= views[start].nbytes
            start += 1
        if written:
            views[start] = views[start][written:]


def take(path: str, size: int, giver: int) -> int:
    """Open what process *giver* hands on at *path*, a whole content of *size* bytes; return the descriptor.

    Raises:
        OSError: it cannot be opened, or is not what was said; the text says why.
    """
    if giver <= 0 or re.fullmatch(rf"/proc/{giver}/fd/[0-9]+", path) is None:
        raise OSError(errno.EACCES, f"process {giver} hands on {path[:100]!r}, which is not its own")
    # O_NONBLOCK: the number may name a pipe by mistake, and nothing may make this process wait
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_size != size or status.st_uid != os.getuid():
        os.close(fd)
        raise OSError(
            errno.EINVAL,
            f"{path} has mode {stat.filemode(status.st_mode)}, {status.st_size} bytes and owner {status.st_uid}; "
            f"a file of {size} bytes of user {os.getuid()} would be right",
        )
    return fd


def memory(size: int) -> mmap.mmap:
    """Return *size* bytes of fresh memory, in large pages where there are any: filling it takes a fifth of the time."""
    found = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them
            found.madvise(mmap.MADV_HUGEPAGE)
    return found


def read(fd: int, into: memoryview, start: int, stop: int) -> None:
    """Read bytes *start* up to *stop* of *fd* to the same place of *into*. Raises OSError, also if there are fewer."""
    while start < stop:
        got = os.preadv(fd, [into[start : min(stop, start + _MOST_BYTES)]], start)
        if not got:
            raise OSError(errno.EIO, f"a handed file ends at {start}, not at {stop}")
        start += got
