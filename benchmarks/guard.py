"""Notice lost speed: ratios of ippmpi's times to those of a bare pyzmq chain in the same run, against recorded ones.

``make guard`` calls it. Both sides take turns; what was measured while others used the processors does not count, and
of what counts each side's best time is taken. What looks slow is measured once more. The exit code is 1 if a ratio is
more than 1.25 times the recorded one. Where the machine is never calm, noise alone makes more than that, and only 1.5
or 3 times fails; so it is with another number of processors than the ratios were recorded with. After a change that is
meant to cost: ``--record`` writes the file anew, on a calm machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import secrets
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
from _processor import Others, marked
from pyzmq_chain import Chain

import ippmpi as ipp

RECORDED = Path(__file__).with_suffix(".json")
MARK = "IPPMPI_GUARD"

ALLOWED = 1.25
"""A loss of more than 25 % fails."""

ALLOWED_BUSY = 1.5
ALLOWED_BUSY_GREEDY = 3.0
"""The same where others kept the processors busy; the second for work that would use all of them itself: seven of our
processes on two cores that others share were seen to take 2.2 times as long, compared with the chain."""

CALM = 0.15
"""The part of the machine that others may use while we measure."""

ROUNDS = 7
PATIENCE_S = 8.0
"""How long a measure waits for its calm rounds."""

RANKS = 4
TASKS = 2000
ITEMS = 20_000
PAYLOAD_BYTES = 64 * 1024 * 1024


class Measure(NamedTuple):
    """Two pieces of work, and how often each is done in a round, which takes some tenths of a second.

    ``greedy``: it keeps all processors busy.
    """

    name: str
    ours: Callable[[], object]
    bare: Callable[[], object]
    times: int
    greedy: bool = False


class Round(NamedTuple):
    """The best times of one round, and the part of the machine that others used meanwhile."""

    ours_s: float
    bare_s: float
    others: float


class Row(NamedTuple):
    """What came out: the best times, which loss is allowed, and how calm the machine was."""

    name: str
    ours_s: float
    bare_s: float
    allowed: float
    calm: bool
    others: float

    @property
    def ratio(self) -> float:
        """Our time over that of the bare chain."""
        return self.ours_s / self.bare_s

    def limit(self, recorded: float) -> float:
        """Return the largest ratio that is no loss."""
        return recorded * self.allowed

    def lost(self, recorded: float) -> bool:
        """Whether more was lost than noise can make."""
        return self.ratio > self.limit(recorded)

    def text(self, recorded: float) -> str:
        """Show all of it."""
        return (
            f"{self.name:22} ours {self.ours_s * 1e3:8.2f} ms, bare {self.bare_s * 1e3:7.2f} ms,"
            f" ratio {self.ratio:5.2f} (recorded {recorded:.2f}, at most {self.limit(recorded):.2f}),"
            f" others used {self.others:3.0%} ({'calm' if self.calm else 'busy'}):"
            f" {'LOST' if self.lost(recorded) else 'held'}"
        )


# --- the work ---


def noop() -> None:
    """Do nothing."""


def identity(item: int) -> int:
    """Return the argument."""
    return item


def measures(rc: ipp.Client, chain: Chain) -> list[Measure]:
    """Say what is measured, and against what."""
    one, everyone, balanced = rc[0], rc[:], rc.load_balanced_view()
    payload = np.random.default_rng(seed=0).integers(0, 256, PAYLOAD_BYTES, dtype=np.uint8)

    def tasks() -> None:
        for result in [balanced.apply_async(noop) for _ in range(TASKS)]:
            result.get()

    def mapped() -> None:
        balanced.map_sync(identity, range(ITEMS))

    def pushed() -> None:
        one.push({"payload": payload}, block=True)

    return [
        Measure("call of one engine", lambda: one.apply_sync(noop), lambda: chain.burst_s(1), 200),
        Measure("call of all engines", lambda: everyone.apply_sync(noop), lambda: chain.burst_s(RANKS), 150),
        Measure("2,000 balanced tasks", tasks, lambda: chain.burst_s(TASKS), 1, greedy=True),
        Measure("map of 20,000 items", mapped, lambda: chain.burst_s(TASKS), 2, greedy=True),
        Measure("push of 64 MB", pushed, lambda: chain.copy_s(payload.data), 2, greedy=True),
    ]


def best_s(work: Callable[[], object], times: int) -> float:
    """Return the shortest of *times* times."""
    best = float("inf")
    for _ in range(times):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best


# --- measuring ---


class Bench:
    """A cluster and a bare chain, side by side and warm."""

    def __init__(self, rc: ipp.Client, chain: Chain, calm: float, patience_s: float) -> None:
        """Find out which processes are theirs. *calm*, *patience_s*: see ``CALM`` and ``PATIENCE_S``.

        ``same_cores``: set it to False if the ratios come from a machine with more or fewer.
        """
        self.same_cores = True
        self.measures = measures(rc, chain)
        self._calm, self._patience_s = calm, patience_s
        self._ours = marked(os.environ[MARK])
        for measure in self.measures:
            measure.ours()
            measure.bare()

    def row(self, measure: Measure) -> Row:
        """Measure until there are enough calm rounds, or patience ends."""
        began = time.monotonic()
        rounds: list[Round] = []
        calm: list[Round] = []
        while len(calm) < ROUNDS and time.monotonic() - began < self._patience_s:
            rounds.append(self._round(measure))
            calm = [one for one in rounds if one.others <= self._calm]
        was_calm = len(calm) > ROUNDS // 2
        counted = calm if was_calm else rounds
        ours, bare = min(one.ours_s for one in counted), min(one.bare_s for one in counted)
        allowed = ALLOWED
        if not (was_calm and self.same_cores):
            allowed = ALLOWED_BUSY_GREEDY if measure.greedy else ALLOWED_BUSY
        others = statistics.median(one.others for one in rounds)
        return Row(measure.name, ours, bare, allowed, was_calm, others)

    def _round(self, measure: Measure) -> Round:
        others = Others(self._ours)
        ours, bare = best_s(measure.ours, measure.times), best_s(measure.bare, measure.times)
        return Round(ours, bare, others.share())


@contextlib.contextmanager
def bench(chosen: argparse.Namespace) -> Iterator[Bench]:
    """Start both sides; end them."""
    os.environ[MARK] = secrets.token_hex(8)
    with ipp.Cluster(n=RANKS, engines="mpi") as rc, Chain(RANKS) as chain:
        yield Bench(rc, chain, chosen.calm, chosen.patience)


# --- judging ---


def judge(chosen: argparse.Namespace) -> list[str]:
    """Measure, print; return the names of what was lost."""
    facts = json.loads(chosen.recorded.read_text(encoding="utf-8"))
    lost = []
    with bench(chosen) as both:
        both.same_cores = facts["cores"] == os.cpu_count()
        for measure in both.measures:
            recorded = facts["ratios"][measure.name]
            row = both.row(measure)
            if row.lost(recorded):
                print(row.text(recorded) + "? once more", flush=True)
                row = both.row(measure)
            print(row.text(recorded), flush=True)
            if row.lost(recorded):
                lost.append(row.name)
    return lost


def record(chosen: argparse.Namespace) -> dict[str, float]:
    """Measure in several runs; return the median ratios."""
    ratios: dict[str, list[float]] = {}
    for _ in range(chosen.runs):
        with bench(chosen) as both:
            for measure in both.measures:
                row = both.row(measure)
                if row.calm:
                    ratios.setdefault(row.name, []).append(row.ratio)
    for name, values in ratios.items():
        print(f"{name:22} {' '.join(f'{value:.2f}' for value in sorted(values))}")
    return {name: round(statistics.median(values), 2) for name, values in ratios.items()}


def write(ratios: Mapping[str, float], file: Path) -> None:
    """Write the ratios, and what they were measured with."""
    facts = {
        "date": time.strftime("%Y-%m-%d"),
        "cores": os.cpu_count(),
        "versions": {name: version(name) for name in ("ippmpi", "pyzmq", "msgspec", "mpi4py", "numpy")}
        | {"python": platform.python_version(), "linux": platform.release()},
        "ratios": ratios,
    }
    file.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def main() -> int:
    """Judge, or record."""
    parser = argparse.ArgumentParser(description="Notice lost speed.")
    parser.add_argument("--recorded", type=Path, default=RECORDED, help="file of the recorded ratios")
    parser.add_argument("--record", action="store_true", help="write that file")
    parser.add_argument("--calm", type=float, default=CALM, help="part of the machine that others may use (0 to 1)")
    parser.add_argument("--patience", type=float, default=PATIENCE_S, help="seconds that each measure waits for that")
    parser.add_argument("--runs", type=int, default=5, help="runs that are recorded (default: 5)")
    chosen = parser.parse_args()
    if chosen.record:
        ratios = record(chosen)
        before = json.loads(chosen.recorded.read_text(encoding="utf-8"))["ratios"]
        if missing := before.keys() - ratios.keys():
            print(f"nothing was recorded: never calm for {', '.join(sorted(missing))}; try --patience 60")
            return 1
        write(ratios, chosen.recorded)
        return 0
    lost = judge(chosen)
    for name in lost:
        print(f"too slow: {name}; if that is meant: {sys.argv[0]} --record")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
