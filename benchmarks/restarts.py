"""A controller that is killed under load and started again, 20 times: what is lost, what runs twice, how long it takes.

Every task writes its name into a file of its engine, so a second run is seen. Recovery is the time from SIGKILL until a
task that was submitted right after it has its result. The bars: nothing lost, nothing twice, each within 10 s.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import ippmpi as ipp

BAR_S = 10.0


def note(folder: str, name: str, pause_s: float) -> str:
    """Write *name* down, work for a moment, and return it."""
    import os
    import pathlib
    import time

    with open(pathlib.Path(folder, str(os.getpid())), "a") as file:
        file.write(f"{name}\n")
    time.sleep(pause_s)
    return name


class Load(threading.Thread):
    """Keeps tasks under way: mostly balanced ones, and every tenth to all engines."""

    def __init__(self, rc: ipp.Client, folder: Path, under_way: int, pause_s: float) -> None:
        """Begin when ``start`` is called."""
        super().__init__(name="load")
        self._balanced, self._everyone = rc.load_balanced_view(), rc[:]
        self._folder, self._under_way, self._pause_s = str(folder), under_way, pause_s
        self._end = threading.Event()
        self.results: list[tuple[str, ipp.AsyncResult]] = []
        self.done = 0

    def run(self) -> None:
        """Submit until told to end."""
        while not self._end.is_set():
            while self.done < len(self.results) and self.results[self.done][1].ready():
                self.done += 1
            if len(self.results) - self.done < self._under_way:
                self._submit(len(self.results))
            else:
                time.sleep(0.002)

    def _submit(self, number: int) -> None:
        view = self._everyone if number % 10 == 0 else self._balanced
        name = f"{'all' if number % 10 == 0 else 'one'}-{number}"
        self.results.append((name, view.apply_async(note, self._folder, name, self._pause_s)))

    def end(self) -> None:
        """Submit nothing more."""
        self._end.set()
        self.join()


def recovery_s(cluster: ipp.Cluster, rc: ipp.Client) -> float:
    """Kill the controller, start it again, and return how long nothing could be had."""
    process = cluster.controller
    assert process is not None
    began = time.monotonic()
    os.kill(process.identity.pid, signal.SIGKILL)
    while process.poll() is None:
        time.sleep(0.001)
    results = [view.apply_async(os.getpid) for view in (rc[:], rc.load_balanced_view())]
    cluster.restore_controller_sync()
    for result in results:
        result.get(timeout=60)
    return time.monotonic() - began


def main() -> int:
    """Measure and print; return 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=4, help="engines (default: %(default)s)")
    parser.add_argument("--engines", default="mpi", help="launcher (default: %(default)s)")
    parser.add_argument("--kills", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--between", type=int, default=100, help="tasks that end before the next kill (default: 100)")
    parser.add_argument("--pause", type=float, default=0.005, help="seconds that a task takes (default: %(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        profile, notes = Path(folder, "profile"), Path(folder, "notes")
        notes.mkdir()
        cluster = ipp.Cluster(n=args.n, engines=args.engines, profile_dir=str(profile))
        with cluster as rc:
            load = Load(rc, notes, under_way=100, pause_s=args.pause)
            load.start()
            times = []
            for _ in range(args.kills):
                goal = load.done + args.between
                while load.done < goal and load.is_alive():
                    time.sleep(0.002)
                times.append(recovery_s(cluster, rc))
            load.end()
            lost = [f"{name}: {problem}" for name, result in load.results if (problem := wrong(name, result, args.n))]
        ran = Counter(name for file in notes.iterdir() for name in file.read_text().split())
    twice = [name for name, count in ran.items() if count > (args.n if name.startswith("all") else 1)]
    print(f"{len(load.results)} tasks, {args.kills} kills: {len(lost)} lost, {len(twice)} run twice")
    for line in (*lost[:10], *twice[:10]):
        print("  ", line, file=sys.stderr)
    print(f"recovery: median {statistics.median(times):.2f} s, worst {max(times):.2f} s (bar: <= {BAR_S:g} s)")
    return 1 if lost or twice or max(times) > BAR_S else 0


def wrong(name: str, result: ipp.AsyncResult, n: int) -> str:
    """Return what is wrong with a task's result; "" if nothing is."""
    try:
        value = result.get(timeout=60)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "" if value == (name if name.startswith("one") else [name] * n) else f"returned {value!r}"


if __name__ == "__main__":
    raise SystemExit(main())
