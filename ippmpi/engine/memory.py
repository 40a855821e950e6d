"""Large contents as files without a name, mostly in memory: results on their way out, requests on their way in."""

from __future__ import annotations

import fcntl
import logging
import mmap
import os

from ippmpi.handed import SMALLEST, HandedFile, memory, path_of, read, write
from ippmpi.identity import identify
from ippmpi.wire.messages import INLINE_LIMIT, Content, Failure
from ippmpi.wire.pickling import Blob

_log = logging.getLogger(__name__)

_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def store(blob: Blob, folder: str = "") -> tuple[Content, int | None]:
    """Return *blob* as a content, and the file to close once the content has been read (None: inline).

    It is a file in *folder* if that is given, for the controller to take over, else a memory file. Raises OSError when
    there is no memory.
    """
    if blob.size <= INLINE_LIMIT:
        return Content(inline=blob.join(), size=blob.size), None
    if folder and blob.size >= SMALLEST:
        try:
            file = HandedFile(folder, blob.size)
            write(file.fd, blob.parts)
            return Content(size=blob.size, path=file.path), file.detach()
        except OSError as error:
            _log.debug("a result of %d bytes becomes a memory file: %s", blob.size, error)
    fd = os.memfd_create("ippmpi-result", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, blob.size)  # so that a reader sees the size whatever happens
        write(fd, blob.parts)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return Content(size=blob.size, path=path_of(fd)), fd


class Unread:
    """A request's content in a file that the controller has handed on: to be read by the thread that needs it."""

    def __init__(self, fd: int, size: int) -> None:
        """Own *fd*, which holds *size* bytes."""
        self._fd = fd
        self._size = size

    def read(self) -> mmap.mmap | Failure:
        """Return its bytes in memory of this process's own, or why there are none. Call once."""
        try:
            found = memory(self._size)
            read(self._fd, memoryview(found), 0, self._size)
            return found
        except (OSError, ValueError, MemoryError) as error:
            return no_content(f" of {self._size} bytes", str(error))
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the file; harmless when done."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        """Close the file: the request was taken back."""
        self.close()


def no_content(what: str, why: str) -> Failure:
    """Say that a request cannot be run; *what* follows "content" in the text."""
    return Failure("EngineError", f"the request's content{what} did not arrive: {why}", kind="EngineError")


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

    def complete(self) -> mmap.mmap | Unread:
        """Return the complete file. Call once.

        A memory file becomes private memory: writable, its pages copied only when written. Another one is for its
        reader to read: a map would keep it on the disk.
        """
        if not self.opened:
            raise ValueError("it was not opened")  # mmap would give zeros
        try:
            fcntl.fcntl(self._fd, fcntl.F_GET_SEALS)
        except OSError:
            fd, self._fd = self._fd, -1
            return Unread(fd, self._size)
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
