"""Time the start: from ``Cluster(...)`` to the first results of all ranks, against bare ranks that only import.

``python benchmarks/start.py`` takes turns with ``mpiexec -n N python -c "from mpi4py import MPI; import zmq"`` and
prints medians and whether the bars are met. Each start is that of a fresh process. Close everything else first.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RANKS = (4, 16, 64)
BARE = "from mpi4py import MPI; import zmq"
LIMIT_S = 300


def bar_s(ranks: int, bare_s: float) -> float:
    """Return what a start may take: 0.8 s more than bare ranks, or with very many half as long again."""
    return bare_s * 1.5 if ranks > 16 else bare_s + 0.8


def noop() -> None:
    """Do nothing."""


def one_start_s(ranks: int) -> float:
    """Start a cluster, call all ranks, stop it; return the time until the results were there."""
    import ippmpi as ipp

    started = time.perf_counter()
    with ipp.Cluster(n=ranks, engines="mpi", engine_timeout=LIMIT_S) as rc:
        rc[:].apply_sync(noop)
        return time.perf_counter() - started


def ours_s(ranks: int) -> float:
    """Do that in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="ippmpi-start-") as folder:
        command = [sys.executable, str(Path(__file__).resolve()), "--one", str(ranks)]
        environment = {**os.environ, "IPYTHONDIR": folder}
        return float(subprocess.check_output(command, cwd=folder, env=environment, text=True, timeout=LIMIT_S))


def bare_s(ranks: int) -> float:
    """Start bare ranks; return the time until all have ended."""
    mpiexec = Path(sys.executable).parent / "mpiexec"
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    started = time.perf_counter()
    subprocess.run(
        [mpiexec, "-n", str(ranks), sys.executable, "-c", BARE], check=True, timeout=LIMIT_S, env={**os.environ, **root}
    )
    return time.perf_counter() - started


def compare(ranks: int, rounds: int) -> bool:
    """Take turns, print; return whether the bar is met."""
    ours, bare = [], []
    for turn in range(rounds + 1):
        pair = (ours_s(ranks), bare_s(ranks))
        if turn or rounds == 1:  # the first ones read the files from disk
            ours.append(pair[0])
            bare.append(pair[1])
    mine, floor = statistics.median(ours), statistics.median(bare)
    bar = bar_s(ranks, floor)
    more = statistics.median(a - b for a, b in zip(ours, bare, strict=True))
    print(
        f"{ranks:3} ranks: {mine:6.2f} s ({min(ours):.2f}-{max(ours):.2f}), bare {floor:6.2f} s ({min(bare):.2f}-"
        f"{max(bare):.2f}), {more:+.2f} s, x {mine / floor:.2f}; bar {bar:.2f} s: {'met' if mine <= bar else 'MISSED'}",
        flush=True,
    )
    return mine <= bar


def main() -> int:
    """Measure and print; return 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description="Time the start of clusters.")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of which the median is taken (default: 5)")
    parser.add_argument("--ranks", default=",".join(map(str, RANKS)), help="numbers of ranks (default: %(default)s)")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(one_start_s(chosen.one))
        return 0
    met = [compare(ranks, chosen.rounds) for ranks in map(int, chosen.ranks.split(","))]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
