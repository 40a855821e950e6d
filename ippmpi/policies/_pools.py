"""What policies share that take one of many alike: who is idle, who has room, who is to be asked last."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from enum import Enum
from random import getrandbits
from typing import NamedTuple

from ippmpi.core.policy import NONE
from ippmpi.ids import EngineId

_MASK = 2**64 - 1


class Kind(Enum):
    """Where an engine stands."""

    IDLE = "idle"
    """It has nothing to do."""
    ROOM = "room"
    """It has balanced work, and room for more."""
    HINDERED = "hindered"
    """It has room, and direct work (work that named it), which may take hours: it is asked if all others are so too."""
    FULL = "full"


class Place(NamedTuple):
    """What is known of an engine. ``used``: when it got its latest balanced task, as a number that only grows."""

    kind: Kind
    load: int
    used: int


class Bag:
    """Engines in no particular order: adding, removing and taking any of them cost O(1)."""

    def __init__(self) -> None:
        """Start empty."""
        self._engines: list[EngineId] = []
        self._at: dict[EngineId, int] = {}

    def add(self, engine: EngineId) -> None:
        """Put in an engine that is not in."""
        self._at[engine] = len(self._engines)
        self._engines.append(engine)

    def remove(self, engine: EngineId) -> None:
        """Take out an engine that is in: the last one gets its place."""
        at, last = self._at.pop(engine), self._engines.pop()
        if last != engine:
            self._engines[at] = last
            self._at[last] = at

    def __getitem__(self, at: int) -> EngineId:
        """Return an engine."""
        return self._engines[at]

    def __len__(self) -> int:
        """Count them."""
        return len(self._engines)


class Pools(ABC):
    """Idle engines come before others, and engines with direct work last; among those alike ``pick`` decides.

    Costs O(1) a task, unless it may not go everywhere. Random numbers change with each update, not with each choice:
    to choose twice must give the same.
    """

    def __init__(self) -> None:
        """Know no engine."""
        self.places: dict[EngineId, Place] = {}
        self._balanced: dict[EngineId, int] = {}
        self._bags = {kind: Bag() for kind in Kind}
        self._hindered: set[EngineId] = set()
        self._turn = 0
        self._seed = getrandbits(64)

    @abstractmethod
    def pick(self, engines: Bag | list[EngineId]) -> EngineId:
        """Return one of *engines*, of which there is at least one, and which are all of one kind."""

    def update(self, engine: EngineId, direct: int, balanced: int, room: int) -> None:
        """Learn the load of *engine*, new or known."""
        known = self.places.get(engine)
        used = known.used if known is not None else 0
        self._turn += 1
        if balanced > self._balanced.get(engine, 0):
            used = self._turn
        if room <= 0:
            kind = Kind.FULL
        elif direct > 0:
            kind = Kind.HINDERED
        else:
            kind = Kind.IDLE if balanced == 0 else Kind.ROOM
        if known is None or known.kind is not kind:
            if known is not None:
                self._bags[known.kind].remove(engine)
            self._bags[kind].add(engine)
        self.places[engine] = Place(kind, direct + balanced, used)
        self._balanced[engine] = balanced
        if direct > 0:
            self._hindered.add(engine)
        else:
            self._hindered.discard(engine)

    def remove(self, engine: EngineId) -> None:
        """Forget *engine*; nothing happens if it is not known."""
        place = self.places.pop(engine, None)
        if place is not None:
            self._turn += 1
            self._bags[place.kind].remove(engine)
            self._hindered.discard(engine)
            del self._balanced[engine]

    def choose(
        self, among: AbstractSet[EngineId] | None = None, without: AbstractSet[EngineId] = NONE
    ) -> EngineId | None:
        """Return the engine that should get the next task, or None to wait until some load changes."""
        if among is None and not without:
            free, bags = len(self.places) > len(self._hindered), self._bags
            for kind in (Kind.IDLE, Kind.ROOM) if free else (Kind.HINDERED,):
                if bags[kind]:
                    return self.pick(bags[kind])
            return None
        able = [engine for engine in self._able(among) if engine not in without]
        if all(engine in self._hindered for engine in able):
            return self._pick_of(able, Kind.HINDERED)
        chosen = self._pick_of(able, Kind.IDLE)
        return self._pick_of(able, Kind.ROOM) if chosen is None else chosen

    def _able(self, among: AbstractSet[EngineId] | None) -> Iterator[EngineId]:
        return iter(self.places) if among is None else (engine for engine in self.places if engine in among)

    def _pick_of(self, engines: list[EngineId], kind: Kind) -> EngineId | None:
        found = [engine for engine in engines if self.places[engine].kind is kind]
        return self.pick(found) if found else None

    def random(self) -> Iterator[int]:
        """Yield random numbers of 64 bits, others after each update (SplitMix64; Steele, Lea and Flood, 2014)."""
        state = (self._seed + self._turn * 0xD1342543DE82EF95) & _MASK
        while True:
            state = (state + 0x9E3779B97F4A7C15) & _MASK
            z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
            z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
            yield z ^ (z >> 31)
