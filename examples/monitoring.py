"""Watching a simulation while it runs: heat spreads through a rod, and every rank shows how far it is.

The rod is cut into pieces, one a rank. Each rank computes its piece and exchanges its ends with its neighbours over
MPI, as any MPI program would. Meanwhile ``publish_data`` shows the step, the temperatures and the change of the last
step; the prompt reads them in ``result.data`` whenever it likes, and the ranks do not wait for it.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

import ippmpi as ipp

RANKS, CELLS = 4, 20
LEFT, RIGHT = 100.0, 20.0
STEADY = 1e-4
"""Degrees a step: less change than this is none."""


def simulate(left: float, right: float, cells: int, steady: float) -> NDArray[np.float64]:
    """Compute this rank's cells of a rod whose ends are kept at *left* and *right* degrees, until nothing changes."""
    import numpy as np
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    before, after = world.rank - 1, world.rank + 1
    if world.rank == 0:
        before = MPI.PROC_NULL
    if world.rank == world.size - 1:
        after = MPI.PROC_NULL
    rod = np.full(cells + 2, right)  # one more cell at each end: the neighbour's, or the end of the rod
    step, change = 0, np.inf
    while change > steady:
        if before == MPI.PROC_NULL:
            rod[0] = left
        world.Sendrecv(rod[-2:-1], dest=after, recvbuf=rod[:1], source=before)
        world.Sendrecv(rod[1:2], dest=before, recvbuf=rod[-1:], source=after)
        flow = 0.4 * (rod[:-2] - 2 * rod[1:-1] + rod[2:])
        rod[1:-1] += flow
        step += 1
        change = world.allreduce(float(np.abs(flow).max()), op=MPI.MAX)
        if step % 10 == 0:
            ipp.publish_data({"step": step, "change": change, "rod": rod[1:-1].copy()})
    ipp.publish_data({"step": step, "change": change, "rod": rod[1:-1].copy()})
    print("steady")
    return rod[1:-1]


def picture(temperatures: NDArray[np.float64]) -> str:
    """Return the rod as one line."""
    shades = " .:-=+*#%@"
    scaled = (temperatures - RIGHT) / (LEFT - RIGHT) * (len(shades) - 1)
    return "".join(shades[round(float(value))] for value in scaled)


def main() -> None:
    """Start the simulation, look at it while it runs, and compare its end with what is known."""
    with ipp.Cluster(n=RANKS, engines="mpi") as rc:
        result = rc[:].apply_async(simulate, LEFT, RIGHT, CELLS, STEADY)
        looks, seen = 0, 0
        while not result.ready():
            data: list[dict[str, Any]] = result.data
            if all(shown and shown["step"] > seen for shown in data):
                looks += 1
                seen = data[0]["step"] + 500
                rod = np.concatenate([shown["rod"] for shown in data])
                print(f"step {data[0]['step']:6}  change {data[0]['change']:.5f}  |{picture(rod)}|")
            time.sleep(0.02)
        rod = np.concatenate(result.get())
        result.display_outputs()  # four ranks say the same: [0-3] steady
    print(f"steady after {result.data[0]['step']} steps; looked {looks} times meanwhile")
    cells = np.arange(1, RANKS * CELLS + 1) / (RANKS * CELLS + 1)
    assert looks > 0
    assert np.abs(rod - (LEFT + (RIGHT - LEFT) * cells)).max() < 2.0, "in the end the temperature falls evenly"


if __name__ == "__main__":
    main()
