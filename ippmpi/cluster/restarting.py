"""Starting sets of engines again that ended by themselves: ``Cluster(restart="always")``."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable

log = logging.getLogger(__name__)

POLICIES = ("never", "always")

LOOK_S = 0.2
"""Between two looks at the launchers."""

MOST = 5
"""How often a set is started again within ``WINDOW_S`` before it is given up."""

WINDOW_S = 600.0

FIRST_PAUSE_S = 1.0
"""How long the second restart waits; each further one twice as long. The first is at once."""


class Restarts:
    """When a set may be started again, by set id. Times are of one monotonic clock."""

    def __init__(self) -> None:
        """Nothing was started again yet."""
        self._times: defaultdict[str, deque[float]] = defaultdict(deque)
        self._given_up: set[str] = set()

    def due(self, key: str, now: float) -> bool:
        """Say whether set *key*, which has ended, is to be started now; if so, that counts."""
        times = self._times[key]
        while times and now - times[0] > WINDOW_S:
            times.popleft()
        if len(times) >= MOST:
            if key not in self._given_up:
                self._given_up.add(key)
                log.error("engine set %r has ended %d times in %.0f s; it is given up", key, MOST + 1, WINDOW_S)
            return False
        if times and now - times[-1] < FIRST_PAUSE_S * 2 ** (len(times) - 1):
            return False
        self._given_up.discard(key)
        times.append(now)
        return True


class Restarter:
    """A thread that looks for sets that have ended."""

    def __init__(self, dead: Callable[[], Iterable[str]], restart: Callable[[str], None]) -> None:
        """*dead* names the sets that ended by themselves; *restart* starts one again, and logs what it cannot do."""
        self._dead = dead
        self._restart = restart
        self._restarts = Restarts()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ippmpi-cluster-restart", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._end.wait(LOOK_S):
            for key in self._dead():
                if self._restarts.due(key, time.monotonic()) and not self._end.is_set():
                    self._restart(key)

    def stop(self) -> None:
        """Start nothing more. Does not wait: what is being started needs the lock that our caller may hold."""
        self._end.set()
