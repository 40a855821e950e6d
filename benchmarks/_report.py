"""The table: which numbers make a row, what each should reach, and how it is printed."""

from __future__ import annotations

import datetime
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

TOOLS = ("ippmpi", "ipyparallel", "futures")
NAMES = {"ippmpi": "ippmpi", "ipyparallel": "ipyparallel", "futures": "mpi4py.futures"}

Results = dict[tuple[str, str, int], float]
"""Median of a number: (tool, number, ranks) -> value."""


@dataclass(frozen=True)
class Row:
    """One line: number *key* at *ranks* ranks. The bar is a least ratio to ipyparallel, or a greatest value."""

    label: str
    key: str
    ranks: int
    unit: str
    ratio: float | None = None
    limit: float | None = None


ROWS = (
    Row("apply_sync no-op, one engine", "apply_one_s", 4, "ms", ratio=4),
    Row("apply_sync no-op, all of 4 engines", "apply_all_s", 4, "ms", ratio=8),
    Row("apply_sync no-op, all of 16 engines", "apply_all_s", 16, "ms", ratio=12),
    Row("start to usable, 4 ranks", "start_s", 4, "s", ratio=3),
    Row("start to usable, 16 ranks", "start_s", 16, "s", ratio=3),
    Row("resident memory, engine, idle", "engine_idle_mb", 4, "MB", limit=80),
    Row("resident memory, agent, idle", "agent_idle_mb", 4, "MB", limit=40),
    Row("resident memory, agent, after load", "agent_loaded_mb", 4, "MB", limit=40),
    Row("resident memory, controller, idle", "controller_idle_mb", 4, "MB", limit=60),
    Row("resident memory, controller, after load", "controller_loaded_mb", 4, "MB", limit=60),
    Row("memory of all controller processes, after load", "controller_whole_loaded_mb", 4, "MB"),
    Row("resident memory, engine, after load", "engine_loaded_mb", 4, "MB"),
    Row("idle CPU, engine, 16 ranks", "engine_cpu", 16, "%", limit=0.1),
    Row("idle CPU, agent, 16 ranks", "agent_cpu", 16, "%", limit=0.5),
    Row("idle CPU, controller, 16 ranks", "controller_cpu", 16, "%", limit=0.5),
    Row("2,000 no-ops, balanced apply_async, per task", "tasks_s", 4, "ms"),
    Row("2,000 no-ops, balanced map, per task", "map_s", 4, "ms"),
    Row("push 64 MB to one engine", "push_one_s", 4, "ms"),
    Row("push 64 MB to 4 engines", "push_all_s", 4, "ms"),
    Row("pull 64 MB from one engine", "pull_one_s", 4, "ms"),
)

NOTES = """\
Start to usable: from `Cluster(...)` (mpi4py.futures: from `mpiexec`) to the first results of all ranks.
Load: 10,000 balanced no-ops and ten pushes of 64 MB to all ranks. Agent: ippmpi's one agent of the node
against the sum of ipyparallel's nannies. Controller: the largest process of ipyparallel's; the row "all
controller processes" sums proportional set sizes. mpi4py.futures has no ranks by name and no state: "all
engines" is one task per worker, push and pull are tasks with a 64 MB argument or result.
Connections per node and client are measured by tests/test_two_hosts.py."""

HEADER = ["measure", *(NAMES[tool] for tool in TOOLS), "vs ipyparallel", "vs mpi4py.futures", "bar", "met"]


def shown(value: float | None, unit: str) -> str:
    """Return a value with its unit, three significant digits; "-" if it was not measured."""
    if value is None:
        return "-"
    scaled = value * 1000 if unit == "ms" else value
    digits = 0 if scaled >= 100 else 1 if scaled >= 10 else 2 if scaled >= 0.1 else 3
    return f"{scaled:.{digits}f} {unit}"


def times(ours: float | None, theirs: float | None) -> str:
    """Return how many times better ours is (all numbers here are better when smaller)."""
    if ours is None or theirs is None:
        return "-"
    return f"{theirs / ours:.1f}x" if ours > 0 else "inf"


def bar(row: Row) -> str:
    """Return the bar as text."""
    if row.ratio is not None:
        return f">= {row.ratio:g}x"
    return f"<= {row.limit:g} {row.unit}" if row.limit is not None else ""


def met(row: Row, ours: float | None, theirs: float | None) -> str:
    """Return "yes", "NO", or nothing where there is no bar or no value."""
    if row.limit is not None and ours is not None:
        return "yes" if ours <= row.limit else "NO"
    if row.ratio is not None and ours is not None and theirs is not None:
        return "yes" if theirs >= row.ratio * ours else "NO"
    return ""


def lines(results: Results) -> list[list[str]]:
    """Return the table's cells, without the header."""
    table = []
    for row in ROWS:
        ours, ipyparallel, futures = (results.get((tool, row.key, row.ranks)) for tool in TOOLS)
        if ours is None and ipyparallel is None and futures is None:
            continue
        cells = [shown(value, row.unit) for value in (ours, ipyparallel, futures)]
        ratios = [times(ours, ipyparallel), times(ours, futures)]
        table.append([row.label, *cells, *ratios, bar(row), met(row, ours, ipyparallel)])
    return table


def aligned(table: list[list[str]]) -> str:
    """Return header and cells as columns with ``|`` between them: readable as text and as markdown."""
    rows = [HEADER, *table]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    body = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    body.insert(1, " | ".join("-" * width for width in widths))
    return "\n".join(f"| {line} |" for line in body)


def cpu_model() -> str:
    """Return the processor's name as Linux tells it, else what Python knows."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def conditions(versions: dict[str, str], rounds: int) -> str:
    """Say on what machine, when, and with which versions it was measured."""
    listed = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    return (
        f"{datetime.datetime.now(tz=datetime.UTC):%Y-%m-%d}, {os.cpu_count()} cores, {cpu_model()}, "
        f"Linux {platform.release()}, Python {platform.python_version()}; {listed}. "
        f"Medians of {rounds} runs, the tools in turn; load average at the end {os.getloadavg()[0]:.1f}."
    )


def markdown(results: Results, versions: dict[str, str], rounds: int) -> str:
    """Return the whole report as markdown."""
    return f"{conditions(versions, rounds)}\n\n{aligned(lines(results))}\n\n{NOTES}\n"


def missed(results: Results) -> list[str]:
    """Return the labels of rows whose bar was missed."""
    return [line[0] for line in lines(results) if line[-1] == "NO"]


if sys.platform != "linux":
    raise SystemExit("the comparison reads /proc and is for Linux")
