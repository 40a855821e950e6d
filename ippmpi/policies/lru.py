"""The engine that has got no task for longest, whatever it has to do; idle ones first."""

from __future__ import annotations

import heapq

from ippmpi.ids import EngineId

from ._pools import Bag, Kind, Pools


class Lru(Pools):
    """Least recently used: a queue of uses for each kind of engine, from which what is outdated is dropped late."""

    def __init__(self) -> None:
        """Know no engine."""
        super().__init__()
        self._queues: dict[Kind, list[tuple[int, EngineId]]] = {kind: [] for kind in Kind}

    def update(self, engine: EngineId, direct: int, balanced: int, room: int) -> None:
        """Learn the load of *engine*, new or known."""
        known = self.places.get(engine)
        super().update(engine, direct, balanced, room)
        place = self.places[engine]
        if known is None or (known.kind, known.used) != (place.kind, place.used):
            queue = self._queues[place.kind]
            heapq.heappush(queue, (place.used, engine))
            if len(queue) > 2 * len(self.places) + 64:
                queue[:] = [entry for entry in set(queue) if self._stands(entry, place.kind)]
                heapq.heapify(queue)

    def pick(self, engines: Bag | list[EngineId]) -> EngineId:
        """Return the least recently used of *engines*."""
        if not isinstance(engines, Bag):
            return min(engines, key=lambda engine: (self.places[engine].used, engine))
        kind = self.places[engines[0]].kind
        queue = self._queues[kind]
        while not self._stands(queue[0], kind):
            heapq.heappop(queue)
        return queue[0][1]

    def _stands(self, entry: tuple[int, EngineId], kind: Kind) -> bool:
        used, engine = entry
        place = self.places.get(engine)
        return place is not None and place.kind is kind and place.used == used
