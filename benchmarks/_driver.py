"""The work itself, for the two tools with views: ippmpi and ipyparallel are driven by the same lines."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

from _measure import Roles, cpu_percent, emit, median_s, once_s, payload, processes, resident_mb, versions

TASKS = 2000
LOAD_TASKS, LOAD_PUSHES = 10_000, 10

Connected = Any
"""The Client of either tool; no type is common to both."""

Functions = tuple[Callable[[], None], Callable[[int], int]]
"""A no-op and an identity, defined in the ``__main__`` of the tool's script as users define theirs."""


def options() -> argparse.Namespace:
    """Read the command line that all tools' scripts share."""
    parser = argparse.ArgumentParser()
    parser.add_argument("phase", choices=["calls", "start", "memory", "idle"])
    parser.add_argument("-n", type=int, default=4, help="ranks")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the idle watch")
    parser.add_argument("--since", type=float, default=0.0, help="time() when the program was started")
    return parser.parse_args()


def calls(rc: Connected, noop: Callable[[], None], identity: Callable[[int], int]) -> dict[str, float]:
    """Time calls, tasks and payloads, warm."""
    one, everyone, balanced = rc[0], rc[:], rc.load_balanced_view()
    array = payload()

    def submit_all() -> None:
        for result in [balanced.apply_async(noop) for _ in range(TASKS)]:
            result.get()

    return {
        "apply_one_s": median_s(lambda: one.apply_sync(noop), 200, warm=20),
        "apply_all_s": median_s(lambda: everyone.apply_sync(noop), 100, warm=10),
        "tasks_s": once_s(submit_all) / TASKS,
        "map_s": once_s(lambda: balanced.map_sync(identity, range(TASKS))) / TASKS,
        "push_one_s": median_s(lambda: one.push({"payload": array}, block=True), 3, warm=1),
        "push_all_s": median_s(lambda: everyone.push({"payload": array}, block=True), 3, warm=1),
        "pull_one_s": median_s(lambda: one.pull("payload", block=True), 3, warm=1),
    }


def memory(rc: Connected, roles: Roles, noop: Callable[[], None]) -> dict[str, float]:
    """Weigh the processes before and after 10,000 tasks and ten 64 MB pushes to all ranks."""
    time.sleep(3)  # what starts in the background has started
    values = resident_mb(processes(roles), "idle")
    balanced = rc.load_balanced_view()
    for _ in range(10):
        for result in [balanced.apply_async(noop) for _ in range(LOAD_TASKS // 10)]:
            result.get()
    array = payload()
    for _ in range(LOAD_PUSHES):
        rc[:].push({"payload": array}, block=True)
    time.sleep(3)
    return {**values, **resident_mb(processes(roles), "loaded")}


def measure(ipp: ModuleType, roles: Roles, functions: Functions, packages: tuple[str, ...]) -> None:
    """Start a cluster, do the phase named on the command line, print the results as JSON."""
    chosen = options()
    noop, identity = functions
    values: dict[str, object] = {"versions": versions(*packages, "pyzmq", "mpi4py", "mpich", "numpy")}
    started = time.perf_counter()
    with ipp.Cluster(n=chosen.n, engines="mpi") as rc:
        rc[:].apply_sync(noop)
        values["start_s"] = time.perf_counter() - started
        if chosen.phase == "calls":
            values |= calls(rc, noop, identity)
        elif chosen.phase == "start":
            values["apply_all_s"] = median_s(lambda: rc[:].apply_sync(noop), 100, warm=10)
        elif chosen.phase == "memory":
            values |= memory(rc, roles, noop)
        else:
            time.sleep(5)
            values |= cpu_percent(processes(roles), chosen.seconds)
    emit(values)
