"""Compare ippmpi with ipyparallel (MPI engines) and mpi4py.futures: the same work, one run, one table.

``make bench`` calls it. Each tool has its own virtual environment (``--venvs``); the tools take turns
within every round, so that what else happens on the machine hits them alike. Close everything else first.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _report import TOOLS, Results, markdown, missed
from _venvs import environment

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Phase:
    """A piece of work that one process does from the start of a cluster to its end."""

    name: str
    ranks: int
    repeated: bool
    tools: tuple[str, ...]


PHASES = (
    Phase("calls", 4, True, TOOLS),
    Phase("start", 16, True, TOOLS),
    Phase("memory", 4, False, ("ippmpi", "ipyparallel")),
    Phase("idle", 16, False, ("ippmpi", "ipyparallel")),
)


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Compare ippmpi with its peers.")
    parser.add_argument("--venvs", type=Path, default=Path(".bench"), help="folder of the environments")
    parser.add_argument("--rounds", type=int, default=5, help="runs of which the median is taken (default: 5)")
    parser.add_argument("--idle-seconds", type=float, default=60.0, help="length of the idle watch (default: 60)")
    parser.add_argument("--markdown", type=Path, help="write the table to this file, too")
    parser.add_argument("--json", type=Path, help="write all single values to this file")
    parser.add_argument("--tools", default=",".join(TOOLS), help="which tools, separated by commas")
    parser.add_argument("--phases", default=",".join(p.name for p in PHASES), help="which phases")
    return parser.parse_args()


def command(python: Path, tool: str, phase: Phase, idle_s: float) -> list[str]:
    """Return the command line of one tool's run."""
    script = [str(HERE / f"_tool_{tool}.py"), phase.name, "-n", str(phase.ranks), "--seconds", str(idle_s)]
    if tool != "futures":
        return [str(python), *script]
    mpiexec = [str(python.parent / "mpiexec"), "-n", str(phase.ranks + 1)]
    return [*mpiexec, str(python), "-m", "mpi4py.futures", *script, "--since", str(time.time())]


def run(python: Path, tool: str, phase: Phase, idle_s: float) -> dict[str, Any]:
    """Run one tool once; return its numbers. Raises RuntimeError with its last words if it fails."""
    with tempfile.TemporaryDirectory(prefix="ippmpi-bench-") as folder:
        variables = {
            **os.environ,
            "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
            "IPYTHONDIR": folder,
            "IPPMPI_BENCH_MARK": secrets.token_hex(8),
        }
        process = subprocess.Popen(
            command(python, tool, phase, idle_s),
            env=variables,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            output, errors = process.communicate(timeout=240 + idle_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, errors = process.communicate()
            errors += f"\nno end after {240 + idle_s:.0f} s"
    if process.returncode != 0 or not output.strip():
        raise RuntimeError(f"{tool} {phase.name} failed ({process.returncode}):\n{errors[-2000:]}")
    numbers: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    return numbers


class Collection:
    """All values seen so far, the tools' versions, and what went wrong."""

    def __init__(self) -> None:
        """Start empty."""
        self.values: dict[tuple[str, str, int], list[float]] = defaultdict(list)
        self.versions: dict[str, str] = {}
        self.failures: list[str] = []

    def add(self, tool: str, ranks: int, numbers: dict[str, Any]) -> None:
        """Take the numbers of one run, and the versions among them."""
        self.versions |= numbers.pop("versions")
        for key, value in numbers.items():
            self.values[tool, key, ranks].append(value)

    def medians(self) -> Results:
        """Return the median of each number."""
        return {key: statistics.median(values) for key, values in self.values.items()}

    def dump(self) -> str:
        """Return every single value as JSON."""
        flat = {f"{tool} {key} n={ranks}": values for (tool, key, ranks), values in self.values.items()}
        return json.dumps({"versions": self.versions, "values": flat, "failures": self.failures}, indent=1)


def collect(pythons: dict[str, Path], chosen: argparse.Namespace) -> Collection:
    """Run all phases; a tool that fails loses the rest of that phase only."""
    collection = Collection()
    for phase in PHASES:
        if phase.name not in chosen.phases.split(","):
            continue
        tools = [tool for tool in phase.tools if tool in pythons]
        for number in range(chosen.rounds if phase.repeated else 1):
            for tool in list(tools):
                started = time.perf_counter()
                try:
                    collection.add(tool, phase.ranks, run(pythons[tool], tool, phase, chosen.idle_seconds))
                except RuntimeError as error:
                    collection.failures.append(str(error))
                    tools.remove(tool)
                    print(error, file=sys.stderr)
                seconds = time.perf_counter() - started
                print(
                    f"{phase.name}, {phase.ranks} ranks, round {number + 1}, {tool}: {seconds:.1f} s", file=sys.stderr
                )
    return collection


def main() -> int:
    """Run, print, write. The exit code is 1 if a tool failed; a missed bar is only named."""
    chosen = options()
    pythons = {tool: environment(chosen.venvs, tool) for tool in TOOLS if tool in chosen.tools.split(",")}
    collection = collect(pythons, chosen)
    results = collection.medians()
    report = markdown(results, collection.versions, chosen.rounds)
    print(report)
    if chosen.markdown:
        chosen.markdown.write_text(report, encoding="utf-8")
    if chosen.json:
        chosen.json.write_text(collection.dump(), encoding="utf-8")
    for label in missed(results):
        print(f"bar missed: {label}")
    return 1 if collection.failures else 0


if __name__ == "__main__":
    sys.exit(main())
