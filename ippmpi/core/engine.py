"""One engine's life, as a table, and the work that it holds."""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING

from ippmpi.errors import ProtocolError
from ippmpi.ids import EngineId, Peer, TaskId, WorldId
from ippmpi.wire.messages import EngineRecord

if TYPE_CHECKING:  # a task knows its engine, an engine its tasks
    from ippmpi.core.task import BalancedTask, Task


class EngineState(Enum):
    """How far an engine is."""

    JOINING = "joining"
    """Its world is not complete; it has no id yet and nobody hears of it."""
    NAMED = "named"
    """It has an id, but nobody hears of it and it gets no work before the store knows it: see ``Hub.stored``."""
    ALIVE = "alive"
    STOPPING = "stopping"
    """It was told to stop and takes no new work."""
    LOST = "lost"


class EngineEvent(Enum):
    """What can happen to an engine."""

    NAME = "name"
    JOIN = "join"
    STOP = "stop"
    LOSE = "lose"


ENGINE_TRANSITIONS = {
    (EngineState.JOINING, EngineEvent.NAME): EngineState.NAMED,
    (EngineState.JOINING, EngineEvent.STOP): EngineState.STOPPING,
    (EngineState.JOINING, EngineEvent.LOSE): EngineState.LOST,
    (EngineState.NAMED, EngineEvent.JOIN): EngineState.ALIVE,
    (EngineState.NAMED, EngineEvent.STOP): EngineState.STOPPING,
    (EngineState.NAMED, EngineEvent.LOSE): EngineState.LOST,
    (EngineState.ALIVE, EngineEvent.STOP): EngineState.STOPPING,
    (EngineState.ALIVE, EngineEvent.LOSE): EngineState.LOST,
    (EngineState.STOPPING, EngineEvent.STOP): EngineState.STOPPING,
    (EngineState.STOPPING, EngineEvent.LOSE): EngineState.LOST,
}


class Engine:
    """One process of one rank. A restarted rank is another Engine, also when it gets the same id."""

    __slots__ = (
        "adopted", "agent", "ahead", "balanced", "brought", "completed", "direct", "freed", "host", "id", "joined",
        "moved", "pace_s", "pid", "rank", "recent", "state", "world",
    )  # fmt: skip

    def __init__(self, agent: Peer, world: WorldId, record: EngineRecord, recent: int) -> None:
        """Start JOINING; *recent* bounds the list of ended tasks."""
        self.id = EngineId(-1)
        self.agent = agent
        self.world = world
        self.rank = record.rank
        self.host = record.host
        self.pid = record.pid
        self.joined = record.joined
        self.state = EngineState.JOINING
        self.direct: dict[TaskId, Task] = {}
        self.balanced: dict[TaskId, BalancedTask] = {}
        self.completed = 0
        self.ahead = 1  # how many balanced tasks it may hold
        self.pace_s = 0.0  # what one takes, see ``ahead.py``
        self.moved = 0.0  # when it got its first one, or ended one
        self.freed = 0.0  # when it ended something
        self.brought: tuple[TaskId, ...] = ()  # what it had, in its order, when the hub came back
        self.adopted = 0  # balanced tasks that it had when the hub came back
        self.recent: deque[TaskId] = deque(maxlen=recent)

    def move(self, event: EngineEvent) -> None:
        """Apply *event*, or raise ProtocolError if it cannot happen now."""
        try:
            self.state = ENGINE_TRANSITIONS[self.state, event]
        except KeyError:
            raise ProtocolError(f"{self}: {event.name} in {self.state.name}") from None

    def record(self, size: int) -> EngineRecord:
        """Return what everybody may know; *size* is the number of ranks of its world."""
        return EngineRecord(self.id, self.rank, self.world, self.host, self.pid, size, self.joined)

    def __str__(self) -> str:
        """Name it for people."""
        return f"engine {self.id} (rank {self.rank} of {self.world} on {self.host}, pid {self.pid})"
