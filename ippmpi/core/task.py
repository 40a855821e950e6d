"""One task's life, as a table: a task has one part per engine, and each part ends exactly once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from ippmpi.core.dependency import Condition, Location
from ippmpi.core.engine import Engine
from ippmpi.errors import ProtocolError
from ippmpi.ids import EngineId, Peer, TaskId
from ippmpi.wire.messages import Content, Submit

NOWHERE = EngineId(-1)
"""Where a balanced task is while it waits, and the engine of a failure that happened on none."""


MOST_NEAR = 16
"""Engines that are looked at because they have data of a task."""


class State(Enum):
    """How far one part of a task is."""

    WAITING = "waiting"
    """Not handed to an engine."""
    RUNNING = "running"
    """Handed to an engine, which may still queue it."""
    RECALLED = "recalled"
    """Handed to an engine and asked back; whichever comes first, it ends, and is not tried again."""
    RETURNING = "returning"
    """Handed to an engine and asked back, to be given to another if it has not begun."""
    DONE = "done"
    FAILED = "failed"
    ABORTED = "aborted"
    LOST = "lost"

    __hash__ = object.__hash__  # the inherited one is written in Python; this is looked up for every reply


class Event(Enum):
    """What can happen to one part of a task."""

    ASSIGN = "assign"
    RECALL = "recall"
    RECLAIM = "reclaim"
    REQUEUE = "requeue"
    FINISH = "finish"
    FAIL = "fail"
    ABORT = "abort"
    ENGINE_DIED = "engine died"

    __hash__ = object.__hash__  # as above


TRANSITIONS = {
    (State.WAITING, Event.ASSIGN): State.RUNNING,
    (State.WAITING, Event.FINISH): State.DONE,  # its result was cached
    (State.WAITING, Event.FAIL): State.FAILED,
    (State.WAITING, Event.ABORT): State.ABORTED,
    (State.RUNNING, Event.RECALL): State.RECALLED,
    (State.RUNNING, Event.REQUEUE): State.WAITING,
    (State.RUNNING, Event.FINISH): State.DONE,
    (State.RUNNING, Event.FAIL): State.FAILED,
    (State.RUNNING, Event.ABORT): State.ABORTED,
    (State.RUNNING, Event.ENGINE_DIED): State.LOST,
    (State.RUNNING, Event.RECLAIM): State.RETURNING,
    (State.RETURNING, Event.RECALL): State.RECALLED,
    (State.RETURNING, Event.REQUEUE): State.WAITING,
    (State.RETURNING, Event.FINISH): State.DONE,
    (State.RETURNING, Event.FAIL): State.FAILED,
    (State.RETURNING, Event.ENGINE_DIED): State.LOST,
    (State.RECALLED, Event.RECALL): State.RECALLED,
    (State.RECALLED, Event.FINISH): State.DONE,
    (State.RECALLED, Event.FAIL): State.FAILED,
    (State.RECALLED, Event.ABORT): State.ABORTED,
    (State.RECALLED, Event.ENGINE_DIED): State.LOST,
}

HANDED = frozenset({State.RUNNING, State.RETURNING, State.RECALLED})
"""The part is on an engine and counts as its load."""

ENDED = frozenset({State.DONE, State.FAILED, State.ABORTED, State.LOST})

ENDS = frozenset(event for (_, event), state in TRANSITIONS.items() if state in ENDED)
"""What ends a part, whatever it was doing."""


class Task:
    """One request of one client: its parts by engine, and what is needed until they have ended."""

    __slots__ = (
        "attempt",
        "contents",
        "engine",
        "given",
        "id",
        "label",
        "op",
        "open",
        "owner",
        "parts",
        "printed",
        "turn",
    )

    def __init__(self, owner: Peer, message: Submit, places: Sequence[EngineId], contents: Sequence[Content]) -> None:
        """Start with every part WAITING; *contents* are those that must be kept until the end."""
        self.id = TaskId(message.task)
        self.owner = owner
        self.op = message.op
        self.label = message.label
        self.contents = contents
        self.parts = dict.fromkeys(places, State.WAITING)
        self.open = len(self.parts)
        self.engine: Engine | None = None  # the last one that it was handed to, unless there are several
        self.printed = 0
        self.attempt = 0  # how often it was taken back to the queue
        self.turn = 0  # when it was handed out last, as a serial number that orders what engines have
        self.given = 0.0  # the same as a time

    def move(self, part: EngineId, event: Event) -> State:
        """Apply *event* to one part, or raise ProtocolError if it cannot happen now."""
        try:
            state = TRANSITIONS[self.parts[part], event]
        except KeyError:
            found = self.parts.get(part)
            name = "no such part" if found is None else found.name
            raise ProtocolError(f"task {self.id} on engine {part}: {event.name} in {name}") from None
        self.parts[part] = state
        if state in ENDED:
            self.open -= 1
        return state

    def move_all(self, places: Sequence[EngineId], event: Event) -> None:
        """Apply *event* to several parts, or raise ProtocolError if it cannot happen to all of them now."""
        parts = self.parts
        found = set(map(parts.__getitem__, places))
        after = {state: TRANSITIONS[state, event] for state in found if (state, event) in TRANSITIONS}
        if len(after) < len(found):
            wrong = ", ".join(sorted(state.name for state in found - after.keys()))
            raise ProtocolError(f"task {self.id}, {len(places)} parts: {event.name} in {wrong}")
        for place in places:
            parts[place] = after[parts[place]]
        if event in ENDS:
            self.open -= len(places)

    @property
    def succeeded(self) -> bool:
        """Whether every part is DONE."""
        return set(self.parts.values()) == {State.DONE}

    @property
    def failed(self) -> tuple[EngineId, ...]:
        """The engines on which it ended, and not well."""
        bad = ENDED - {State.DONE}
        return tuple(part for part, state in self.parts.items() if state in bad and part != NOWHERE)


class BalancedTask(Task):
    """A task with one part, which the hub places; it may wait, move and be tried again."""

    __slots__ = (
        "after", "cache", "candidates", "deadline", "failed_on", "follow", "granted", "inline_bytes", "last_failure",
        "least_attempt", "near", "overtaken", "refused_by", "retries", "serial", "timeout_s",
    )  # fmt: skip

    def __init__(self, owner: Peer, message: Submit, serial: int) -> None:
        """Read the placement; *serial* is the hub's order of submission."""
        super().__init__(owner, message, (NOWHERE,), message.contents)
        placement = message.placement
        assert placement is not None
        self.serial = serial
        self.cache = message.cache
        self.candidates = None if placement.candidates is None else frozenset(map(EngineId, placement.candidates))
        self.retries = self.granted = placement.retries
        self.timeout_s = placement.timeout_s
        self.deadline: float | None = None
        self.after: Condition | None = None
        self.follow: Location | None = None
        self.failed_on: frozenset[Engine] = frozenset()  # to be avoided while another engine qualifies
        self.refused_by: frozenset[Engine] = frozenset()  # UnmetDependency: never again
        self.near = placement.near[:MOST_NEAR]  # engines that have its data, the most first
        self.overtaken = 0  # by tasks that have data where it could have gone
        self.last_failure = ""
        self.least_attempt = 0  # of the next one: earlier ones were seen by engines before the hub was restarted
        self.inline_bytes = sum(len(content.inline) for content in message.contents)

    def assign(self, engine: Engine) -> None:
        """Move the part from the queue to *engine*."""
        state = self.move(NOWHERE, Event.ASSIGN)
        self.parts = {engine.id: state}
        self.engine = engine

    def begin_at(self, attempt: int) -> None:
        """Have no attempt below *attempt* that is not under way yet."""
        self.least_attempt = max(self.least_attempt, attempt)
        self.note_used(attempt)
        if self.parts.get(NOWHERE) is State.WAITING:
            self.attempt = max(self.attempt, attempt)

    def note_used(self, attempts: int) -> None:
        """Grant no retry twice: before the hub was restarted there were so many *attempts* (refusals count too)."""
        self.retries = max(0, min(self.retries, self.granted - attempts))

    def requeue(self) -> None:
        """Move the part from its engine back to the queue."""
        assert self.engine is not None
        state = self.move(self.engine.id, Event.REQUEUE)
        self.parts = {NOWHERE: state}
        self.attempt = max(self.attempt + 1, self.least_attempt)


@dataclass(slots=True)
class Ended:
    """What is remembered of a task that has ended. ``engine`` is None if it ran on none, or on several.

    ``failed``: the engines on which it ended, and not well.
    """

    owner: Peer
    succeeded: bool
    engine: Engine | None
    several: bool
    printed: int
    failed: tuple[EngineId, ...] = ()
