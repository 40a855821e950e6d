"""Of two at random, of which engines with little to do are taken more often, the one with less to do."""

from __future__ import annotations

from collections.abc import Iterator

from ippmpi.ids import EngineId

from ._pools import Bag, Pools

MOST_DRAWS = 100


class Weighted(Pools):
    """Two at random, each with a weight of 1 / (1 + its load); the less loaded of them."""

    def pick(self, engines: Bag | list[EngineId]) -> EngineId:
        """Return the better one of two of *engines*."""
        numbers = self.random()
        two = [self._draw(engines, numbers) for _ in range(2)]
        return min(two, key=lambda engine: (self.places[engine].load, engine))

    def _draw(self, engines: Bag | list[EngineId], numbers: Iterator[int]) -> EngineId:
        """Draw until one is accepted, with a probability that is its weight: O(1) in the number of engines."""
        engine = engines[next(numbers) % len(engines)]
        for _ in range(MOST_DRAWS):
            if next(numbers) % (1 + self.places[engine].load) == 0:
                break
            engine = engines[next(numbers) % len(engines)]
        return engine
