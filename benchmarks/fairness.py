"""Measure that small tasks are fast and nothing waits behind a slow one, with the same build and settings.

``python benchmarks/fairness.py`` starts 4 ranks and prints medians: the rate of a map of 20,000 no-ops, and how
close uneven work comes to the best that 4 engines can do. Close everything else first.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import ippmpi as ipp

NOOPS = 20_000
RANKS = 4
IPYPARALLEL_PER_S = 400
"""What ipyparallel 9 did on the same machine: 330 to 450 items a second."""


class Row(NamedTuple):
    """One line: what was measured, its bar, and whether the bar is a least value."""

    label: str
    values: list[float]
    unit: str
    bar: float
    least: bool = False

    def __str__(self) -> str:
        """Show median, range, bar, and whether it was met."""
        middle = statistics.median(self.values)
        met = middle >= self.bar if self.least else middle <= self.bar
        low, high = min(self.values), max(self.values)
        sign = ">=" if self.least else "<="
        numbers = f"{middle:10,.3g}" if middle < 1000 else f"{middle:10,.0f}"
        spread = f"({low:,.3g} to {high:,.3g})" if high < 1000 else f"({low:,.0f} to {high:,.0f})"
        bar = f"{sign} {self.bar:,g} {self.unit}"
        return f"{self.label:58} {numbers} {self.unit:4} {spread:24} bar {bar:16} {'met' if met else 'MISSED'}"


def noop(item: int) -> int:
    """Return the argument."""
    return item


def busy(seconds: float) -> float:
    """Sleep, since engines may be more than cores, and what is measured is who waits for whom; return how long."""
    import time

    started = time.perf_counter()
    time.sleep(seconds)
    return time.perf_counter() - started


def took_s(call: Callable[[], object]) -> float:
    """Return the time of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def short_beside_long_s(view: ipp.LoadBalancedView, long_s: float) -> float:
    """Submit one long task and 100 short ones; return when the last short one was done."""
    started = time.perf_counter()
    long = view.apply_async(busy, long_s)
    for result in [view.apply_async(noop, i) for i in range(100)]:
        result.get()
    took = time.perf_counter() - started
    long.cancel()
    long.wait()
    return took


def pareto_ratios(view: ipp.LoadBalancedView, seed: int) -> tuple[float, float]:
    """Map over 2,000 heavy-tailed times; return the time it took by that of the ideal schedule.

    Of the times that were asked for, and of those that the items really slept.
    """
    source = random.Random(seed)
    times = [0.001 * source.paretovariate(1.5) for _ in range(2000)]
    started = time.perf_counter()
    slept = view.map_sync(busy, times)
    took = time.perf_counter() - started
    return took / ideal_s(times), took / ideal_s(slept)


def ideal_s(times: list[float]) -> float:
    """Return a bound that no schedule on all ranks can beat."""
    return max(sum(times) / RANKS, max(times))


def rows(view: ipp.LoadBalancedView, rounds: int, long_s: float) -> list[Row]:
    """Measure everything *rounds* times."""

    def repeated(measure: Callable[[int], float]) -> list[float]:
        return [measure(number) for number in range(rounds)]

    fast = 200 * IPYPARALLEL_PER_S
    pareto = [pareto_ratios(view, number) for number in range(rounds)]
    return [
        Row("map of 20,000 no-ops", repeated(lambda _: noop_rate(view.map_sync)), "/s", fast, least=True),
        Row(
            "imap of 20,000 no-ops", repeated(lambda _: noop_rate(lambda *a: list(view.imap(*a)))), "/s", 0, least=True
        ),
        Row("4 items of 1 s on 4 ranks", repeated(lambda _: took_s(lambda: view.map_sync(busy, [1.0] * 4))), "s", 1.3),
        Row(
            f"100 short tasks beside one of {long_s:g} s",
            repeated(lambda _: short_beside_long_s(view, long_s)),
            "s",
            1.0,
        ),
        Row("2,000 items, Pareto 1.5 from 1 ms: times the ideal", [asked for asked, _ in pareto], "x", 1.2),
        Row("... times the ideal of what the items really slept", [slept for _, slept in pareto], "x", 1.2),
    ]


def noop_rate(mapped: Callable[..., object]) -> float:
    """Return the items per second of one map."""
    return NOOPS / took_s(lambda: mapped(noop, range(NOOPS)))


def main() -> None:
    """Start a cluster, measure, print."""
    parser = argparse.ArgumentParser(description="Measure maps and fairness.")
    parser.add_argument("--rounds", type=int, default=5, help="runs of which the median is taken (default: 5)")
    parser.add_argument("--long", type=float, default=30.0, help="seconds of the long task (default: 30)")
    chosen = parser.parse_args()
    with ipp.Cluster(n=RANKS, engines="mpi") as rc:
        view = rc.load_balanced_view()
        view.map_sync(noop, range(1000))
        for row in rows(view, chosen.rounds, chosen.long):
            print(row, flush=True)


if __name__ == "__main__":
    main()
