"""A log that one bad peer cannot fill."""

from __future__ import annotations

import logging
import time

BURST = 20
EVERY_S = 10.0


class Quiet:
    """Passes on *burst* lines per *EVERY_S* seconds and counts the rest."""

    def __init__(self, log: logging.Logger, burst: int = BURST) -> None:
        """Write to *log*."""
        self._log = log
        self._burst = burst
        self._start = time.monotonic()
        self._count = 0

    def warning(self, text: str, *values: object, exc_info: bool = False) -> None:
        """Log a warning, with the present exception's traceback if *exc_info*, unless there were too many."""
        if self._may():
            self._log.warning(text, *values, exc_info=exc_info)

    def info(self, text: str, *values: object) -> None:
        """Log a line of information, unless there were too many."""
        if self._may():
            self._log.info(text, *values)

    def _may(self) -> bool:
        now = time.monotonic()
        if now - self._start > EVERY_S:
            if self._count > self._burst:
                self._log.warning("%d more lines of this kind were left out", self._count - self._burst)
            self._start, self._count = now, 0
        self._count += 1
        return self._count <= self._burst
