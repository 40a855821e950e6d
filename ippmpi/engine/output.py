"""Everything that this process prints, whoever prints it, goes into two pipes that the agent reads.

Descriptors 1 and 2 become pipes, so C, Fortran and child processes are captured too. The engine
keeps both ends: without a reader a print would raise SIGPIPE when an agent dies. It never reads
them itself, for C code may print with the GIL held and the pipe full.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable
from typing import TextIO

from ippmpi.wire.marks import mark

_LINE_BUFFERED = 1  # _IOLBF of glibc and musl


class Output:
    """The captured output.

    Attributes:
        stdout_fd: read end of what is printed.
        stderr_fd: read end of errors.
        last_words: descriptor of the standard error that this process was started with.
        owner: the task that prints now, or did last.
    """

    def __init__(self, stdout_fd: int, stderr_fd: int, last_words: int, ends: tuple[int, ...] = ()) -> None:
        """Belong to pipes that are in place, with these write *ends*; see ``capture``."""
        self.stdout_fd = stdout_fd
        self.stderr_fd = stderr_fd
        self.last_words = last_words
        self.owner = ""
        self._ends = ends
        self._flush_c: Callable[[], None] | None = None

    def flush(self) -> None:
        """Push what Python and C hold back into the pipes. Blocks while they are full."""
        for stream in (sys.stdout, sys.stderr):
            try:  # noqa: SIM105 - suppress() would be four more calls for each task
                stream.flush()
            except Exception:  # the user's own object, or closed, or None
                pass
        if self._flush_c is None:
            self._flush_c = _c_flush()
        self._flush_c()

    def begin(self, task: str, *, known: bool) -> None:
        """Say in both pipes that what follows belongs to *task*, unless that is *known*. Blocks while they are full."""
        before, self.owner = self.owner, task
        if known:
            return
        data = mark(task, before)
        for end in self._ends:
            os.write(end, data)  # in one piece, as it is shorter than PIPE_BUF

    def prepare(self) -> None:
        """Make C's ``printf`` line-buffered; a program that writes to a pipe would keep 4 KB back."""
        if self._flush_c is None:
            self._flush_c = _c_flush()


def capture() -> Output:
    """Put the pipes in place, with standard input empty."""
    last_words = os.dup(2)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    (stdout_fd, stdout_end), (stderr_fd, stderr_end) = _pipe_into(1), _pipe_into(2)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    sys.stdout = sys.__stdout__ = _stream(1)  # type: ignore[misc,assignment] # ours replace the interpreter's
    sys.stderr = sys.__stderr__ = _stream(2)  # type: ignore[misc,assignment]
    os.environ["GFORTRAN_UNBUFFERED_PRECONNECTED"] = "1"  # read when a Fortran library is loaded
    return Output(stdout_fd, stderr_fd, last_words, (stdout_end, stderr_end))


def _pipe_into(number: int) -> tuple[int, int]:
    read, write = os.pipe()
    os.dup2(write, number)  # inheritable, unlike the rest
    return read, write


def _stream(number: int) -> TextIO:
    raw = io.BufferedWriter(io.FileIO(number, "w", closefd=False))  # unbuffered, a signal would cut a write short
    return io.TextIOWrapper(raw, "utf-8", "backslashreplace", line_buffering=True, write_through=True)


def _c_flush() -> Callable[[], None]:
    import ctypes

    try:
        libc = ctypes.CDLL(None)
        stdout = ctypes.c_void_p.in_dll(libc, "stdout")
        libc.setvbuf(stdout, None, _LINE_BUFFERED, 0)
        flush = libc.fflush
    except (OSError, ValueError, AttributeError):  # a C library of another kind
        return lambda: None
    flush.argtypes = (ctypes.c_void_p,)

    def flush_stdout() -> None:
        flush(stdout)  # not fflush(NULL): that waits for every stream that any thread is reading; stderr has no buffer

    return flush_stdout
