"""Who is there: clients, agents, and the engines of their worlds, which join whole and leave one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ippmpi.core.balanced import Scheduler
from ippmpi.core.effects import Effect, Keep, Send
from ippmpi.core.ending import Ending, failure
from ippmpi.core.engine import Engine, EngineEvent, EngineState
from ippmpi.core.exchange import Exchange
from ippmpi.core.ledger import Agent, Client, Ledger
from ippmpi.core.restoring import Restoring
from ippmpi.core.task import NOWHERE, BalancedTask, Event, State
from ippmpi.core.world import World, choose_base
from ippmpi.errors import ProtocolError
from ippmpi.ids import EngineId, Peer, TaskId, WorldId
from ippmpi.wire.messages import EngineLost, EngineRecord, EnginesChanged, Registered, RegisterEngines

NO_TASK = TaskId("")

UNSEEN = "it did not come back when its node got a new agent (its process has ended, or holds the GIL)"
"""The reason for an engine that did not join the agent that took the place of one that had died."""

SUPERSEDED = "its process ended; another one has its rank"
"""The reason for an engine whose rank was started again before its end was told."""

STOPPED = "stopped"
"""The reason that clients see for an engine that was told to stop."""


@dataclass(frozen=True, slots=True)
class Loss:
    """An engine that is gone: ``reason`` is short, ``output`` its last words, ``untouched`` tasks it had not begun."""

    engine: Engine
    reason: str
    output: str = ""
    untouched: frozenset[TaskId] = frozenset()


class Membership:
    """Lets peers come and go, and follows up what that means for tasks."""

    def __init__(
        self, ledger: Ledger, ending: Ending, scheduler: Scheduler, restoring: Restoring, exchange: Exchange
    ) -> None:
        """Share the tables."""
        self._exchange = exchange
        self._ledger = ledger
        self._ending = ending
        self._scheduler = scheduler
        self._restoring = restoring

    # --- clients and agents ---

    def client_connected(self, peer: Peer, about: Mapping[str, object]) -> Iterator[Effect]:
        """Enter a client, or note that it is back, and tell it who is there."""
        client = self._ledger.clients.setdefault(peer, Client(peer))
        client.connected = True
        bound = self._ledger.limits.about_text
        client.about = {key: text[:bound] for key in ("user", "host") if isinstance(text := about.get(key), str)}
        engines = [self._record(engine) for _, engine in sorted(self._ledger.engines.items())]
        yield Send(peer, EnginesChanged(engines, [], []))

    def client_gone(self, peer: Peer) -> Iterator[Effect]:
        """Forget a client: its waiting tasks end, its running ones go on, and their ends and output are stored."""
        client = self._ledger.clients.pop(peer, None)
        if client is None:
            return
        self._ledger.unfollow(peer)
        for task in client.tasks.values():
            if isinstance(task, BalancedTask) and task.parts.get(NOWHERE) is State.WAITING:
                yield from self._scheduler.drop(task, "TaskAborted", "its client is gone", event=Event.ABORT)
        for name in [name for name, ended in self._ledger.ended.items() if ended.owner == peer]:
            del self._ledger.ended[name]
        yield from self._exchange.client_gone(client)

    def agent_connected(self, peer: Peer) -> None:
        """Enter an agent, or note that it is back."""
        self._ledger.agents.setdefault(peer, Agent(peer)).connected = True

    def agent_gone(self, peer: Peer, reason: str) -> Iterator[Effect]:
        """Forget an agent; its engines are lost, unless another agent has taken them over."""
        agent = self._ledger.agents.pop(peer, None)
        if agent is not None:
            yield from self._lose(
                [Loss(e, STOPPED if e.state is EngineState.STOPPING else reason) for e in agent.engines.values()]
            )
        yield from self._restoring.given_up(peer)

    # --- engines join ---

    def register(self, peer: Peer, message: RegisterEngines) -> Iterator[Effect]:
        """Enter ranks of a world; when it is complete, they get ids, and are announced once stored."""
        ledger = self._ledger
        if not message.engines:
            return
        world = ledger.worlds.get(WorldId(message.world)) or World(WorldId(message.world), message.size)
        world.check(message, peer)
        self._check_limit(world, message)
        yield from self._lose([Loss(engine, SUPERSEDED) for engine in world.superseded(message)], stored=False)
        if not world.engines:
            world.size = message.size
        ledger.worlds[world.id] = world
        attached = [self._attach(peer, world, record) for record in message.engines]
        new = [e for _, e in sorted(world.engines.items()) if e.state is EngineState.JOINING] if world.complete else []
        if new:
            world.base = choose_base(world, ledger.worlds.values())
        if any(engine.id >= 0 and engine.state is not EngineState.NAMED for engine in attached):
            yield self._registered(peer, world)
        if new:
            yield self._name(world, new)
        yield from self._restoring.returned(peer, attached, message.tasks)
        if message.whole:
            mine = ledger.agents[peer].engines.values()
            gone = [engine for engine in mine if engine.world == world.id and engine not in attached]
            yield from self._lose([Loss(engine, UNSEEN) for engine in gone])

    def _check_limit(self, world: World, message: RegisterEngines) -> None:
        limit = self._ledger.limits.engines
        if message.size > limit:
            raise ProtocolError(f"a world of {message.size} ranks; {limit} engines are the limit")
        here = sum(len(w.engines) for w in self._ledger.worlds.values())
        if here + sum(record.rank not in world.engines for record in message.engines) > limit:
            raise ProtocolError(f"{here} engines are registered, {limit} are the limit")

    def _attach(self, peer: Peer, world: World, record: EngineRecord) -> Engine:
        engine = world.engines.get(record.rank)
        if engine is None:
            engine = Engine(peer, world.id, record, self._ledger.limits.recent_tasks)
            world.engines[record.rank] = engine
        self._ledger.agents[engine.agent].engines.pop((world.id, engine.rank), None)
        engine.agent = peer
        self._ledger.agents[peer].engines[world.id, engine.rank] = engine
        return engine

    def _name(self, world: World, engines: list[Engine]) -> Effect:
        self._ledger.joins += 1
        for engine in engines:
            engine.id = EngineId((world.base or 0) + engine.rank)
            engine.joined = self._ledger.joins
            engine.move(EngineEvent.NAME)
        return Keep(NO_TASK, EnginesChanged([self._record(e) for e in engines], [], []))

    def stored(self, change: EnginesChanged) -> Iterator[Effect]:
        """Let those join of whom *change* tells, and who are still there: the store knows them now.

        Work for engines that a restored hub does not know, and thus does not wait for, would be done elsewhere again.
        """
        ledger = self._ledger
        found = [(record, ledger.worlds.get(WorldId(record.world))) for record in change.joined]
        here = [(record, world.engines.get(record.rank)) for record, world in found if world is not None]
        new = [e for record, e in here if e is not None and (e.pid, e.joined) == (record.pid, record.joined)]
        new = [engine for engine in new if engine.state is EngineState.NAMED]
        if not new:
            return
        for engine in new:
            engine.move(EngineEvent.JOIN)
            ledger.engines[engine.id] = engine
            ledger.losses.pop(engine.id, None)
        for agent, world_id in dict.fromkeys((engine.agent, engine.world) for engine in new):
            yield self._registered(agent, ledger.worlds[world_id])
        yield from ledger.tell_clients(EnginesChanged([self._record(engine) for engine in new], [], []))
        self._restoring.joined(new)
        yield from self._scheduler.join(new)

    def _registered(self, agent: Peer, world: World) -> Effect:
        ranks = self._ledger.agents[agent].engines.values()
        pids = [e.pid for e in ranks if e.world == world.id and e.id >= 0 and e.state is not EngineState.NAMED]
        return Send(agent, Registered(world.id, world.base or 0, pids))

    def _record(self, engine: Engine) -> EngineRecord:
        return engine.record(self._ledger.worlds[engine.world].size)

    # --- engines leave ---

    def lost(self, peer: Peer, message: EngineLost) -> Iterator[Effect]:
        """Enter the end of one engine; news of an engine that is not there (any more) change nothing."""
        world = self._ledger.worlds.get(WorldId(message.world))
        engine = world.engines.get(message.rank) if world is not None else None
        if engine is None or engine.agent != peer:
            return
        reason = STOPPED if message.expected else message.cause or "its process ended"
        output = message.output[-self._ledger.limits.last_output :]
        yield from self._lose([Loss(engine, reason, output, frozenset(map(TaskId, message.untouched)))])
        if not self._ledger.agents[peer].engines:
            yield from self._restoring.given_up(peer)

    def stop(self, engines: list[Engine]) -> Iterator[Effect]:
        """Note that *engines* were told to stop: they get no more work."""
        for engine in engines:
            engine.move(EngineEvent.STOP)
        yield from self._scheduler.leave(engines)

    def _lose(self, losses: list[Loss], *, stored: bool = True) -> Iterator[Effect]:
        """Follow up *losses*. Not *stored*: another process is about to join as each.

        A hub that was killed between the two records would not know that there is anybody to wait for.
        """
        known = [loss for loss in losses if self._strike(loss)]
        named = _left([loss for loss in losses if loss.engine.id >= 0])
        if stored and named.left:
            yield Keep(NO_TASK, named)
        if known:
            yield from self._ledger.tell_clients(_left(known))
        yield from self._scheduler.leave([loss.engine for loss in known])
        for loss in known:
            yield from self._fail_tasks(loss)
        yield from self._exchange.lost([loss.engine.id for loss in known])

    def _strike(self, loss: Loss) -> bool:
        """Take the engine out of the tables; return whether clients knew it."""
        ledger, engine = self._ledger, loss.engine
        world = ledger.worlds[engine.world]
        del world.engines[engine.rank]
        if not world.engines:
            self._bound_worlds(world)
        agent = ledger.agents.get(engine.agent)
        if agent is not None:
            agent.engines.pop((engine.world, engine.rank), None)
        known = ledger.engines.get(engine.id) is engine
        engine.move(EngineEvent.LOSE)
        self._restoring.forget(engine)
        if not known:
            return False
        del ledger.engines[engine.id]
        ledger.withdraw(engine)
        ledger.losses[engine.id] = _text(loss)
        if len(ledger.losses) > ledger.limits.kept_losses:
            ledger.losses.popitem(last=False)
        return True

    def _bound_worlds(self, world: World) -> None:
        """Keep *world*, which has no rank any more, for its base; drop the oldest of its kind beyond the limit."""
        worlds = self._ledger.worlds
        worlds[world.id] = worlds.pop(world.id)  # now the youngest
        empty = [w.id for w in worlds.values() if not w.engines]
        for name in empty[: max(0, len(empty) - self._ledger.limits.kept_worlds)]:
            del worlds[name]

    def _fail_tasks(self, loss: Loss) -> Iterator[Effect]:
        engine = loss.engine
        why = failure("EngineError", _text(loss), engine)
        for task in list(engine.direct.values()):
            yield from self._ending.fail(task, engine.id, why.kind, why.evalue, event=Event.ENGINE_DIED, engine=engine)
        others = [task for task in engine.balanced.values() if task.id in loss.untouched]
        for balanced in [task for task in engine.balanced.values() if task.id not in loss.untouched]:
            yield from self._scheduler.lose(balanced, engine, why)
        for balanced in reversed(others):  # each comes back to the front of the queue
            yield from self._scheduler.hand_back(balanced, engine)
        engine.direct.clear()  # records of ended tasks may keep the engine, but must not keep tasks
        engine.balanced.clear()


def _left(losses: list[Loss]) -> EnginesChanged:
    return EnginesChanged([], [int(loss.engine.id) for loss in losses], [loss.reason for loss in losses])


def _text(loss: Loss) -> str:
    last = f"\n--- last output ---\n{loss.output}" if loss.output else ""
    return f"{loss.engine} was lost: {loss.reason}{last}"
