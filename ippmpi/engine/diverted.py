"""Output of a while that is not for the agent: it goes into files of memory, which are read while they grow.

Not into pipes: who reads them is a thread of this process, and C code that prints with the GIL held would wait for it
for ever.
"""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Callable, Mapping

from ippmpi.engine.output import Output

STREAMS = {1: "stdout", 2: "stderr"}

CHUNK = 256 * 1024


class Diverted:
    """Descriptors 1 and 2 as a context manager: what is printed inside, by whomever, goes to *take*.

    ``look`` belongs to one thread, which has to call it once more after the end.
    """

    def __init__(self, output: Output, take: Callable[[str, str], None]) -> None:
        """Give *take* the name of a stream and text. *output* knows how to flush."""
        self._output = output
        self._take = take
        self._saved: dict[int, int] = {}
        self._files = {fd: os.memfd_create(f"ippmpi-{name}") for fd, name in STREAMS.items()}
        self._seen = dict.fromkeys(STREAMS, 0)
        self._decoders = {fd: codecs.getincrementaldecoder("utf-8")(errors="replace") for fd in STREAMS}

    def __enter__(self) -> None:
        """Begin. Main thread."""
        self._output.flush()
        for fd, file in self._files.items():
            self._saved[fd] = os.dup(fd)
            os.dup2(file, fd)

    def __exit__(self, *_: object) -> None:
        """End. Main thread. Child processes that live on write into files that nobody reads."""
        self._output.flush()
        for fd, saved in self._saved.items():
            os.dup2(saved, fd)
            os.close(saved)

    def now(self) -> dict[int, int]:
        """Return how far it has come, for ``look``. Main thread."""
        self._output.flush()
        return {fd: os.fstat(file).st_size for fd, file in self._files.items()}

    def look(self, until: Mapping[int, int] | None = None) -> None:
        """Take what is new, and was there when ``now`` returned *until*."""
        for fd, name in STREAMS.items():
            end = sys.maxsize if until is None else until[fd]
            while data := os.pread(self._files[fd], max(0, min(CHUNK, end - self._seen[fd])), self._seen[fd]):
                self._seen[fd] += len(data)
                text = self._decoders[fd].decode(data)
                if text:
                    self._take(name, text)

    def finish(self) -> None:
        """Take the rest and close the files."""
        self.look()
        for fd, name in STREAMS.items():
            rest = self._decoders[fd].decode(b"", True)
            if rest:
                self._take(name, rest)
            os.close(self._files[fd])
