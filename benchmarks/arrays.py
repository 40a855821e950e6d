"""How fast 64 MB arrays go to engines and back: on one host, and over TCP with CURVE.

    python benchmarks/arrays.py [--ranks 4 16] [--rounds 7]

Times are medians of single blocking calls, warm. "read" adds one pass over the array that came, since pages that
nobody has touched may cost nothing. The copy is numpy's of the same array, in the same run: what memory does here.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

import ippmpi as ipp

ARRAY_BYTES = 64 * 1024 * 1024


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--engines", default="mpi", help="the launcher: mpi or local")
    return parser.parse_args()


def report(what: str, call: Callable[[], object], rounds: int) -> None:
    """Time *call* and print it."""
    for _ in range(2):
        call()
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    middle = statistics.median(times)
    print(
        f"{what:<34} {middle * 1e3:7.1f} ms  {ARRAY_BYTES / middle / 1e9:6.2f} GB/s  (best {min(times) * 1e3:.1f} ms)"
    )


@contextmanager
def cluster(ranks: int, engines: str, transport: str) -> Iterator[ipp.Client]:
    """Run a cluster whose agent, and whose client, use *transport* (auto or tcp)."""
    os.environ["IPPMPI_AGENT_TRANSPORT"] = transport
    with ipp.Cluster(n=ranks, engines=engines) as rc:
        rc[:].apply_sync(os.getpid)
        yield rc


def measure(rc: ipp.Client, array: np.ndarray, where: str, *, single: bool, rounds: int) -> None:
    """Time everything with one cluster; *single*: also to and from one engine."""
    one, everyone, ranks = rc[0], rc[:], len(rc)
    if single:
        report(f"{where}: push to one", lambda: one.push({"a": array}, block=True), rounds)
        report(f"{where}: pull from one", lambda: one.pull("a", block=True), rounds)
        report(f"{where}: pull from one, read", lambda: one.pull("a", block=True).max(), rounds)
        report(f"{where}: apply, engine reads", lambda: one.apply_sync(np.max, array), rounds)
    report(f"{where}: push to {ranks}", lambda: everyone.push({"a": array}, block=True), rounds)


def main() -> None:
    """Measure and print."""
    chosen = options()
    array = np.random.default_rng(seed=0).integers(0, 256, ARRAY_BYTES, dtype=np.uint8)
    report("numpy copy", array.copy, chosen.rounds)
    for ranks in chosen.ranks:
        with cluster(ranks, chosen.engines, "auto") as rc:
            measure(rc, array, "one host", single=ranks == chosen.ranks[0], rounds=chosen.rounds)
    with cluster(chosen.ranks[0], chosen.engines, "tcp") as rc:
        measure(rc, array, "agent by TCP", single=True, rounds=chosen.rounds)


if __name__ == "__main__":
    main()
