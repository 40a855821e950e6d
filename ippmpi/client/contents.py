"""Large contents on their way: straight from the memory of the user's arrays, straight into that of results."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ippmpi.wire.pickling import Blob


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
        self.buffer = bytearray(size)

    @property
    def size(self) -> int:
        """Total number of bytes."""
        return len(self.buffer)

    def write(self, offset: int, data: memoryview) -> None:
        """Take the next bytes."""
        self.buffer[offset : offset + len(data)] = data
