"""Measure mpi4py.futures; called by ``compare.py`` as ``mpiexec -n N+1 python -m mpi4py.futures``.

It has neither ranks by name nor state: "all engines" is as many tasks as there are workers, a push
is a task with a 64 MB argument, a pull is a task that returns 64 MB.
"""

from __future__ import annotations

import time

from _driver import TASKS, options
from _measure import emit, median_s, once_s, payload, versions
from mpi4py.futures import MPIPoolExecutor

kept: object = None


def noop() -> None:
    """Do nothing."""


def identity(value: int) -> int:
    """Return the argument."""
    return value


def keep(value: object) -> None:
    """Hold the argument, as a push does."""
    global kept
    kept = value


def give() -> object:
    """Return 64 MB that were made before."""
    global kept
    if kept is None:
        kept = payload()
    return kept


def all_workers(executor: MPIPoolExecutor, workers: int) -> None:
    """Run one no-op for each worker."""
    for future in [executor.submit(noop) for _ in range(workers)]:
        future.result()


def calls(executor: MPIPoolExecutor) -> dict[str, object]:
    """Time calls, tasks and payloads, warm."""
    array = payload()

    def submit_all() -> None:
        for future in [executor.submit(noop) for _ in range(TASKS)]:
            future.result()

    return {
        "apply_one_s": median_s(lambda: executor.submit(noop).result(), 200, warm=20),
        "tasks_s": once_s(submit_all) / TASKS,
        "map_s": once_s(lambda: list(executor.map(identity, range(TASKS)))) / TASKS,
        "push_one_s": median_s(lambda: executor.submit(keep, array).result(), 3, warm=1),
        "pull_one_s": median_s(lambda: executor.submit(give).result(), 3, warm=4),
    }


def main() -> None:
    """Do the phase named on the command line, print the results as JSON."""
    chosen = options()
    values: dict[str, object] = {"versions": versions("mpi4py", "mpich", "numpy")}
    with MPIPoolExecutor() as executor:
        all_workers(executor, chosen.n)
        values["start_s"] = time.time() - chosen.since
        values["apply_all_s"] = median_s(lambda: all_workers(executor, chosen.n), 100, warm=10)
        if chosen.phase == "calls":
            values |= calls(executor)
    if chosen.phase == "calls":
        with MPIPoolExecutor(backoff=0) as executor:
            values["apply_one_eager_s"] = median_s(lambda: executor.submit(noop).result(), 50)
    emit(values)


if __name__ == "__main__":
    main()
