"""Drive four MPI ranks from one Python prompt: a distributed sum, a heat equation, a task farm.

Run it with ``make demo``, or by hand with ``python examples/quickstart.py -n 4``. Each part is
checked against the same work done here in this process, without MPI. The functions below are
ordinary functions; called through a view they run on the ranks, where a name such as ``field`` is
whatever the rank holds under that name. That is how state stays on the ranks between calls.
"""

from __future__ import annotations

import argparse
import ast
import sysconfig
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

import ippmpi as ipp

GRID = (480, 640)
"""Rows and columns of the heated plate; the rows are shared out over the ranks."""

CALLS, STEPS_PER_CALL = 4, 500
"""The plate is advanced from the prompt this many times, by this many time steps each."""

DIFFUSION = 0.24
"""Thermal diffusivity times time step over grid spacing squared; stable up to 1/4."""

HOT = 1.0
"""Temperature of the left wall; the other three walls are kept at 0."""

numbers: np.ndarray  # on the ranks: this rank's part of the array, put there by scatter
total: np.ndarray  # on the ranks: the sum over all ranks
field: np.ndarray  # on the ranks: this rank's rows of the plate, put there by scatter


# --- 1. a distributed sum ------------------------------------------------------------------------


def sum_over_all_ranks() -> int:
    """Add up this rank's part, then all parts over MPI. Keeps the result as ``total`` on the rank."""
    from mpi4py import MPI

    global numbers, total
    part = np.array(numbers.sum())
    total = np.empty_like(part)
    MPI.COMM_WORLD.Allreduce(part, total, op=MPI.SUM)
    return MPI.COMM_WORLD.size


def distributed_sum(ranks: ipp.DirectView) -> str:
    """Scatter an array, add it up with ``Allreduce``, pull the same total from every rank."""
    values = np.random.default_rng(seed=1).integers(0, 1000, size=1_000_003)
    ranks.scatter("numbers", values, block=True)
    sizes = ranks.apply_sync(sum_over_all_ranks)
    totals = ranks.pull("total", block=True)

    assert sizes == [len(ranks)] * len(ranks), f"not one world of {len(ranks)} ranks: {sizes}"
    assert [int(t) for t in totals] == [int(values.sum())] * len(ranks), f"{totals} is not {values.sum()} everywhere"
    return f"{values.size:,} integers over {len(ranks)} ranks, every rank has {int(totals[0]):,}"


# --- 2. the heat equation ------------------------------------------------------------------------


def framed(interior: np.ndarray) -> np.ndarray:
    """Return a copy with one more row and column on each side: the walls, or neighbours' rows."""
    plate = np.zeros((interior.shape[0] + 2, interior.shape[1] + 2))
    plate[:, 0] = HOT
    plate[1:-1, 1:-1] = interior
    return plate


def diffuse(plate: np.ndarray) -> None:
    """Advance the inside of a framed plate by one explicit time step, in place."""
    inside = plate[1:-1, 1:-1]
    around = plate[:-2, 1:-1] + plate[2:, 1:-1] + plate[1:-1, :-2] + plate[1:-1, 2:]
    inside += DIFFUSION * (around - 4 * inside)


def advance(steps: int) -> float:
    """Advance this rank's rows; neighbours swap their border rows over MPI before each step.

    Returns the seconds that the slowest rank spent in here.
    """
    from mpi4py import MPI

    global field
    comm = MPI.COMM_WORLD
    above = comm.rank - 1 if comm.rank > 0 else MPI.PROC_NULL  # nobody: the wall stays as it is
    below = comm.rank + 1 if comm.rank < comm.size - 1 else MPI.PROC_NULL
    started = time.perf_counter()
    plate = framed(field)
    for _ in range(steps):
        comm.Sendrecv(plate[1], dest=above, recvbuf=plate[-1], source=below)
        comm.Sendrecv(plate[-2], dest=below, recvbuf=plate[0], source=above)
        diffuse(plate)
    field[:] = plate[1:-1, 1:-1]
    return float(comm.allreduce(time.perf_counter() - started, op=MPI.MAX))


def first_plate() -> np.ndarray:
    """Return the plate at time zero: cold, with three warm discs."""
    rows, columns = np.mgrid[: GRID[0], : GRID[1]]
    plate = np.zeros(GRID)
    for row, column, radius in ((120, 420, 60), (330, 260, 90), (400, 540, 40)):
        plate[(rows - row) ** 2 + (columns - column) ** 2 < radius**2] = 0.8
    return plate


def heat_equation(ranks: ipp.DirectView, picture: Path) -> str:
    """Advance the plate on the ranks in several calls, compare with a serial run, draw it."""
    plates = [first_plate()]
    ranks.scatter("field", plates[0], block=True)
    for call in range(1, CALLS + 1):
        seconds = max(ranks.apply_sync(advance, STEPS_PER_CALL))
        plates.append(np.asarray(ranks.gather("field", block=True)))
        print(f"   step {call * STEPS_PER_CALL:4d}: {seconds:5.2f} s, mean temperature {plates[-1].mean():.4f}")

    started = time.perf_counter()
    serial = framed(plates[0])
    for _ in range(CALLS * STEPS_PER_CALL):
        diffuse(serial)
    print(f"   serial run of the same {CALLS * STEPS_PER_CALL} steps: {time.perf_counter() - started:.2f} s")

    error = float(np.abs(plates[-1] - serial[1:-1, 1:-1]).max())
    assert error < 1e-12, f"the ranks' plate differs from the serial one by {error}"
    draw(plates, len(ranks), picture)
    return f"{GRID[0]} x {GRID[1]} plate, largest difference from the serial run {error:.1e}, see {picture}"


def draw(plates: list[np.ndarray], ranks: int, picture: Path) -> None:
    """Write the plate's history as PNG; dotted lines show which rows belong to which rank."""
    import matplotlib as mpl

    mpl.use("Agg")  # files only: there may be no screen
    import matplotlib.pyplot as plt

    borders = np.cumsum([len(part) for part in np.array_split(np.arange(GRID[0]), ranks)])[:-1]
    figure, axes = plt.subplots(1, len(plates), figsize=(3.6 * len(plates), 3.2), layout="constrained")
    for number, (axis, plate) in enumerate(zip(axes, plates, strict=True)):
        image = axis.imshow(plate, cmap="inferno", vmin=0.0, vmax=HOT)
        axis.hlines(borders - 0.5, -0.5, GRID[1] - 0.5, colors="white", linestyles="dotted", linewidth=0.8)
        axis.set_title(f"step {number * STEPS_PER_CALL}")
        axis.set_axis_off()
    figure.colorbar(image, ax=axes, label="temperature")
    figure.suptitle(f"heat equation on {ranks} MPI ranks")
    figure.savefig(picture, dpi=120)
    plt.close(figure)


# --- 3. a task farm ------------------------------------------------------------------------------


def count_identifiers(path: str) -> Counter[str]:
    """Count the identifiers in one Python file; a file that is no valid Python counts as empty."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old escapes and the like: not our code
        try:
            tree = ast.parse(Path(path).read_bytes())
        except (SyntaxError, ValueError):  # some files of the test suite are broken on purpose
            return Counter()
    counts: Counter[str] = Counter()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            counts[node.id] += 1
        elif isinstance(node, ast.Attribute):
            counts[node.attr] += 1
        elif isinstance(node, ast.arg):
            counts[node.arg] += 1
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            counts[node.name] += 1
    return counts


def merged(parts: Iterable[Counter[str]]) -> Counter[str]:
    """Add up the counts of all files."""
    total_counts: Counter[str] = Counter()
    for part in parts:
        total_counts.update(part)
    return total_counts


def library_files() -> list[str]:
    """Return every ``.py`` file of this Python's standard library."""
    library = Path(sysconfig.get_paths()["stdlib"])
    return sorted(str(file) for file in library.rglob("*.py") if "site-packages" not in file.parts)


def task_farm(rc: ipp.Client) -> str:
    """Count the identifiers of the standard library on whichever rank is free, with a progress bar."""
    files = library_files()
    started = time.perf_counter()
    counts = rc.load_balanced_view().map_async(count_identifiers, files, chunksize=4)
    counts.wait_interactive()
    farmed = merged(counts.get())
    seconds = time.perf_counter() - started

    started = time.perf_counter()
    serial = merged(map(count_identifiers, files))
    print(f"   ranks {seconds:.2f} s, serial {time.perf_counter() - started:.2f} s")
    assert farmed == serial, "the farm's counts differ from the serial ones"
    common = ", ".join(f"{name} {count:,}" for name, count in farmed.most_common(3))
    return f"{len(files):,} files, {farmed.total():,} identifiers ({len(farmed):,} different): {common}, ..."


# --- all together --------------------------------------------------------------------------------


def where() -> tuple[int, int, str, int]:
    """Say who this rank is: rank, size of its world, host, process."""
    import os
    import socket

    from mpi4py import MPI

    return MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size, socket.gethostname(), os.getpid()


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Drive MPI ranks from one Python prompt.")
    parser.add_argument("-n", type=int, default=4, help="number of MPI ranks (default: 4)")
    parser.add_argument("--engines", default="mpi", help="launcher of the ranks (default: mpi)")
    parser.add_argument("--output", type=Path, default=Path(), help="folder of the picture (default: this one)")
    return parser.parse_args()


def main() -> None:
    """Start the ranks, do the three parts, stop the ranks."""
    options = arguments()
    options.output.mkdir(parents=True, exist_ok=True)
    summary = []
    started = time.perf_counter()
    with ipp.Cluster(n=options.n, engines=options.engines) as rc:
        ranks = rc[:]
        for rank, size, host, pid in ranks.apply_sync(where):
            print(f"engine {rank} is rank {rank} of {size} on {host}, pid {pid}")
        print(f"{len(rc)} MPI ranks ready after {time.perf_counter() - started:.2f} s\n")
        parts: dict[str, Callable[[], str]] = {
            "distributed sum": lambda: distributed_sum(ranks),
            "heat equation": lambda: heat_equation(ranks, options.output / "heat.png"),
            "task farm": lambda: task_farm(rc),
        }
        for name, part in parts.items():
            print(f"{name} ...")
            began = time.perf_counter()
            result = part()
            summary.append(f"  {name:16s} {time.perf_counter() - began:6.2f} s  {result}")
    print(f"\nall three agree with the serial runs ({time.perf_counter() - started:.1f} s with start and stop):")
    print("\n".join(summary))


if __name__ == "__main__":
    main()
