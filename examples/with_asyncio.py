"""Results can be awaited: a cluster is started, used and stopped by coroutines, while others run."""

from __future__ import annotations

import asyncio
import math
from itertools import pairwise

import ippmpi as ipp


def estimate_pi(points: int, seed: int) -> float:
    """Throw points at a square and count those in the circle."""
    import random

    generator = random.Random(seed)
    inside = sum(generator.random() ** 2 + generator.random() ** 2 < 1 for _ in range(points))
    return 4 * inside / points


async def heartbeat(beats: list[float]) -> None:
    """Show that the event loop is never held up."""
    while True:
        beats.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.01)


async def main() -> None:
    """Await calls one by one, together, and as they are finished; cancel one."""
    beats: list[float] = []
    pulse = asyncio.create_task(heartbeat(beats))
    async with ipp.Cluster(n=4) as rc:
        farm = rc.load_balanced_view()
        print(f"one estimate of pi: {await farm.apply_async(estimate_pi, 10_000, seed=0):.4f}")

        estimates = await asyncio.gather(*(farm.apply_async(estimate_pi, 50_000, seed=i) for i in range(20)))
        pi = sum(estimates) / len(estimates)
        print(f"the mean of {len(estimates)}: {pi:.4f}")
        assert abs(pi - math.pi) < 0.01

        for coroutine in asyncio.as_completed([rc[i].apply_async(estimate_pi, 1000 * 4**i, seed=i) for i in rc.ids]):
            print(f"  {await coroutine:.4f}")

        endless = rc[0].apply_async(estimate_pi, 10**12, seed=1)
        try:
            await asyncio.wait_for(endless, timeout=0.2)
        except TimeoutError:
            print("gave up on one; its rank was interrupted and goes on")
        assert await rc[0].apply_async(abs, -1) == 1

    pulse.cancel()
    longest = max(after - before for before, after in pairwise(beats))
    print(f"the event loop was never held up for more than {longest * 1000:.0f} ms")


if __name__ == "__main__":
    asyncio.run(main())
