"""Worlds (MPI jobs): which ranks are there, and which engine ids they get."""

from __future__ import annotations

from collections.abc import Iterable

from ippmpi.core.engine import Engine, EngineState
from ippmpi.errors import ProtocolError
from ippmpi.ids import Peer, WorldId
from ippmpi.wire.messages import RegisterEngines


class World:
    """One name, and the live engine of each rank; it is complete when all ranks are there at once."""

    __slots__ = ("base", "engines", "id", "size")

    def __init__(self, world: WorldId, size: int) -> None:
        """Start without ranks and without ids."""
        self.id = world
        self.size = size
        self.base: int | None = None
        self.engines: dict[int, Engine] = {}

    def check(self, message: RegisterEngines, agent: Peer | None = None) -> None:
        """Raise ProtocolError if *message* contradicts itself or what is there. *agent* may replace its own."""
        ranks = [record.rank for record in message.engines]
        if len(set(ranks)) < len(ranks) or any(not 0 <= rank < message.size for rank in ranks):
            raise ProtocolError(
                f"world {self.id}: ranks {ranks} where distinct ones below {message.size} were expected"
            )
        if self.engines and message.size != self.size:
            raise ProtocolError(f"world {self.id} has {self.size} ranks, a node says {message.size}")
        for record in message.engines:
            known = self.engines.get(record.rank)
            if known is None or (known.pid, known.host) == (record.pid, record.host):
                continue
            if known.agent != agent or known.host != record.host:
                raise ProtocolError(
                    f"world {self.id}: rank {record.rank} is pid {known.pid} on {known.host}, "
                    f"a node says pid {record.pid} on {record.host}"
                )

    def superseded(self, message: RegisterEngines) -> list[Engine]:
        """Return the engines whose rank belongs to another process now."""
        known = [(self.engines.get(record.rank), record.pid) for record in message.engines]
        return [engine for engine, pid in known if engine is not None and engine.pid != pid]

    @property
    def complete(self) -> bool:
        """Whether every rank is there and was not told to stop."""
        return len(self.engines) == self.size and all(
            engine.state in (EngineState.JOINING, EngineState.NAMED, EngineState.ALIVE)
            for engine in self.engines.values()
        )

    @property
    def occupied(self) -> range:
        """The ids that nobody else may get: all of a world's, as long as one of its engines has one."""
        if self.base is None or not any(engine.id >= 0 for engine in self.engines.values()):
            return range(0)
        return range(self.base, self.base + self.size)


def choose_base(world: World, worlds: Iterable[World]) -> int:
    """Return the old base of *world* if its ids are free, else the lowest base whose ids are."""
    if world.occupied and world.base is not None:  # some of its engines have their ids
        return world.base
    taken = sorted((w.occupied for w in worlds if w is not world and w.occupied), key=lambda ids: ids.start)
    if world.base is not None and all(ids.stop <= world.base or world.base + world.size <= ids.start for ids in taken):
        return world.base
    base = 0
    for ids in taken:
        if base + world.size <= ids.start:
            break
        base = max(base, ids.stop)
    return base
