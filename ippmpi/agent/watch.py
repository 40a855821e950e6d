"""Notices within milliseconds that a rank's process is gone, and finds out how it ended.

A rank is not the agent's child, so its status comes from the record that its parent writes (see
``native/``). The process is named by a pidfd, or where the kernel has none by pid and start time.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ippmpi.agent.causes import Ending, parse
from ippmpi.agent.seams import Loop, Timer
from ippmpi.identity import identify

_log = logging.getLogger(__name__)

POLL_S = 0.5
"""Between two looks at a process where the kernel has no pidfd."""

RECORD_WAIT_S = 0.5
"""How long the record of a dead rank is waited for."""

SETTLE_S = 0.03
"""At least this long after the death it is reported: what the rank sent last is still on its way."""

_RECORD_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Watched:
    """A process. ``started`` is in clock ticks since boot; ``record`` where its parent will write, if it does."""

    pid: int
    started: int
    record: Path | None


class Watch:
    """Waits for the end of one process, then calls ``on_end`` once."""

    def __init__(self, loop: Loop, watched: Watched, on_end: Callable[[Ending], None]) -> None:
        """Start to watch; a process that is gone already is reported like one that goes now."""
        self._loop = loop
        self._watched = watched
        self._on_end = on_end
        self._timer: Timer | None = None
        self._waited_s = 0.0
        self._pidfd = _open_pidfd(watched.pid)
        # in this order: the pidfd names whoever has the pid now, the start time says whether that is our process
        if not self._lives():
            self._ended()
        elif self._pidfd >= 0:
            loop.add_reader(self._pidfd, self._ended)
        else:
            self._poll()

    def send(self, number: int) -> bool:
        """Send signal *number*; say whether the process was there. Raises OSError if that is not allowed."""
        if not self._lives():
            return False
        try:
            if self._pidfd >= 0:
                signal.pidfd_send_signal(self._pidfd, number)
            else:
                os.kill(self._watched.pid, number)
        except ProcessLookupError:
            return False
        return True

    def close(self) -> None:
        """Stop watching."""
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _lives(self) -> bool:
        try:
            return identify(self._watched.pid).started == self._watched.started
        except ProcessLookupError:
            return False

    def _poll(self) -> None:
        if self._lives():
            self._timer = self._loop.call_later(POLL_S, self._poll)
        else:
            self._ended()

    def _ended(self) -> None:
        self.close()
        self._timer = self._loop.call_later(SETTLE_S, self._look_for_record)

    def _look_for_record(self) -> None:
        ending = self._read_record()
        if ending is None and self._watched.record is not None and self._waited_s < RECORD_WAIT_S:
            self._waited_s += _RECORD_POLL_S
            self._timer = self._loop.call_later(_RECORD_POLL_S, self._look_for_record)
            return
        self._timer = None
        self._on_end(ending or Ending())

    def _read_record(self) -> Ending | None:
        if self._watched.record is None:
            return None
        try:
            return parse(self._watched.record.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            _log.warning("exit record of pid %d: %s", self._watched.pid, error)
            return Ending()


def _open_pidfd(pid: int) -> int:
    """Return a pidfd, or -1: old kernel, or gone already."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return -1
