"""Waiting for engines and for several results at once."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Any

from ippmpi.client.collector import Collector
from ippmpi.client.engines import Engines
from ippmpi.client.requests import Pending


def wait_for_engines(
    engines: Engines, n: int, timeout_s: float | None, *, block: bool, interactive: bool
) -> Future[None] | None:
    """Wait for *n* engines, see ``Client.wait_for_engines``."""
    if not block:
        return _in_background(engines, n, timeout_s)
    if interactive and len(engines) < n:
        from ippmpi.client.progress import wait_for_engines

        wait_for_engines(engines, n, timeout_s)
    else:
        engines.wait_for(n, timeout_s)
    return None


def _in_background(engines: Engines, n: int, timeout_s: float | None) -> Future[None]:
    future: Future[None] = Future()

    def run() -> None:
        try:
            engines.wait_for(n, timeout_s)
        except Exception as problem:  # it is the outcome
            future.set_exception(problem)
        else:
            future.set_result(None)

    threading.Thread(target=run, name=f"ippmpi waits for {n} engines", daemon=True).start()
    return future


def wait_for_jobs(pending: Mapping[str, Pending], jobs: Any, timeout_s: float | None) -> bool:
    """Wait until *jobs* (also collectors) have ended, however; see ``Client.wait``."""
    waiting = Countdown()
    for job in flat(jobs):
        if isinstance(job, str):
            task = pending.get(job)
            if task is not None:
                waiting.add(task.collector.on_end)
        elif isinstance(job, Collector):
            waiting.add(job.on_end)
        else:
            waiting.add(lambda done, job=job: job.add_done_callback(lambda _: done()))
    return waiting.wait(timeout_s)


def flat(jobs: Any) -> list[Any]:
    """Return the jobs in any nest of iterables."""
    if isinstance(jobs, str | Collector) or hasattr(jobs, "add_done_callback"):
        return [jobs]
    if isinstance(jobs, Iterable):
        return [one for job in jobs for one in flat(job)]
    raise TypeError(f"wait() needs task ids, results or other futures, not {jobs!r}")


class Countdown:
    """Counts things that have not ended."""

    def __init__(self) -> None:
        """Start with none."""
        self.left = 0
        self._changed = threading.Condition()

    def add(self, on_end: Any) -> None:
        """Count one more; *on_end* registers what is to be called at its end."""
        with self._changed:
            self.left += 1
        on_end(self._ended)

    def _ended(self) -> None:
        with self._changed:
            self.left -= 1
            self._changed.notify_all()

    def wait(self, timeout_s: float | None) -> bool:
        """Wait for all; return whether they ended in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self.left == 0, timeout_s)
