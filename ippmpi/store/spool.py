"""Large contents on their way through the controller, each in a file.

A file has a name, so that a controller that was killed finds it again, and loses it with its last owner. Its
pages are the kernel's cache, not this process's memory. What has arrived can be read while the rest is still
coming, so a content passes through instead of being stored first and then forwarded.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path

from ippmpi.handed import copy, path_of

SPOOL_BYTES = 16 << 30

PREFIX = "content-"


class SpoolFile:
    """One content: a sink for who brings it, a source for who takes it, counted by who needs it.

    It starts with one owner; ``retain`` adds one, ``release`` takes one, and after the last its
    space is free again.
    """

    __slots__ = ("_fd", "_free", "_owners", "_received", "path", "size")

    def __init__(self, path: Path, fd: int, size: int, free: Callable[[SpoolFile], None], received: int = 0) -> None:
        """Own *path*, open as *fd*; *free* is called once when nobody needs the file any more."""
        self.size = size
        self.path = path
        self._fd = fd
        self._received = received
        self._owners = 1
        self._free = free

    # --- sink --------------------------------------------------------------------------------

    def write(self, offset: int, data: memoryview) -> None:
        """Take the next bytes, in order and without gaps.

        Raises:
            OSError: the disk is full or broken.
            ValueError: they are not the next bytes, or more than ``size``.
        """
        self._check_next(offset, len(data))
        while data:
            written = os.pwrite(self._fd, data, self._received)
            self._received += written
            data = data[written:]

    def placed(self, offset: int, count: int, given: int = -1) -> None:
        """Take the next bytes, which are in the file open as *given*, or by default were put into this file itself.

        Raises:
            OSError: they are not in there, or the disk is full or broken.
            ValueError: as in ``write``.
        """
        self._check_next(offset, count)
        stop = offset + count
        if given >= 0:
            copy(given, self._fd, offset, stop)
        elif os.fstat(self._fd).st_size < stop:
            raise OSError(errno.EIO, f"the file ends before byte {stop}")
        self._received = stop

    def _check_next(self, offset: int, count: int) -> None:
        if offset != self._received or offset + count > self.size:
            raise ValueError(f"bytes {offset} to {offset + count}, but {self._received} of {self.size} are there")

    # --- source ------------------------------------------------------------------------------

    def available(self) -> int:
        """Return how many bytes have arrived."""
        return self._received

    def read(self, start: int, stop: int) -> bytes:
        """Return bytes *start* up to *stop*; raise OSError if the file cannot give them."""
        data = os.pread(self._fd, stop - start, start)
        while len(data) < stop - start:  # one call gives at most 2 GiB
            more = os.pread(self._fd, stop - start - len(data), start + len(data))
            if not more:
                raise OSError(errno.EIO, f"the spool file ends at {start + len(data)}, not at {stop}")
            data += more
        return data

    def place(self, start: int, stop: int) -> None:
        """Do nothing: what has arrived is in the file already."""

    @property
    def handed(self) -> str:
        """Where another process of this host may open the file as long as it is owned here."""
        return path_of(self._fd)

    # --- owners ------------------------------------------------------------------------------

    def retain(self) -> None:
        """Add an owner."""
        if not self._owners:
            raise ValueError("this spool file is free already")
        self._owners += 1

    def release(self) -> None:
        """Take an owner away; the last one frees the file. Harmless when it is free."""
        if not self._owners:
            return
        self._owners -= 1
        if not self._owners:
            os.close(self._fd)
            self._fd = -1
            self.path.unlink(missing_ok=True)
            self._free(self)


class Spool:
    """All contents that the controller holds now, in one folder, bounded in bytes."""

    def __init__(self, folder: Path, limit_bytes: int = SPOOL_BYTES) -> None:
        """Use *folder* (on a local disk; made if missing). See ``reopen`` and ``tidy`` for what is in it already."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder
        self._limit = limit_bytes
        self._files: set[SpoolFile] = set()
        self.used_bytes = 0

    def __len__(self) -> int:
        """Return how many contents there are."""
        return len(self._files)

    @property
    def limit_bytes(self) -> int:
        """How many bytes there may be."""
        return self._limit

    def fits(self, size: int) -> bool:
        """Say whether there is room for *size* bytes more."""
        return self.used_bytes + size <= self._limit

    def create(self, key: int, size: int) -> SpoolFile:
        """Make room for a content of *size* bytes, named *key*.

        Raises:
            OSError: there is no room, or no descriptor; the text says which and what to do.
        """
        self._check_room(size)
        path = self._path(key)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        return self._enter(SpoolFile(path, fd, size, self._forget))

    def adopt(self, key: int, size: int, fd: int) -> SpoolFile:
        """Give the name *key* to the file without a name that is open as *fd*, and own *fd*.

        It is to have *size* bytes, which others may put there; see ``SpoolFile.placed``. Raises OSError, and does not
        own *fd* then, if there is no room, or if it has, or once had, a name, or is on another file system.
        """
        self._check_room(size)
        if os.fstat(fd).st_nlink:
            raise OSError(errno.EEXIST, "the file has a name already")
        path = self._path(key)
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:  # with a descriptor of the folder, since link(2) alone would not follow the link in /proc
            os.link(f"/proc/self/fd/{fd}", path.name, dst_dir_fd=folder, follow_symlinks=True)
        finally:
            os.close(folder)
        return self._enter(SpoolFile(path, fd, size, self._forget))

    def _check_room(self, size: int) -> None:
        if not self.fits(size):
            raise OSError(
                errno.ENOSPC,
                f"the controller's spool holds {self.used_bytes} of at most {self._limit} bytes, {size} more do not "
                "fit: wait for earlier work, or raise the setting spool_bytes",
            )

    def rename(self, path: Path, key: int, size: int) -> SpoolFile:
        """Make the file of *size* bytes at *path*, in this folder, the content named *key*. Raises OSError."""
        self._check_room(size)
        path.rename(self._path(key))
        file = self.reopen(key, size)
        if file is None:
            self._path(key).unlink(missing_ok=True)
            raise OSError(errno.EIO, f"it has not {size} bytes")
        return file

    def reopen(self, key: int, size: int) -> SpoolFile | None:
        """Return the content of *size* bytes that an earlier controller has named *key*; None if it is not whole."""
        path = self._path(key)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        if os.fstat(fd).st_size != size:
            os.close(fd)
            return None
        return self._enter(SpoolFile(path, fd, size, self._forget, size))

    def _path(self, key: int) -> Path:
        return self.folder / f"{PREFIX}{key}"

    def _enter(self, file: SpoolFile) -> SpoolFile:
        self._files.add(file)
        self.used_bytes += file.size
        return file

    def last_key(self) -> int:
        """Return the largest key in use, also of what an earlier controller has left; 0 if there is none."""
        names = [path.name.removeprefix(PREFIX) for path in self.folder.glob(f"{PREFIX}*")]
        return max((int(name) for name in names if name.isdecimal()), default=0)

    def tidy(self) -> None:
        """Remove what an earlier controller has left and nobody has reopened."""
        used = {file.path for file in self._files}
        for path in self.folder.glob(f"{PREFIX}*"):
            if path not in used:
                path.unlink(missing_ok=True)

    def _forget(self, file: SpoolFile) -> None:
        self._files.discard(file)
        self.used_bytes -= file.size

    def close(self) -> None:
        """Free everything, whoever still needs it."""
        for file in list(self._files):
            while file in self._files:
                file.release()


def raise_descriptor_limit() -> int:
    """Raise this process's limit of open files as far as it may go; return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
