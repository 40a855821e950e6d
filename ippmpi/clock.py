"""The time of day for records, from a clock that does not jump: when somebody sets the system's clock, ages stay right.

It is the system's time of day when this process started, and goes on from there. What waits uses ``time.monotonic``.
"""

from __future__ import annotations

import time

_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # the first counts the time a laptop sleeps, too

_START = time.time() - time.clock_gettime(_STEADY)


def now() -> float:
    """Return seconds since the epoch."""
    return _START + time.clock_gettime(_STEADY)
