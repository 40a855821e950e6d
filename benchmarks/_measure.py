"""Take times, memory and CPU time of a tool's processes; runs inside each tool's own environment."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

MARK = "IPPMPI_BENCH_MARK"
"""Variable with a random value, inherited by all processes of one run, however they are started."""

PAYLOAD_BYTES = 64 * 1024 * 1024

Roles = dict[str, str]
"""Module (after ``-m``) or script name on a command line -> role: engine, agent, controller."""


def median_s(call: Callable[[], object], repeats: int, warm: int = 3) -> float:
    """Return the median time of one *call*, after *warm* calls that don't count."""
    for _ in range(warm):
        call()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def once_s(call: Callable[[], object]) -> float:
    """Return the time of one *call*."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def payload() -> object:
    """Return 64 MB of bytes without a pattern, as a numpy array whose pages exist."""
    import numpy as np

    return np.random.default_rng(seed=0).integers(0, 256, PAYLOAD_BYTES, dtype=np.uint8)


def processes(roles: Roles) -> dict[str, list[psutil.Process]]:
    """Find this run's processes by their inherited mark, and their role by command line.

    Only Python processes count: the small parents of ranks carry the same words on their command line.
    """
    found: dict[str, list[psutil.Process]] = {role: [] for role in roles.values()}
    mark = os.environ[MARK]
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.environ().get(MARK) != mark:
                continue
            words = process.cmdline()[:6] if Path(process.exe()).name.startswith("python") else []
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        role = next((roles[Path(word).name] for word in words if Path(word).name in roles), None)
        if role is not None:
            found[role].append(process)
    return found


def resident_mb(found: dict[str, list[psutil.Process]], when: str) -> dict[str, float]:
    """Return resident memory in MB: median engine, sum of a node's agents, largest and whole controller.

    The whole controller is a sum of proportional set sizes, since forked processes share pages.
    """
    sizes = {role: [p.memory_info().rss / 1e6 for p in members] for role, members in found.items()}
    whole = sum(p.memory_full_info().pss / 1e6 for p in found["controller"])
    return {
        f"engine_{when}_mb": statistics.median(sizes["engine"]),
        f"agent_{when}_mb": sum(sizes["agent"]),
        f"controller_{when}_mb": max(sizes["controller"]),
        f"controller_whole_{when}_mb": whole,
    }


def busy_s(members: Iterable[psutil.Process]) -> float:
    """Return the CPU seconds that these processes have used in their life."""
    times = (p.cpu_times() for p in members)
    return float(sum(t.user + t.system for t in times))


def cpu_percent(found: dict[str, list[psutil.Process]], seconds: float) -> dict[str, float]:
    """Watch for some seconds; return per cent of a core: mean engine, all agents, all of the controller."""
    before = {role: busy_s(members) for role, members in found.items()}
    started = time.perf_counter()
    time.sleep(seconds)
    elapsed = time.perf_counter() - started
    used = {role: 100 * (busy_s(members) - before[role]) / elapsed for role, members in found.items()}
    return {
        "engine_cpu": used["engine"] / len(found["engine"]),
        "agent_cpu": used["agent"],
        "controller_cpu": used["controller"],
    }


def versions(*names: str) -> dict[str, str]:
    """Return the installed versions of distributions."""
    result = {}
    for name in names:
        try:
            result[name] = version(name)
        except PackageNotFoundError:
            continue
    return result


def emit(values: dict[str, object]) -> None:
    """Print the results as the last line, for ``compare.py``."""
    print("\n" + json.dumps(values), flush=True)
