"""Files through which a process hands large contents to another of its host, so that their bytes cross no socket.

The giver puts the bytes into a file and names its own descriptor: ``/proc/<pid>/fd/<number>``. Who gets that path has
it from the process ``pid`` itself, over a Unix socket, and opens it while the giver waits for its acknowledgement. A
file that has no name yet goes with its last descriptor, so a kill leaves nothing behind.

Such a file is in a folder of the controller's, which can make it its own without a copy by giving it a name. Until then
it is the kernel's cache, like every file of the spool; that cache is filled faster than a memory file, as its pages are
made several at a time *(tried)*.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import stat
from collections.abc import Sequence

SMALLEST = 1 << 20
"""Bytes; for less, opening and closing costs more than sending."""

_MOST_PARTS = 512  # of one writev
_MOST_BYTES = 32 << 20  # of one call: no signal is heard before its end
_SPARE = 2  # so many times the size must be free


class HandedFile:
    """An open file without a name, readable for this user; closed with the last reference to it."""

    __slots__ = ("fd",)

    def __init__(self, folder: str, size: int) -> None:
        """Make an empty file in *folder*, which must have room for more than *size* bytes. Raises OSError."""
        self.fd = -1
        room = os.statvfs(folder)
        if room.f_bavail * room.f_frsize < _SPARE * size:
            raise OSError(errno.ENOSPC, f"{folder} has too little room for {size} bytes more")
        self.fd = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)

    @property
    def path(self) -> str:
        """Return how others open it."""
        return path_of(self.fd)

    def detach(self) -> int:
        """Return the descriptor, which is the caller's to close from now on."""
        fd, self.fd = self.fd, -1
        return fd

    def close(self) -> None:
        """Let go of the file; harmless when done."""
        fd = self.detach()
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        """Close it."""
        self.close()


def path_of(fd: int) -> str:
    """Return how another process of this user opens what *fd* is here."""
    return f"/proc/{os.getpid()}/fd/{fd}"


def write(fd: int, parts: Sequence[bytes | memoryview], start: int = 0) -> None:
    """Write all of *parts* to *fd*, from byte *start* on. Raises OSError."""
    whole = [memoryview(part).cast("B") for part in parts]
    views = [view[at : at + _MOST_BYTES] for view in whole for at in range(0, view.nbytes, _MOST_BYTES)]
    first = 0
    while first < len(views):
        last, total = first, 0
        while total < _MOST_BYTES and last - first < _MOST_PARTS and last < len(views):
            total += views[last].nbytes
            last += 1
        written = os.pwritev(fd, views[first:last], start)
        start += written
        while first < len(views) and written >= views[first].nbytes:
            written -= views[first].nbytes
            first += 1
        if written:
            views[first] = views[first][written:]


def take(path: str, size: int, giver: int, *, write: bool = False) -> int:
    """Open what process *giver* hands on at *path*: what there is, so far, of *size* bytes. Return the descriptor.

    Raises:
        OSError: it cannot be opened, or is not what was said; the text says why.
    """
    number = path.removeprefix(f"/proc/{giver}/fd/")
    if giver <= 0 or number == path or not (number.isascii() and number.isdecimal()):
        raise OSError(errno.EACCES, f"process {giver} hands on {path[:100]!r}, which is not its own")
    # O_NONBLOCK: the number may name a pipe by mistake, and nothing may make this process wait
    fd = os.open(path, (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC | os.O_NONBLOCK)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_size > size or status.st_uid != os.getuid():
        os.close(fd)
        raise OSError(
            errno.EINVAL,
            f"{path} has mode {stat.filemode(status.st_mode)}, {status.st_size} bytes and owner {status.st_uid}; "
            f"a file of at most {size} bytes of user {os.getuid()} would be right",
        )
    return fd


def copy(source: int, target: int, start: int, stop: int) -> None:
    """Copy bytes *start* up to *stop* of one file to the same place of another. Raises OSError, also if they end."""
    os.lseek(target, start, os.SEEK_SET)
    while start < stop:
        copied = os.sendfile(target, source, start, stop - start)
        if not copied:
            raise _ends(start, stop)
        start += copied


def read(fd: int, into: memoryview, start: int, stop: int) -> None:
    """Read bytes *start* up to *stop* of *fd* to the same place of *into*. Raises OSError, also if there are fewer."""
    while start < stop:
        got = os.preadv(fd, [into[start : min(stop, start + _MOST_BYTES)]], start)
        if not got:
            raise _ends(start, stop)
        start += got


def _ends(start: int, stop: int) -> OSError:
    return OSError(errno.EIO, f"a handed file ends at {start}, not at {stop}")


def memory(size: int) -> mmap.mmap:
    """Return *size* bytes of fresh memory, in large pages where there are any: filling it takes a fifth of the time."""
    found = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them
            found.madvise(mmap.MADV_HUGEPAGE)
    return found
