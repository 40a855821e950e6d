"""``--daemonize``: a command goes on in a process of its own, in the background, once it says that all is ready.

It is the same process from the start, so what it has started are its children, and it learns how they end.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from .foreground import Ended, ending_signals

Ready = Callable[[Path], None]
"""Says that the command is ready, and where its output goes from now on."""


def in_background(work: Callable[[Ready], int]) -> int:
    """Do *work* in another process; return 0 once it has called its argument, or its exit code if it ends before.

    Returns in the other process too: what *work* returns.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(told)
        return work(lambda log_file: _leave(log_file, tell))
    os.close(tell)
    with ending_signals():
        return _wait(child, told)


def _wait(child: int, told: int) -> int:
    try:
        if os.read(told, 1):
            return 0
    except Ended:  # the other process ends what it has started, and says so
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGTERM)
    finally:
        os.close(told)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code if code >= 0 else 128 - code


def _leave(log_file: Path, tell: int) -> None:
    """Leave the terminal; from now on output goes to *log_file*."""
    log_file.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    sys.stdout.flush()
    sys.stderr.flush()
    os.setsid()
    for fd, stream in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(fd, stream)
    os.close(log)
    os.close(nothing)
    os.write(tell, b"\n")
    os.close(tell)
