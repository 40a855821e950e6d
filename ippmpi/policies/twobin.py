"""Of two at random the one that has got no task for longer (the power of two choices, Mitzenmacher 1996)."""

from __future__ import annotations

from ippmpi.ids import EngineId

from ._pools import Bag, Pools


class TwoBin(Pools):
    """Two at random, which may be the same; the least recently used of them."""

    def pick(self, engines: Bag | list[EngineId]) -> EngineId:
        """Return the better one of two of *engines*."""
        numbers = self.random()
        two = (engines[next(numbers) % len(engines)] for _ in range(2))
        return min(two, key=lambda engine: (self.places[engine].used, engine))
