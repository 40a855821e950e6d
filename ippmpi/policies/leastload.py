"""Idle engines first, longest idle first; then whoever has the least to do.

An engine with *direct* work (work that named it) may be busy for hours, and a task handed to it waits
behind. So it gets one only if every engine that qualifies has direct work, the least loaded first; as
long as one has only balanced work, the task waits for that one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from ippmpi.core.policy import NONE
from ippmpi.ids import EngineId


class _Place(NamedTuple):
    hindered: bool
    load: int
    room: bool


class LeastLoad:
    """Engines in buckets by load, each in the order in which they came to that load.

    The buckets are OrderedDicts: the first key of a plain dict costs O(n) after many removals.
    """

    def __init__(self) -> None:
        """Know no engine."""
        self._places: dict[EngineId, _Place] = {}
        self._buckets: dict[_Place, OrderedDict[EngineId, None]] = {}
        self._unhindered: OrderedDict[EngineId, None] = OrderedDict()

    def update(self, engine: EngineId, direct: int, balanced: int, room: int) -> None:
        """Learn the load of *engine*, new or known."""
        place = _Place(direct > 0, direct + balanced, room > 0)
        known = self._places.get(engine)
        if known == place:
            return
        if known is not None:
            self._leave(engine, known)
        self._places[engine] = place
        bucket = self._buckets.get(place)
        if bucket is None:
            bucket = self._buckets[place] = OrderedDict()
        bucket[engine] = None
        if not place.hindered:
            self._unhindered[engine] = None

    def remove(self, engine: EngineId) -> None:
        """Forget *engine*; nothing happens if it is not known."""
        place = self._places.pop(engine, None)
        if place is not None:
            self._leave(engine, place)

    def choose(
        self, among: AbstractSet[EngineId] | None = None, without: AbstractSet[EngineId] = NONE
    ) -> EngineId | None:
        """Return the engine that should get the next task, or None to wait until some load changes."""
        hindered = self._first(self._unhindered, among, without) is None
        for bucket in self._with_room(hindered):
            engine = self._first(bucket, among, without)
            if engine is not None:
                return engine
        return None

    def _with_room(self, hindered: bool) -> Iterator[OrderedDict[EngineId, None]]:
        idle = self._buckets.get(_IDLE)
        if idle and not hindered:
            yield idle
        for place in sorted(self._buckets):
            if place.room and place.hindered is hindered and place != _IDLE:
                yield self._buckets[place]

    def _leave(self, engine: EngineId, place: _Place) -> None:
        bucket = self._buckets[place]
        del bucket[engine]
        if not bucket:
            del self._buckets[place]
        if not place.hindered:
            del self._unhindered[engine]

    @staticmethod
    def _first(
        bucket: OrderedDict[EngineId, None], among: AbstractSet[EngineId] | None, without: AbstractSet[EngineId]
    ) -> EngineId | None:
        if among is None and not without:
            return next(iter(bucket), None)
        if among is None:
            return next((engine for engine in bucket if engine not in without), None)
        if len(among) < len(bucket):
            return next((engine for engine in among if engine in bucket and engine not in without), None)
        return next((engine for engine in bucket if engine in among and engine not in without), None)


_IDLE = _Place(hindered=False, load=0, room=True)
