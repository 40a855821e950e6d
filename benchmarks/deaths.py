"""How soon a killed rank is told: from SIGKILL to the error at the prompt, 20 times for each launcher.

The bars: each within 2 s, each with the right cause.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import tempfile
import time
from pathlib import Path

import ippmpi as ipp

BAR_S = 2.0


def sleep(folder: str) -> None:
    """Say that the task runs, by a file, and sleep."""
    import os
    import pathlib
    import time

    pathlib.Path(folder, str(os.getpid())).touch()
    time.sleep(60)


def once(rc: ipp.Client, victim: int, folder: Path) -> tuple[float, str]:
    """Kill one rank that runs a task; return the seconds until the error, and what is wrong with it ("": nothing)."""
    pid = rc[victim].apply_sync(os.getpid)
    result = rc[victim].apply_async(sleep, str(folder))
    deadline = time.monotonic() + 10
    while not (folder / str(pid)).exists():
        if time.monotonic() > deadline:
            return 0.0, "the task did not start"
        time.sleep(0.001)
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    error = result.exception(timeout=30)
    took_s = time.monotonic() - began
    text = str(error)
    missing = [word for word in (f"rank {victim}", str(pid), "SIGKILL") if word not in text]
    if not isinstance(error, ipp.EngineError) or missing:
        return took_s, f"{type(error).__name__} without {', '.join(missing)}: {text}"
    return took_s, ""


def measured(engines: str, n: int, runs: int) -> bool:
    """Do all runs with one launcher and print them; return whether the bars are met."""
    times, wrong = [], []
    with tempfile.TemporaryDirectory() as folder, ipp.Cluster(n=n, engines=engines, profile_dir=folder) as rc:
        for run in range(runs):
            took_s, problem = once(rc, run % n, Path(folder))
            times.append(took_s)
            wrong += [problem] * bool(problem)
            rc.worlds["0"].restart(timeout=60)
    ordered = sorted(times)
    in_time = sum(took_s <= BAR_S for took_s in times)
    print(
        f"{engines:6} {runs - len(wrong)} of {runs} with the right cause, {in_time} within {BAR_S:g} s; "
        f"median {statistics.median(ordered) * 1e3:.0f} ms, 90 % {ordered[int(0.9 * (runs - 1))] * 1e3:.0f} ms, "
        f"slowest {ordered[-1] * 1e3:.0f} ms"
    )
    print("       ms:", " ".join(f"{took_s * 1e3:.0f}" for took_s in ordered))
    for problem in wrong:
        print("       wrong:", problem)
    return in_time == runs and not wrong


def main() -> int:
    """Measure and print; return 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=2, help="engines (default: %(default)s)")
    parser.add_argument("--engines", nargs="+", default=["local", "mpi"], help="launchers (default: local mpi)")
    parser.add_argument("--runs", type=int, default=20, help="kills with each launcher (default: %(default)s)")
    args = parser.parse_args()
    met = [measured(engines, args.n, args.runs) for engines in args.engines]
    return 0 if all(met) else 1


if __name__ == "__main__":
    raise SystemExit(main())
