"""The hub killed at random moments, between peers that behave like real ones: nothing is lost, nothing runs twice."""

from __future__ import annotations

import random
from collections import Counter, deque

import pytest

from core.house import INLINE, agent, records
from ippmpi.core.effects import Effect, Keep, Replay, Send
from ippmpi.core.hub import Hub
from ippmpi.core.invariants import check
from ippmpi.core.limits import Limits
from ippmpi.core.restoring import Past, PastTask
from ippmpi.ids import EngineId, Peer, TaskId
from ippmpi.policies.leastload import LeastLoad
from ippmpi.wire.messages import (
    Awaited,
    Content,
    Dependency,
    EngineRecord,
    EnginesChanged,
    Held,
    Message,
    Placement,
    RegisterEngines,
    Reply,
    Run,
    StillWaiting,
    Submit,
)

SIZE = 4
AGENTS = (agent("h1"), agent("h2"))
CLIENT = Peer("client:c")


class Line:
    """A session from a peer to the hub: what is not acknowledged is sent again to the next hub."""

    def __init__(self) -> None:
        self.unsent: deque[Message] = deque()
        self.unacked: list[Message] = []

    def restart(self) -> None:
        self.unsent.extendleft(reversed(self.unacked))
        self.unacked.clear()


class Model:
    """A hub, its store, two agents with two engines each, and a client."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.lines = {peer: Line() for peer in (*AGENTS, CLIENT)}
        self.queues: dict[int, deque[str]] = {engine: deque() for engine in range(SIZE)}
        self.has: dict[int, dict[str, None]] = {engine: {} for engine in range(SIZE)}  # until the reply is acknowledged
        self.ran: Counter[tuple[str, int]] = Counter()
        self.waiting: dict[str, set[int]] = {}
        self.ended: Counter[str] = Counter()
        self.requests: dict[str, Submit] = {}
        self.replies: dict[tuple[str, int], Reply] = {}
        self.engines: dict[int, EngineRecord] = {}
        self.names = 0
        self.begin(Past())
        for n, peer in enumerate(AGENTS):
            self.lines[peer].unsent.append(self.registration(n))

    def registration(self, n: int, *, again: bool = False) -> RegisterEngines:
        ranks = range(2 * n, 2 * n + 2)
        tasks = [[Held(task) for task in self.has[rank]] for rank in ranks] if again else []
        return RegisterEngines("w", SIZE, records(ranks, host=f"h{n + 1}"), tasks=tasks)

    def begin(self, past: Past) -> None:
        self.hub = Hub(LeastLoad(), Limits())
        self.uncommitted: deque[tuple[Message, Line | None, Message | None]] = deque()
        self.down: dict[Peer, deque[Message]] = {peer: deque() for peer in self.lines}
        self.connected: set[Peer] = set()
        self.take(self.hub.restore(past))

    # --- the hub ---

    def take(self, effects: object, line: Line | None = None, cause: Message | None = None) -> None:
        kept = False
        for effect in list(effects):  # type: ignore[call-overload]
            assert isinstance(effect, Effect)
            if isinstance(effect, Send):
                self.down[effect.peer].append(effect.message)
            elif isinstance(effect, Keep):
                kept = True
                self.uncommitted.append((effect.message, line, cause))
            elif isinstance(effect, Replay):
                for (task, engine), reply in self.replies.items():
                    if task == effect.task and (engine in effect.engines or not effect.engines):
                        self.down[effect.peer].append(reply)
        check(self.hub)
        if line is not None and cause is not None and not kept:
            self.acknowledge(line, cause)

    def acknowledge(self, line: Line, message: Message) -> None:
        line.unacked = [m for m in line.unacked if m is not message]
        if isinstance(message, Reply):
            self.has[message.engine].pop(message.task, None)

    def commit(self) -> None:
        for _ in range(self.random.randint(1, 5)):
            if not self.uncommitted:
                return
            message, line, cause = self.uncommitted.popleft()
            if isinstance(message, Submit):
                self.requests.setdefault(message.task, message)
            elif isinstance(message, Reply):
                self.replies[message.task, message.engine] = message
            elif isinstance(message, EnginesChanged):
                self.engines |= {record.id: record for record in message.joined}
                self.take(self.hub.stored(message))
            if cause is not None and all(c is not cause for _, _, c in self.uncommitted):
                assert line is not None
                self.acknowledge(line, cause)

    def kill(self) -> None:
        tasks = []
        for task, submit in self.requests.items():
            ends = {e: r.failure is None for (t, e), r in self.replies.items() if t == task}
            ended = len(ends) >= max(1, len(submit.targets))
            tasks.append(PastTask(task, CLIENT, ends, None if ended else submit))
        early = [r for (t, _), r in self.replies.items() if t not in self.requests]
        self.begin(Past(list(self.engines.values()), tasks, early))
        for line in self.lines.values():
            line.restart()

    # --- peers ---

    def come_back(self, peer: Peer) -> None:
        """Connect; a peer that was connected before says first, or last, what a new hub must know."""
        line = self.lines[peer]
        self.connected.add(peer)
        if peer == CLIENT:
            waiting = [Awaited(t, sorted(e - {-1})) for t, e in self.waiting.items()]
            line.unsent.append(StillWaiting(waiting))
        elif any(record.host == peer.rpartition("@")[2] for record in self.engines.values()):
            line.unsent.appendleft(self.registration(AGENTS.index(peer), again=True))
        self.take(self.hub.connected(peer, {}))

    def speak(self, peer: Peer) -> None:
        line = self.lines[peer]
        if peer in self.connected and line.unsent:
            message = line.unsent.popleft()
            line.unacked.append(message)
            self.take(self.hub.handle(peer, message), line, message)

    def hear(self, peer: Peer) -> None:
        if peer not in self.connected or not self.down[peer]:
            return
        message = self.down[peer].popleft()
        if isinstance(message, Run):
            for engine in message.engines:
                if message.task not in self.has[engine]:
                    self.has[engine][message.task] = None
                    self.queues[engine].append(message.task)
        elif isinstance(message, Reply) and message.task in self.waiting:
            place = message.engine if message.engine in self.waiting[message.task] else -1
            assert message.failure is None, message.failure
            self.waiting[message.task].discard(place)
            if not self.waiting[message.task]:
                del self.waiting[message.task]
                self.ended[message.task] += 1

    def run(self) -> None:
        engine = self.random.randrange(SIZE)
        if self.queues[engine]:
            task = self.queues[engine].popleft()
            self.ran[task, engine] += 1
            self.lines[AGENTS[engine // 2]].unsent.append(Reply(task, engine, Content(b"v", 1)))

    def submit(self) -> None:
        self.names += 1
        task = f"c-{self.names}"
        if self.random.random() < 0.6:
            targets, placement = [], Placement()
            earlier = [t for t in self.waiting if -1 in self.waiting[t]]
            if earlier and self.random.random() < 0.4:
                placement = Placement(after=Dependency([self.random.choice(earlier)]))
        else:
            targets, placement = sorted(self.random.sample(range(SIZE), self.random.randint(1, SIZE))), None
        self.waiting[task] = set(targets or [-1])
        self.lines[CLIENT].unsent.append(Submit(task, "apply", targets, [INLINE], placement=placement))

    def step(self) -> None:
        peer = self.random.choice([*self.lines])
        if peer not in self.connected:
            if self.random.random() < 0.2:
                self.come_back(peer)
            return
        actions = (self.speak, self.hear, lambda _: self.commit(), lambda _: self.run(), self.hear, self.speak)
        self.random.choice(actions)(peer)

    def finish(self) -> None:
        for _ in range(20_000):
            if not self.waiting:
                return
            self.step()
        raise AssertionError(f"still waiting for {self.waiting}")


@pytest.mark.parametrize("seed", range(40))
def test_a_hub_that_is_killed_again_and_again_loses_nothing(seed: int) -> None:
    model = Model(seed)
    while len(model.engines) < SIZE:
        model.step()
    for _ in range(800):
        action = model.random.random()
        if action < 0.05:
            model.submit()
        elif action < 0.06:
            model.kill()
        else:
            model.step()
    model.finish()
    assert set(model.ended.values()) <= {1}
    assert len(model.ended) == model.names
    assert set(model.ran.values()) <= {1}, [key for key, count in model.ran.items() if count > 1]
    direct = {(t, e) for t, s in model.requests.items() for e in s.targets}
    balanced = Counter(t for t, e in model.ran if not model.requests.get(t, Submit(t, "", [0], [])).targets)
    assert direct <= set(model.ran)
    assert set(balanced.values()) <= {1}
    assert EngineId(0) in model.hub.ledger.engines
    assert TaskId("c-1") not in model.hub.ledger.tasks
