"""How fast 64 MB arrays go to engines and back, what that costs in memory, and whether the bars are met.

    python benchmarks/arrays.py [--rounds 5] [--ipyparallel PYTHON]

Times are medians of single blocking calls, warm. ipyparallel is measured in the same run by the Python named, which
has it (``make bench`` makes one in ``.bench/ipyparallel``); else its times are those of docs/performance.md. Ends
with 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _curve import Link

ARRAY_BYTES = 64 * 1024 * 1024
LARGE_BYTES = 2 << 30
PEER_S = {"push": 0.142, "pull": 0.132, "push to 16": 2.2}
"""Of ipyparallel 9.2, on 2 cores of an AMD EPYC that did nothing else."""

PROC = Path("/proc")


@dataclass(frozen=True)
class Row:
    """One line of the table; ``bar``: what *found* may be at most, in its own unit, and how that is said."""

    what: str
    found: float
    unit: str
    bar: float | None = None
    said: str = ""

    @property
    def missed(self) -> bool:
        """Whether the bar is missed."""
        return self.bar is not None and self.found > self.bar

    def __str__(self) -> str:
        """Return the line."""
        said = "" if self.bar is None else f"<= {self.bar:.0f} {self.unit} ({self.said})"
        met = "" if self.bar is None else "NO" if self.missed else "yes"
        return f"| {self.what:<44} | {self.found:7.1f} {self.unit} | {said:<44} | {met:<3} |"


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engines", default="mpi", help="ippmpi's launcher: mpi or local")
    parser.add_argument("--only", default="local,tcp,memory", help="which parts, separated by commas")
    parser.add_argument("--ipyparallel", metavar="PYTHON", help="measure ipyparallel too, with this Python")
    parser.add_argument("--as-ipyparallel", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def array() -> np.ndarray:
    """Return what is sent."""
    return np.random.default_rng(seed=0).integers(0, 256, ARRAY_BYTES, dtype=np.uint8)


def median_ms(call: Callable[[], object], rounds: int) -> float:
    """Return the median time of *call*, which is called twice before."""
    return statistics.median([once_ms(call) for _ in range(rounds + 2)][2:])


def once_ms(call: Callable[[], object]) -> float:
    """Return the time of one call."""
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1e3


def one_engine(rc: Any, sent: np.ndarray, rounds: int) -> tuple[float, float, float]:
    """Return the times of push, pull, and pull with one pass over what came."""
    one = rc[0]
    push = median_ms(lambda: one.push({"a": sent}, block=True), rounds)
    pull = median_ms(lambda: one.pull("a", block=True), rounds)
    return push, pull, median_ms(lambda: one.pull("a", block=True).max(), rounds)


# --- ipyparallel -----------------------------------------------------------------------------------


def measure_ipyparallel(rounds: int) -> None:
    """Print its times in seconds as JSON: this is its own process, in its own environment."""
    peer, found = importlib.import_module("ipyparallel"), {}
    for ranks in (1, 16):
        with peer.Cluster(n=ranks, engines="mpi", log_level=40) as rc:
            rc.wait_for_engines(ranks)
            if ranks == 1:
                push, pull, _ = one_engine(rc, array(), rounds)
                found = {"push": push / 1e3, "pull": pull / 1e3}
            else:
                everyone, sent = rc[:], array()
                found["push to 16"] = median_ms(lambda: everyone.push({"a": sent}, block=True), rounds) / 1e3  # noqa: B023
    print(json.dumps(found))


def peer_times(python: str | None, rounds: int) -> dict[str, float]:
    """Return ipyparallel's times in seconds, measured now if *python* has it."""
    if python is None:
        return PEER_S
    command = [python, __file__, "--as-ipyparallel", "--rounds", str(rounds)]
    with tempfile.TemporaryDirectory() as folder:
        own = {"PATH": f"{Path(python).parent}:{os.environ['PATH']}", "IPYTHONDIR": folder}
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | own)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


# --- ippmpi ----------------------------------------------------------------------------------------


@contextmanager
def cluster(ranks: int, engines: str, *, tcp: bool = False) -> Iterator[tuple[str, Any]]:
    """Run a cluster; return its folder and a client. With *tcp* the client, not the agent, is connected by TCP."""
    with tempfile.TemporaryDirectory() as folder:
        ipp = importlib.import_module("ippmpi")  # not there in ipyparallel's environment
        one = ipp.Cluster(n=ranks, engines=engines, profile_dir=folder, cluster_id="")
        try:
            one.start_and_connect_sync()
            found = json.loads(Path(folder, "security", "ipcontroller-client.json").read_text())
            with ipp.Client(found | ({"socket": ""} if tcp else {})) as rc:
                rc[:].apply_sync(os.getpid)
                yield folder, rc
        finally:
            one.stop_cluster_sync()


def local_rows(engines: str, rounds: int, peer: dict[str, float]) -> Iterator[Row]:
    """Measure all on one host."""
    sent = array()
    yield Row("numpy copies the array", median_ms(sent.copy, rounds), "ms")
    with cluster(4, engines) as (_, rc):
        push, pull, read = one_engine(rc, sent, rounds)
        yield Row("push to one engine", push, "ms", peer["push"] / 3e-3, "1/3 of ipyparallel")
        yield Row("pull from one engine", pull, "ms", peer["pull"] / 3e-3, "1/3 of ipyparallel")
        yield Row("... with a pass over what came", read, "ms")
        yield Row("push to all of 4", median_ms(lambda: rc[:].push({"a": sent}, block=True), rounds), "ms")
    with cluster(16, engines) as (_, rc):
        found = median_ms(lambda: rc[:].push({"a": sent}, block=True), rounds)
        yield Row("push to all of 16", found, "ms", peer["push to 16"] / 10e-3, "1/10 of ipyparallel")


def tcp_rows(engines: str, rounds: int) -> Iterator[Row]:
    """Measure with the client on TCP, in turn with a plain pair of sockets."""
    sent, link = array(), Link()
    with cluster(1, engines, tcp=True) as (_, rc):
        calls: dict[str, Callable[[], object]] = {
            "a plain CURVE link, messages of 1 MB": lambda: link.carry(sent.data),
            "TCP + CURVE: push to one engine": lambda: rc[0].push({"a": sent}, block=True),
            "TCP + CURVE: pull from one engine": lambda: rc[0].pull("a", block=True),
        }
        times = [[once_ms(call) for call in calls.values()] for _ in range(rounds + 2)][2:]
    link.close()
    plain, *others = (statistics.median(column) for column in zip(*times, strict=True))
    names = iter(calls)
    yield Row(next(names), plain, "ms")
    for name, found in zip(names, others, strict=True):
        yield Row(name, found, "ms", plain * 2, "2 x the plain link")


# --- memory ----------------------------------------------------------------------------------------


def process_of(folder: str, role: str) -> int:
    """Return which process is the *role* (controller or agent) of the cluster in *folder*."""
    for found in PROC.glob("[0-9]*/cmdline"):
        try:
            words = found.read_bytes().split(b"\0")
        except OSError:
            continue
        if f"ippmpi.{role}".encode() in words and any(word.startswith(folder.encode()) for word in words):
            return int(found.parent.name)
    raise LookupError(f"no {role} with a file in {folder}")


def peak_mb(pid: int) -> float:
    """Return the largest resident size of a process since ``forget_peak``."""
    status = dict(line.split(":", 1) for line in (PROC / str(pid) / "status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


def forget_peak(pids: Sequence[int]) -> list[float]:
    """Let the largest sizes of *pids* be those of now; return them."""
    for pid in pids:
        (PROC / str(pid) / "clear_refs").write_text("5")
    return [peak_mb(pid) for pid in pids]


def memory_rows(engines: str) -> Iterator[Row]:
    """Push 2 GB to an engine and see how large controller and agent become."""
    with cluster(1, engines) as (folder, rc):
        rc[0].push({"a": array()}, block=True)
        pids = [process_of(folder, role) for role in ("controller", "agent")]
        before = forget_peak(pids)
        sent = np.ones(LARGE_BYTES, dtype=np.uint8)
        copied, took = once_ms(sent.copy), once_ms(lambda: rc[0].push({"a": sent}, block=True))
        for role, pid, was in zip(("controller", "agent"), pids, before, strict=True):
            yield Row(f"push of 2 GB: the {role} grows by", peak_mb(pid) - was, "MB", 200, "of 2,048 that pass")
        yield Row("numpy copies 2 GB", copied, "ms")
        yield Row("push of 2 GB", took, "ms")


def main() -> int:
    """Measure and print."""
    chosen = options()
    if chosen.as_ipyparallel:
        measure_ipyparallel(chosen.rounds)
        return 0
    peer = peer_times(chosen.ipyparallel, chosen.rounds)
    print("ipyparallel:", ", ".join(f"{what} {seconds * 1e3:.0f} ms" for what, seconds in peer.items()), flush=True)
    missed = False
    parts = {
        "local": lambda: local_rows(chosen.engines, chosen.rounds, peer),
        "tcp": lambda: tcp_rows(chosen.engines, chosen.rounds),
        "memory": lambda: memory_rows(chosen.engines),
    }
    for part in chosen.only.split(","):
        for row in parts[part]():
            print(row, flush=True)
            missed |= row.missed
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
