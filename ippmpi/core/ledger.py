"""The tables that the parts of the hub share: who is there, and which tasks are alive or remembered."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import count

from ippmpi.core.effects import Effect, Release, Send
from ippmpi.core.engine import Engine, EngineState
from ippmpi.core.limits import Limits
from ippmpi.core.policy import Policy
from ippmpi.core.queue import Queue
from ippmpi.core.task import BalancedTask, Ended, State, Task
from ippmpi.core.world import World
from ippmpi.ids import EngineId, Peer, TaskId, WorldId
from ippmpi.wire.messages import Content, Display, Message, Output, Published, Replies, Reply


@dataclass(slots=True)
class Client:
    """A client that may come back; ``tasks``: those that have not ended; ``keeps``: some left values on engines."""

    peer: Peer
    about: dict[str, str] = field(default_factory=dict)
    connected: bool = True
    tasks: dict[TaskId, Task] = field(default_factory=dict)
    keeps: bool = False


@dataclass(slots=True)
class Agent:
    """A node's agent and its live engines, by world and rank."""

    peer: Peer
    connected: bool = True
    engines: dict[tuple[WorldId, int], Engine] = field(default_factory=dict)


class Ledger:
    """Tables, and what keeps two of them consistent. Decisions are made elsewhere.

    After a restart (see ``restoring.py``): ``former`` are tasks that had ended in an earlier life, ``restored`` all
    that were read from the store; ``returning`` are agents that have not registered again, with what waits for them.
    """

    def __init__(self, policy: Policy, limits: Limits) -> None:
        """Start empty, at time 0."""
        self.policy = policy
        self._unreported: dict[Engine, None] = {}
        self.limits = limits
        self.now = 0.0
        self.clients: dict[Peer, Client] = {}
        self.agents: dict[Peer, Agent] = {}
        self.worlds: dict[WorldId, World] = {}
        self.engines: dict[EngineId, Engine] = {}
        self.joins = 0  # how often engines have joined, in all lives
        self.losses: OrderedDict[EngineId, str] = OrderedDict()
        self.tasks: dict[TaskId, Task] = {}
        self.ended: OrderedDict[TaskId, Ended] = OrderedDict()
        self.outcomes: Counter[State] = Counter()
        self.former: dict[TaskId, Ended] = {}
        self.restored: set[TaskId] = set()
        self.returning: dict[Peer, list[Message]] = {}
        self.queue = Queue()
        self.held_bytes = 0
        self.followers: dict[TaskId, dict[Peer, None]] = {}
        self.leaders: dict[str, TaskId] = {}  # of tasks whose results are cached, by their digests
        self._serials = count()

    # --- tasks ---

    def hand_out(self, task: Task) -> None:
        """Note that *task* is handed to engines now, behind all that they have."""
        task.turn = next(self._serials)
        task.given = self.now

    def next_serial(self) -> int:
        """Return a number that is larger than all before."""
        return next(self._serials)

    def add(self, task: Task) -> None:
        """Enter a new task of a known client."""
        self.tasks[task.id] = task
        self.clients[task.owner].tasks[task.id] = task
        if isinstance(task, BalancedTask):
            self.held_bytes += task.inline_bytes

    def remember(self, task: Task) -> None:
        """Move *task*, whose parts have all ended, from the living to the remembered."""
        del self.tasks[task.id]
        self.followers.pop(task.id, None)
        if isinstance(task, BalancedTask):
            self.held_bytes -= task.inline_bytes
        client = self.owner_of(task)
        if client is None:
            return  # nobody is left who may ask
        del client.tasks[task.id]
        several, succeeded = len(task.parts) > 1, task.succeeded
        failed = () if succeeded else task.failed
        self.ended[task.id] = Ended(task.owner, succeeded, task.engine, several, task.printed, failed)
        if len(self.ended) > self.limits.kept_tasks:
            self.ended.popitem(last=False)

    def owner_of(self, task: Task) -> Client | None:
        """Return the client that waits for *task*; None if it is gone, also if a new one has its name."""
        client = self.clients.get(task.owner)
        return client if client is not None and task.id in client.tasks else None

    def follow(self, peer: Peer, task: TaskId) -> None:
        """Let *peer* hear all that is sent to the owner of *task* until it ends."""
        if self.tasks[task].owner != peer:
            self.followers.setdefault(task, {})[peer] = None

    def unfollow(self, peer: Peer) -> None:
        """Forget what *peer* follows: it is gone."""
        for task, peers in list(self.followers.items()):
            peers.pop(peer, None)
            if not peers:
                del self.followers[task]

    def tell_followers(self, message: Reply | Replies | Output | Display | Published) -> Iterator[Effect]:
        """Send *message*, about a task, to those who follow it."""
        for peer in self.followers.get(TaskId(message.task), ()):
            yield Send(peer, message)

    def record_of(self, task: str) -> Task | Ended | None:
        """Return what is known of *task*."""
        return self.tasks.get(TaskId(task)) or self.ended_record(TaskId(task))

    def ended_record(self, task: TaskId) -> Ended | None:
        """Return what is remembered of *task* if it has ended."""
        return self.ended.get(task) or self.former.get(task)

    # --- the load of engines ---

    def report_load(self, engine: Engine) -> None:
        """Note that the policy is to hear what *engine* holds before it chooses next (not for direct work)."""
        self._unreported[engine] = None

    def tell_policy(self) -> None:
        """Tell the policy of all loads that changed."""
        for engine in self._unreported:
            if engine.state is EngineState.ALIVE:
                balanced = len(engine.balanced)
                room = max(0, engine.ahead - balanced)
                if self.returning:  # an agent may return with any waiting task
                    room = 0
                self.policy.update(engine.id, len(engine.direct), balanced, room)
        self._unreported.clear()

    def choose(self, among: AbstractSet[EngineId] | None, without: AbstractSet[EngineId]) -> EngineId | None:
        """Have the policy choose an engine for a balanced task, see ``Policy.choose``."""
        self.tell_policy()
        return self.policy.choose(among, without)

    def withdraw(self, engine: Engine) -> None:
        """Have the policy forget *engine*, which takes no more work."""
        self._unreported.pop(engine, None)
        self.policy.remove(engine.id)

    def load(self, task: BalancedTask, engine: Engine) -> None:
        """Enter that *engine* holds *task*; for others see ``load_all``."""
        engine.balanced[task.id] = task
        self.report_load(engine)

    def unload(self, task: Task, engine: Engine) -> None:
        """Enter that *engine* does not hold *task* any more."""
        if isinstance(task, BalancedTask):
            del engine.balanced[task.id]
        else:
            del engine.direct[task.id]
        self.report_load(engine)

    def load_all(self, task: Task, engines: Iterable[Engine]) -> None:
        """Enter that *engines* hold *task*, which is not balanced."""
        name, unreported = task.id, self._unreported
        for engine in engines:
            engine.direct[name] = task
            unreported[engine] = None

    def unload_all(self, task: Task, engines: Iterable[Engine]) -> None:
        """Enter that *engines* do not hold *task*, which is not balanced, any more."""
        name, unreported = task.id, self._unreported
        for engine in engines:
            del engine.direct[name]
            unreported[engine] = None

    # --- peers ---

    def to_agent(self, peer: Peer, message: Message) -> Iterator[Effect]:
        """Send *message* about work; to an agent that has not returned, when it has."""
        held = self.returning.get(peer)
        if held is None:
            yield Send(peer, message)
        else:
            held.append(message)

    def open_engine(self, engine: EngineId) -> Engine | None:
        """Return the engine with this id if it takes work."""
        found = self.engines.get(engine)
        return found if found is not None and found.state is EngineState.ALIVE else None

    def missing(self, engine: EngineId) -> str:
        """Say why there is no such engine, or why it takes no work."""
        if engine in self.engines:
            return f"{self.engines[engine]} is stopping"
        return self.losses.get(engine) or f"there is no engine {engine}; have {spans(self.engines)}"

    def by_agent(self, engines: Iterable[Engine]) -> dict[Peer, list[int]]:
        """Group engine ids by the agent that leads to them."""
        groups: dict[Peer, list[int]] = {}
        for engine in engines:
            group = groups.get(engine.agent)
            if group is None:
                group = groups[engine.agent] = []
            group.append(engine.id)
        return groups

    def tell_clients(self, message: Message) -> Iterator[Effect]:
        """Send *message* to every client, also those that are away."""
        for peer in self.clients:
            yield Send(peer, message)


def release(contents: Iterable[Content]) -> Iterator[Effect]:
    """Let go of those *contents* that are spooled."""
    for content in contents:
        if content.transfer:
            yield Release(content)


def spans(ids: Iterable[int]) -> str:
    """Write ids for people: ``0-3, 7``; ``none`` if there are none."""
    ranges: list[list[int]] = []
    for number in sorted(ids):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges) or "none"
