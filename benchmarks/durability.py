"""What durability costs: the rate of balanced no-ops with the store on, over the rate with the store off.

Two clusters run side by side and take turns, so that what else happens on the machine hits both alike. The bar is 0.7.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time

import ippmpi as ipp

BAR = 0.7


def noop() -> None:
    """Do nothing."""


def rate(view: ipp.LoadBalancedView, tasks: int) -> float:
    """Return tasks per second, from the first submission to the last result."""
    began = time.perf_counter()
    for result in [view.apply_async(noop) for _ in range(tasks)]:
        result.get()
    return tasks / (time.perf_counter() - began)


def started(stack: contextlib.ExitStack, store: str, n: int, engines: str) -> ipp.LoadBalancedView:
    """Start a cluster whose controller has that store; it ends with *stack*."""
    os.environ["IPPMPI_CONTROLLER_STORE"] = store
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    return stack.enter_context(ipp.Cluster(n=n, engines=engines, profile_dir=folder)).load_balanced_view()


def main() -> int:
    """Measure and print; return 1 if the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=4, help="engines (default: %(default)s)")
    parser.add_argument("--engines", default="mpi", help="launcher (default: %(default)s)")
    parser.add_argument("--tasks", type=int, default=2000, help="tasks a turn (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each (default: %(default)s)")
    args = parser.parse_args()
    rates: dict[str, list[float]] = {"disk": [], "none": []}
    with contextlib.ExitStack() as stack:
        views = {store: started(stack, store, args.n, args.engines) for store in rates}
        for view in views.values():
            rate(view, args.tasks)  # warm
        for turn in range(args.rounds):
            for store in rates if turn % 2 else reversed(rates):
                rates[store].append(rate(views[store], args.tasks))
    on, off = statistics.median(rates["disk"]), statistics.median(rates["none"])
    ratios = sorted(a / b for a, b in zip(rates["disk"], rates["none"], strict=True))
    print(f"store on:  {on:8.0f} tasks/s (median of {args.rounds}; {min(rates['disk']):.0f}-{max(rates['disk']):.0f})")
    print(f"store off: {off:8.0f} tasks/s (median of {args.rounds}; {min(rates['none']):.0f}-{max(rates['none']):.0f})")
    print(f"ratio:     {on / off:8.2f} (bar: >= {BAR}; single turns {ratios[0]:.2f}-{ratios[-1]:.2f})")
    return 0 if on / off >= BAR else 1


if __name__ == "__main__":
    raise SystemExit(main())
