"""Waiting with a progress bar."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from ippmpi.client.collector import Collector
from ippmpi.client.waiting import flat, wait_for_jobs

if TYPE_CHECKING:
    from ippmpi.client.engines import Engines
    from ippmpi.client.requests import Pending


class Countable(Protocol):
    """Something with a length of which a part is there."""

    @property
    def progress(self) -> int:
        """How much is there."""

    def __len__(self) -> int:
        """How much there will be."""

    def wait(self, timeout: float | None = -1) -> Any:
        """Wait for the rest."""


class Several:
    """Some calls (collectors, task ids, results or other futures), counted in results."""

    def __init__(self, pending: Mapping[str, Pending], jobs: Any) -> None:
        """Take *jobs*; ids that are not *pending* have ended."""
        self._pending = pending
        named = [(pending.get(job), None) if isinstance(job, str) else (None, job) for job in flat(jobs)]
        found = [job if task is None else task.collector for task, job in named]
        self._jobs = [job for job in dict.fromkeys(found) if job is not None]

    def __len__(self) -> int:
        """Count the results, of futures that are not ours one each."""
        return sum(_size(job) for job in self._jobs)

    @property
    def progress(self) -> int:
        """How many are there."""
        return sum(_progress(job) for job in self._jobs)

    def wait(self, timeout: float | None = -1) -> bool:
        """Wait for all; return whether they ended in time."""
        return wait_for_jobs(self._pending, self._jobs, timeout)


def _size(job: Any) -> int:
    if isinstance(job, Collector):
        return job.size
    return len(job) if hasattr(job, "__len__") else 1


def _progress(job: Any) -> int:
    found = getattr(job, "progress", None)
    return int(job.done()) if found is None else int(found)


def bar(total: int, unit: str, description: str) -> Any:
    """Return a progress bar fit for where this runs (terminal or notebook)."""
    from tqdm.auto import tqdm

    return tqdm(total=total, unit=unit, desc=description)


def _never() -> bool:
    return False


def wait_interactive(
    result: Countable,
    interval_s: float,
    timeout_s: float | None,
    description: str = "",
    enough: Callable[[], bool] = _never,
) -> bool:
    """Wait for *result* with a bar that moves every *interval_s* seconds; return whether it came in time.

    It need not come when there is *enough* of it.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    with bar(len(result), "task", description) as shown:
        while True:
            step = interval_s if deadline is None else max(0.0, min(interval_s, deadline - time.monotonic()))
            done = bool(result.wait(step))
            shown.update(result.progress - shown.n)
            if done or enough() or (deadline is not None and time.monotonic() >= deadline):
                return done


def wait_for_engines(engines: Engines, n: int, timeout_s: float | None) -> None:
    """Wait for *n* engines with a bar; raises as ``Engines.wait_for``."""
    with bar(n, "engine", "") as shown:

        def on_change() -> None:
            shown.update(min(n, len(engines)) - shown.n)

        on_change()
        engines.wait_for(n, timeout_s, on_change)
