"""A real controller and a real client with 160 simulated nodes of 128 ranks each, and the pure core alone.

The nodes (``_nodes.py``) speak the real protocol over TCP with CURVE, from one process; nothing of the controller is
replaced. With ``--ranks 64`` real MPI ranks are started on this machine instead, ``--times`` times. Each bar that
is missed makes this script return 1. Close everything else first: three processes share the cores.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from _hub import measure_core

import ippmpi as ipp
from ippmpi import connection

HERE = Path(__file__).resolve().parent
START_S = 20.0
REGISTER_S = 120.0


class Bar(NamedTuple):
    """One line of the table: the greatest value that will do (None: no bar)."""

    key: str
    label: str
    unit: str
    most: float | None = None


ROWS = (
    Bar("registered_s", "all registered, as a client sees it", "s", 10.0),
    Bar("call_all_s", "an empty call on all", "s", 0.25),
    Bar("resident_mb", "controller: resident memory, after the calls", "MB", 200.0),
    Bar("peak_mb", "controller: most resident memory ever", "MB", 200.0),
    Bar("idle_percent", "controller: idle CPU, of a core", "%", 1.0),
    Bar("call_one_s", "an empty call on one", "s"),
    Bar("balanced_s", "2,000 balanced no-ops, all", "s"),
    Bar("client_s", "another client connects", "s"),
    Bar("call_controller_s", "controller: CPU of an empty call on all", "s"),
    Bar("core_register_s", "core alone: all register", "s"),
    Bar("core_call_s", "core alone: a call on all, its replies", "s"),
)

Values = dict[str, list[float]]


def noop() -> None:
    """Do nothing."""


def took_s(call: Callable[[], object]) -> float:
    """Return the time of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


class Process:
    """What ``/proc`` says about a process."""

    def __init__(self, pid: int) -> None:
        """Look at *pid*."""
        self._folder = Path(f"/proc/{pid}")

    def megabytes(self, field: str) -> float:
        """Return ``VmRSS`` (now) or ``VmHWM`` (the most ever) in MB."""
        status = (self._folder / "status").read_text()
        return int(status.partition(f"{field}:")[2].split()[0]) * 1024 / 1e6

    def cpu_s(self) -> float:
        """Return the CPU time it has used."""
        fields = (self._folder / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def running_controller(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a controller as a cluster does, with its files in *folder*."""
    ready, tell = os.pipe()
    command = [sys.executable, "-m", "ippmpi.controller", "--profile-dir", str(folder), "--ready-fd", str(tell)]
    with (folder / "controller.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, pass_fds=(tell,))
    os.close(tell)
    try:
        if not select.select([ready], [], [], START_S)[0] or os.read(ready, 100) != b"ready\n":
            raise RuntimeError(f"the controller did not start: {(folder / 'controller.log').read_text()}")
        yield process
    finally:
        os.close(ready)
        process.terminate()
        process.wait(START_S)


@contextlib.contextmanager
def simulated_nodes(folder: Path, chosen: argparse.Namespace) -> Iterator[Callable[[], None]]:
    """Run the process of the nodes; what is yielded lets them join."""
    command = [sys.executable, str(HERE / "_nodes.py"), str(connection.path(folder, "engine", ""))]
    command += ["--agents", str(chosen.agents), "--each", str(chosen.each), *["--unix"] * chosen.unix]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise RuntimeError("the simulated nodes did not start")

        def join() -> None:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
            process.stdin.flush()

        yield join
        process.stdin.close()  # their cue to leave


def measure(chosen: argparse.Namespace, values: Values) -> None:
    """Do one round: start all, register, call, watch."""
    size = chosen.agents * chosen.each
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scale-")))
        controller = stack.enter_context(running_controller(folder))
        process = Process(controller.pid)
        join = stack.enter_context(simulated_nodes(folder, chosen))
        rc = stack.enter_context(ipp.Client(profile_dir=folder))
        started = time.perf_counter()
        join()
        rc.wait_for_engines(size, timeout=REGISTER_S)
        values["registered_s"].append(time.perf_counter() - started)
        check_order(rc, size)
        measure_calls(rc, process, chosen, values)
        values["client_s"].append(took_s(lambda: stack.enter_context(ipp.Client(profile_dir=folder))))
        values["peak_mb"].append(process.megabytes("VmHWM"))
        time.sleep(3 if chosen.idle else 0)  # what was used in the rush has been given back
        values["resident_mb"].append(process.megabytes("VmRSS"))
        if chosen.idle:
            values["idle_percent"].append(100 * idle_cpu_s(process, chosen.idle) / chosen.idle)
        rc.shutdown(hub=True)


def idle_cpu_s(process: Process, seconds: float) -> float:
    """Return the CPU time that *process* uses in some seconds."""
    before = process.cpu_s()
    time.sleep(seconds)
    return process.cpu_s() - before


def check_order(rc: ipp.Client, size: int) -> None:
    """Raise RuntimeError unless the ids are contiguous and each rank answers for itself, in their order."""
    if rc.ids != list(range(size)):
        raise RuntimeError(f"{len(rc.ids)} ids, {rc.ids[:3]}...{rc.ids[-3:]}, where 0 to {size - 1} were expected")
    ranks = rc[:].pull("rank", block=True)
    if ranks != rc.ids:
        raise RuntimeError(f"{len(ranks)} answers of {size} engines, or not in their order: {ranks[:8]}...")


def measure_calls(rc: ipp.Client, controller: Process, chosen: argparse.Namespace, values: Values) -> None:
    """Time calls on all ranks, on one, and on those that the controller chooses."""
    everyone, one, balanced = rc[:], rc[0], rc.load_balanced_view()
    for _ in range(2):
        everyone.apply_sync(noop)
    before = controller.cpu_s()
    times = [took_s(lambda: everyone.apply_sync(noop)) for _ in range(chosen.calls)]
    values["call_all_s"].append(statistics.median(times))
    time.sleep(0.2)  # the store writes
    values["call_controller_s"].append((controller.cpu_s() - before) / chosen.calls)
    values["call_one_s"].append(statistics.median(took_s(lambda: one.apply_sync(noop)) for _ in range(50)))
    values["balanced_s"].append(
        took_s(lambda: [result.get() for result in [balanced.apply_async(noop) for _ in range(2000)]])
    )


def real_ranks(n: int, times: int) -> int:
    """Start *n* real MPI ranks on this machine several times; return 1 unless all answered each time."""
    good, took = 0, []
    for number in range(times):
        started = time.perf_counter()
        try:
            with (
                tempfile.TemporaryDirectory(prefix="scale-") as folder,
                ipp.Cluster(n=n, engines="mpi", profile_dir=folder) as rc,
            ):
                answers = rc[:].apply_sync(os.getpid)
                took.append(time.perf_counter() - started)
                good += len(set(answers)) == n and rc.ids == list(range(n))
        except Exception as error:  # whatever it was, it is what this counts
            print(f"start {number + 1}: {type(error).__name__}: {error}", flush=True)
    middle = f"median {statistics.median(took):.1f} s, slowest {max(took):.1f} s" if took else "never"
    print(f"{n} MPI ranks on this machine: {good} of {times} times all have answered; {middle}")
    return 0 if good == times else 1


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=160, help="simulated nodes (default: %(default)s)")
    parser.add_argument("--each", type=int, default=128, help="ranks of each node (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, for the medians (default: %(default)s)")
    parser.add_argument("--calls", type=int, default=10, help="calls on all in each round (default: %(default)s)")
    parser.add_argument("--idle", type=float, default=20.0, help="seconds of idling, 0: none (default: %(default)s)")
    parser.add_argument(
        "--unix", action="store_true", help="nodes use the controller's Unix socket, not TCP with CURVE"
    )
    parser.add_argument("--core", action="store_true", help="only the pure core")
    parser.add_argument("--json", action="store_true", help="print all values as JSON, and no table")
    parser.add_argument("--ranks", type=int, default=0, help="start so many real MPI ranks instead")
    parser.add_argument("--times", type=int, default=20, help="how often (default: %(default)s)")
    return parser.parse_args()


def table(values: Values, title: str) -> bool:
    """Print the table; return whether all bars were met."""
    print(title)
    met = True
    for row in ROWS:
        if not values[row.key]:
            continue
        middle = statistics.median(values[row.key])
        text = (
            "" if row.most is None else f"bar <= {row.most:g} {row.unit:3} {'met' if middle <= row.most else 'MISSED'}"
        )
        met = met and (row.most is None or middle <= row.most)
        spread = f"({min(values[row.key]):.3g} to {max(values[row.key]):.3g})"
        print(f"{row.label:46} {middle:8.3g} {row.unit:3} {spread:20} {text}")
    return met


def main() -> int:
    """Measure and print; return 1 if a bar is missed."""
    chosen = options()
    if chosen.ranks:
        return real_ranks(chosen.ranks, chosen.times)
    values: Values = defaultdict(list)
    for _ in range(chosen.rounds):
        if not chosen.core:
            measure(chosen, values)
        for key, value in measure_core(chosen.agents, chosen.each).items():
            values[key].append(value)
    if chosen.json:
        print(json.dumps(values))
        return 0
    size = chosen.agents * chosen.each
    title = f"{chosen.agents} nodes of {chosen.each} ranks, {size:,} engines; medians of {chosen.rounds}"
    return 0 if table(values, title) else 1


if __name__ == "__main__":
    raise SystemExit(main())
