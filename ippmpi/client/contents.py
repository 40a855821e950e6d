"""Large contents on their way: straight from the memory of the user's arrays, straight into that of results."""

from __future__ import annotations

import errno
import logging
import mmap
import os
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

from ippmpi.handed import SMALLEST, HandedFile, memory, read, take, write

if TYPE_CHECKING:
    from ippmpi.wire.messages import Content
    from ippmpi.wire.pickling import Blob


log = logging.getLogger(__name__)

Flat = bytearray | bytes | mmap.mmap
"""A value that has arrived, to be unpickled."""


class BlobSource:
    """Reads a blob part by part without joining it; keeps the parts' memory alive (``net.Source``).

    A hub on this host need not be sent the bytes: they can be put into ``file``, which it makes its own.
    """

    def __init__(self, blob: Blob, folder: str = "") -> None:
        """Read from *blob*; if *folder* is given, make a file there when that pays."""
        self.file: HandedFile | None = None
        if folder and blob.size >= SMALLEST:
            try:
                self.file = HandedFile(folder, blob.size)
            except OSError as error:
                log.debug("a content of %d bytes goes by wire: %s", blob.size, error)
        self._parts = [memoryview(part).cast("B") for part in blob.parts]
        self._ends = list(accumulate(len(part) for part in self._parts))

    @property
    def size(self) -> int:
        """Total number of bytes."""
        return self._ends[-1] if self._ends else 0

    def available(self) -> int:
        """Return the size: everything is there."""
        return self.size

    def place(self, start: int, stop: int) -> None:
        """Put bytes ``start`` up to ``stop`` into the file. Raises OSError."""
        if self.file is None:
            raise OSError(errno.ENOENT, "there is no file")
        write(self.file.fd, self._pieces(start, stop), start)

    def close(self) -> None:
        """Let go of the file."""
        if self.file is not None:
            self.file.close()

    def read(self, start: int, stop: int) -> bytes | memoryview:
        """Return bytes *start* up to *stop*; a view of the user's memory if they lie in one part."""
        pieces = self._pieces(start, stop)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _pieces(self, start: int, stop: int) -> list[memoryview]:
        index = bisect_right(self._ends, start)
        first = start - (self._ends[index - 1] if index else 0)
        pieces: list[memoryview] = []
        while start < stop:
            count = min(stop, self._ends[index]) - start
            pieces.append(self._parts[index][first : first + count])
            start, index, first = start + count, index + 1, 0
        return pieces


class BufferSink:
    """Takes a content into one buffer, so that its arrays are writable and never copied (``net.Sink``)."""

    def __init__(self, size: int) -> None:
        """Allocate *size* bytes."""
        self.buffer: bytearray | mmap.mmap = memory(size) if size >= SMALLEST else bytearray(size)

    @property
    def size(self) -> int:
        """Total number of bytes."""
        return len(self.buffer)

    def write(self, offset: int, data: memoryview) -> None:
        """Take the next bytes."""
        self.buffer[offset : offset + len(data)] = data

    def close(self) -> None:
        """Do nothing: it is memory."""


class FileBufferSink(BufferSink):
    """Reads them from the hub's file *fd*, which it owns, if they are there (``net.FileSink``)."""

    def __init__(self, size: int, fd: int) -> None:
        """Allocate *size* bytes."""
        super().__init__(size)
        self._fd = fd

    def placed(self, offset: int, count: int) -> None:
        """Read the next bytes. Raises OSError."""
        with memoryview(self.buffer) as view:
            read(self._fd, view, offset, offset + count)

    def close(self) -> None:
        """Close the file; harmless when done."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        """Close it: the client has gone."""
        self.close()


def sink_for(content: Content, hub_pid: int) -> BufferSink:
    """Return where *content* goes; *hub_pid* is the hub's process, if it is on this host."""
    if content.path:
        try:
            return FileBufferSink(content.size, take(content.path, content.size, hub_pid))
        except OSError as error:
            log.debug("a value of %d bytes comes by wire: %s", content.size, error)
    return BufferSink(content.size)
