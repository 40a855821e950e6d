"""The hub after a restart: what it reads from the store, and what its agents and clients tell it.

The store knows the requests and their ends, the engines know what they have. In between, work waits:
an agent that has not returned gets nothing, and as long as one is missing no balanced task is
placed, since it may be on one of its engines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from ippmpi.core.balanced import Scheduler
from ippmpi.core.caching import Caching
from ippmpi.core.direct import Direct
from ippmpi.core.effects import Effect, Replay, Send
from ippmpi.core.engine import Engine, EngineEvent, EngineState
from ippmpi.core.ledger import Agent, Client, Ledger
from ippmpi.core.orphans import Orphans
from ippmpi.core.task import ENDED, HANDED, NOWHERE, BalancedTask, Ended, Event, State, Task
from ippmpi.core.world import World
from ippmpi.ids import EngineId, Peer, TaskId, WorldId
from ippmpi.wire.messages import (
    Awaited,
    Content,
    EngineRecord,
    Failure,
    Held,
    Message,
    Reply,
    Run,
    StillWaiting,
    Submit,
)

GONE = "its controller was started again, or had too much to keep, and its store has no record of it; it may have run"

MOST_ATTEMPTS = 1 << 31
"""More is a broken peer."""


@dataclass(frozen=True, slots=True)
class PastTask:
    """A request that was stored. ``submit`` is None if it has ended; ``ends``: engine to whether it succeeded."""

    task: str
    owner: Peer
    ends: Mapping[int, bool]
    submit: Submit | None = None


@dataclass(frozen=True, slots=True)
class Past:
    """What the store knows: the engines there were, all tasks in the order of submission, replies without a task.

    ``spooled``: replies whose values were too large for the store, as far as names, sizes and keys go.
    """

    engines: Sequence[EngineRecord] = ()
    tasks: Sequence[PastTask] = ()
    early: Sequence[Reply] = ()
    spooled: Sequence[Reply] = ()

    def keys(self) -> Iterator[int]:
        """Yield the keys of all contents that are named here."""
        yield from (reply.content.transfer for reply in (*self.early, *self.spooled))
        for task in self.tasks:
            if task.submit is not None:
                yield from (content.transfer for content in task.submit.contents)


class Restoring:
    """Fills the tables from the past, then lets agents and clients return."""

    def __init__(
        self, ledger: Ledger, scheduler: Scheduler, caching: Caching, direct: Direct, orphans: Orphans
    ) -> None:
        """Share the tables."""
        self._ledger = ledger
        self._scheduler = scheduler
        self._caching = caching
        self._direct = direct
        self._orphans = orphans
        self._restored = False
        self._untold: dict[Engine, Sequence[Held]] = {}  # what those have that have not joined yet

    # --- the past ---

    def restore(self, past: Past) -> Iterator[Effect]:
        """Enter all that is known; the tables must be empty."""
        self._restored = True
        engines = [self._engine(record) for record in past.engines]
        self._ledger.joins = max((engine.joined for engine in engines), default=0)
        self._ledger.returning = {engine.agent: [] for engine in engines}
        yield from self._scheduler.join(engines)
        for reply in past.early:
            self._orphans.add(TaskId(reply.task), EngineId(reply.engine), reply.attempt)
            self._orphans.keep(reply)
        for task in past.tasks:
            self._ledger.restored.add(TaskId(task.task))
            if task.submit is None or len(task.ends) >= max(1, len(task.submit.targets)):
                self._ledger.former[TaskId(task.task)] = self._ended(task)
            else:
                yield from self._start(task, task.submit)

    def _engine(self, record: EngineRecord) -> Engine:
        ledger = self._ledger
        peer, world_id = Peer(f"agent:{record.world}@{record.host}"), WorldId(record.world)
        engine = Engine(peer, world_id, record, ledger.limits.recent_tasks)
        engine.id = EngineId(record.id)
        engine.move(EngineEvent.NAME)
        engine.move(EngineEvent.JOIN)
        world = ledger.worlds.setdefault(world_id, World(world_id, record.size))
        world.base = record.id - record.rank
        world.engines[record.rank] = engine
        ledger.engines[engine.id] = engine
        ledger.agents.setdefault(peer, Agent(peer, connected=False)).engines[world_id, record.rank] = engine
        return engine

    def _ended(self, task: PastTask) -> Ended:
        engine = self._ledger.engines.get(EngineId(next(iter(task.ends)))) if len(task.ends) == 1 else None
        return Ended(task.owner, all(task.ends.values()), engine, len(task.ends) > 1, 0)

    def _start(self, past: PastTask, message: Submit) -> Iterator[Effect]:
        ledger = self._ledger
        ledger.clients.setdefault(past.owner, Client(past.owner, connected=False))
        if message.placement is not None:
            balanced = self._scheduler.make(past.owner, message)
            ledger.add(balanced)
            begin = self._scheduler.start if message.cache is None else self._caching.hope
            yield from begin(balanced, message)
            return
        task = self._direct.make(past.owner, message)
        ledger.add(task)
        for engine, succeeded in past.ends.items():
            if task.parts.get(EngineId(engine)) is State.WAITING:
                task.move(EngineId(engine), Event.ASSIGN)
                task.move(EngineId(engine), Event.FINISH if succeeded else Event.FAIL)
        yield from self._direct.start(task, message)

    # --- agents ---

    def returned(self, peer: Peer, engines: Sequence[Engine], tasks: Sequence[Sequence[Held]]) -> Iterator[Effect]:
        """Learn what the *engines* of an agent have (*tasks*, one list each); send what has waited for it."""
        known: dict[EngineId, set[str]] = {}
        for engine, helds in zip(engines, tasks, strict=False):
            if not self._restored:
                break  # the hub knows who has what, and nobody takes it over
            if engine.state in (EngineState.JOINING, EngineState.NAMED):
                self._untold[engine] = helds
                continue
            known[engine.id] = {held.task for held in helds if not held.absent}
            self._learn(engine, helds)
        if peer in self._ledger.returning:
            for message in self._ledger.returning.pop(peer):
                left = self._still_wanted(message, known)
                if left is not None:
                    yield Send(peer, left)
            yield from self._go_on()

    def joined(self, engines: Sequence[Engine]) -> None:
        """Learn what those have that have just joined: the store of an earlier life could not be written."""
        for engine in engines:
            self._learn(engine, self._untold.pop(engine, ()))

    def forget(self, engine: Engine) -> None:
        """What *engine* had is lost with it."""
        self._untold.pop(engine, None)

    def _learn(self, engine: Engine, helds: Sequence[Held]) -> None:
        engine.brought = tuple(TaskId(held.task) for held in helds if not held.absent)
        for held in helds:
            if 0 <= held.attempt <= MOST_ATTEMPTS:
                self._note(held, engine)

    def _still_wanted(self, message: Message, known: Mapping[EngineId, set[str]]) -> Message | None:
        """Return *message* for those of its engines that still have to do it and do not know it; None if none has.

        What has ended meanwhile, as its engine came back as another process, must not run there.
        """
        if not isinstance(message, Run):
            return message
        task = self._ledger.tasks.get(TaskId(message.task))
        if task is None or task.attempt != message.attempt:
            return None
        places = [EngineId(engine) for engine in message.engines]
        wanted = [
            i
            for i, place in enumerate(places)
            if task.parts.get(place) in HANDED and message.task not in known.get(place, ())
        ]
        if len(wanted) == len(places):
            return message
        engines = [message.engines[i] for i in wanted]
        contents = message.contents if len(message.contents) == 1 else [message.contents[i] for i in wanted]
        return msgspec.structs.replace(message, engines=engines, contents=contents) if engines else None

    def _note(self, held: Held, engine: Engine) -> None:
        name = TaskId(held.task)
        task = self._ledger.tasks.get(name)
        if isinstance(task, BalancedTask):
            if held.absent:
                task.begin_at(held.attempt)
            else:
                self.adopt(task, {engine.id: held.attempt})
        elif task is None and self._ledger.ended_record(name) is None:
            if held.absent:
                self._orphans.begin_at(name, held.attempt)
            else:
                self._orphans.add(name, engine.id, held.attempt)

    def adopt(self, task: BalancedTask, holders: Mapping[EngineId, int]) -> bool:
        """Enter which of *holders* has the latest attempt of *task*; return False if none of them is there."""
        adopted = False
        for name, attempt in holders.items():
            engine = self._ledger.open_engine(name)
            if engine is not None and self._scheduler.adopt(task, engine, attempt):
                adopted = True
        return adopted

    def given_up(self, peer: Peer) -> Iterator[Effect]:
        """Do not wait for an agent any longer."""
        if self._ledger.returning.pop(peer, None) is not None:
            yield from self._go_on()

    def _go_on(self) -> Iterator[Effect]:
        if not self._ledger.returning:
            yield from self._scheduler.resume()

    # --- clients ---

    def still_waiting(self, peer: Peer, message: StillWaiting) -> Iterator[Effect]:
        """Repeat what an earlier life has stored; fail what nobody knows of."""
        for awaited in message.tasks:
            task = TaskId(awaited.task)
            known = self._ledger.record_of(task)
            if known is None:
                failure = Failure("TaskAborted", GONE, kind="TaskAborted")
                for engine in awaited.engines or [NOWHERE]:
                    yield Send(peer, Reply(task, engine, Content(), failure))
            elif known.owner == peer:
                yield from self._replay(peer, known, awaited)

    def _replay(self, peer: Peer, known: Task | Ended, awaited: Awaited) -> Iterator[Effect]:
        task, engines = TaskId(awaited.task), awaited.engines
        if isinstance(known, Task):
            engines = [e for e in engines if known.parts.get(EngineId(e)) in ENDED]
            if not engines:
                return
        yield Replay(peer, task, engines)
