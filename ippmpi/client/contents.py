"""Large contents on their way: straight from the memory of the user's arrays, straight into that of results."""

from __future__ import annotations

import mmap
import os
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

from ippmpi.handed import STEP_BYTES, memory, read

if TYPE_CHECKING:
    from collections.abc import Callable

    from ippmpi.wire.pickling import Blob


Flat = bytearray | bytes | mmap.mmap
"""A value that has arrived, to be unpickled."""

LARGE = 1 << 20
"""Bytes; smaller buffers come from memory that is warm already."""


class BlobSource:
    """Reads a blob part by part without joining it; keeps the parts' memory alive (``net.Source``)."""

    def __init__(self, blob: Blob) -> None:
        """Read from *blob*."""
        self._parts = [memoryview(part).cast("B") for part in blob.parts]
        self._ends = list(accumulate(len(part) for part in self._parts))

    @property
    def size(self) -> int:
        """Total number of bytes."""
        return self._ends[-1] if self._ends else 0

    def available(self) -> int:
        """Return the size: everything is there."""
        return self.size

    def read(self, start: int, stop: int) -> bytes | memoryview:
        """Return bytes *start* up to *stop*; a view of the user's memory if they lie in one part."""
        index = bisect_right(self._ends, start)
        first = start - (self._ends[index - 1] if index else 0)
        if stop <= self._ends[index]:
            return self._parts[index][first : first + stop - start]
        pieces: list[memoryview] = []
        while start < stop:
            take = min(stop, self._ends[index]) - start
            pieces.append(self._parts[index][first : first + take])
            start, index, first = start + take, index + 1, 0
        return b"".join(pieces)


class BufferSink:
    """Takes a content into one buffer, so that its arrays are writable and never copied (``net.Sink``)."""

    def __init__(self, size: int) -> None:
        """Allocate *size* bytes."""
        self.buffer: bytearray | mmap.mmap = memory(size) if size >= LARGE else bytearray(size)

    @property
    def size(self) -> int:
        """Total number of bytes."""
        return len(self.buffer)

    def write(self, offset: int, data: memoryview) -> None:
        """Take the next bytes."""
        self.buffer[offset : offset + len(data)] = data


class Fetching:
    """Reads a handed file into the buffer of *sink*, a step at a time: the thread has other work as well."""

    def __init__(
        self, fd: int, sink: BufferSink, call_soon: Callable[[Callable[[], None]], None], on_end: Callable[[bool], None]
    ) -> None:
        """Own *fd*, begin at once; *on_end* hears whether the content is whole."""
        self._fd = fd
        self._view = memoryview(sink.buffer)
        self._position = 0
        self._call_soon = call_soon
        self._on_end = on_end
        self._step()

    def _step(self) -> None:
        stop = min(self._position + STEP_BYTES, len(self._view))
        try:
            read(self._fd, self._view, self._position, stop)
        except OSError:
            self._end(whole=False)
            return
        self._position = stop
        if stop == len(self._view):
            self._end(whole=True)
        else:
            self._call_soon(self._step)

    def _end(self, *, whole: bool) -> None:
        os.close(self._fd)
        self._view.release()
        self._on_end(whole)
