"""A hub between peers that behave like real ones, whatever happens to them: they die, return, and lose nobody's work.

Two clients, two worlds on two hosts. The hub is killed and restored from what its store had committed; ranks die and
are started again; a host loses power; connections break; tasks fail, are tried again, wait for others, are taken back.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from core.house import INLINE
from core.truth import ids, judge
from ippmpi import plugins
from ippmpi.core.effects import Effect, Keep, Recall, Remember, Replay, Send
from ippmpi.core.hub import Hub
from ippmpi.core.invariants import check
from ippmpi.core.limits import Limits
from ippmpi.core.restoring import Past, PastTask
from ippmpi.ids import Peer, TaskId
from ippmpi.wire.messages import (
    Abort,
    Awaited,
    CacheKey,
    Content,
    Dependency,
    EngineLost,
    EngineRecord,
    EnginesChanged,
    Failure,
    Fetch,
    Fetched,
    Free,
    Held,
    Message,
    Placement,
    Registered,
    RegisterEngines,
    Reply,
    Revoke,
    Run,
    StillWaiting,
    Submit,
)

CLIENTS = (Peer("client:a"), Peer("client:b"))
NODES = {("w", "h1"): (0, 1), ("w", "h2"): (2,), ("x", "h1"): (0, 1)}
SIZES = {"w": 3, "x": 2}
LIMITS = Limits(kept_tasks=100_000)


@dataclass(eq=False, slots=True)
class Rank:
    """One engine process. ``known``: what it has, or has replied to without an acknowledgement, with attempts.

    ``question``: the last one that it has asked another engine, as long as there is no answer; ``asked``: how many.
    """

    record: EngineRecord
    id: int = -1
    registered: bool = False
    queue: deque[str] = field(default_factory=deque)
    known: dict[str, int] = field(default_factory=dict)
    finished: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    question: Fetch | None = None
    asked: int = 0

    def has(self) -> list[Held]:
        here = [Held(task, attempt) for task, attempt in self.known.items()]
        return here + [Held(t, attempt + 1, True) for t, attempt in self.failed.items() if t not in self.known]


@dataclass(eq=False, slots=True)
class Line:
    """One peer and its session with the hub: what is not acknowledged is sent again to the next hub."""

    peer: Peer
    unsent: deque[Message] = field(default_factory=deque)
    unacked: list[Message] = field(default_factory=list)
    down: deque[Message] = field(default_factory=deque)
    open: bool = False
    fresh: bool = True

    def hub_died(self) -> None:
        self.unsent.extendleft(reversed(self.unacked))
        self.unacked.clear()
        self.down.clear()
        self.open, self.fresh = False, True


@dataclass(eq=False, slots=True)
class Node:
    """An agent and its ranks. ``dying``: whose loss the hub has not acknowledged."""

    world: str
    host: str
    line: Line
    ranks: dict[int, Rank] = field(default_factory=dict)
    dying: dict[int, Rank] = field(default_factory=dict)

    def registration(self) -> RegisterEngines:
        here = [*self.ranks.values(), *(r for n, r in self.dying.items() if n not in self.ranks)]
        here = [rank for rank in here if rank.id >= 0 or rank.registered]
        return RegisterEngines(self.world, SIZES[self.world], [r.record for r in here], tasks=[r.has() for r in here])


class Village:
    """Everybody. ``step`` lets one thing happen."""

    def __init__(self, seed: object, policy: str = "leastload") -> None:
        self.random = random.Random(str(seed))
        self.policy = policy
        self.events = 0
        self.now = 0.0
        self.pids = 0
        self.nodes = {Peer(f"agent:{w}@{h}"): Node(w, h, Line(Peer(f"agent:{w}@{h}"))) for w, h in NODES}
        self.clients = {peer: Line(peer) for peer in CLIENTS}
        self.lines = {line.peer: line for line in [*self.clients.values(), *(n.line for n in self.nodes.values())]}
        self.submits: dict[str, Submit] = {}
        self.seen = dict.fromkeys(CLIENTS, 0)  # the last join that each client has heard of
        self.waiting: dict[str, set[int]] = {}
        self.taken_back: set[str] = set()
        self.ran: Counter[tuple[str, int]] = Counter()
        self.forgotten: set[int] = set()  # processes of hosts that lost power: what they had is known to nobody
        self.dead: set[int] = set()  # the others that died: when the hub is killed their failed attempts are forgotten
        # what the store has
        self.requests: dict[str, Submit] = {}
        self.replies: defaultdict[str, dict[int, Reply]] = defaultdict(dict)
        self.engines: dict[int, EngineRecord] = {}
        self.cache: dict[str, Content] = {}
        self.begin(Past())
        for node in self.nodes.values():
            self.start_ranks(node, NODES[node.world, node.host])
        while len(self.engines) < 5 or any(r.id < 0 for n in self.nodes.values() for r in n.ranks.values()):
            self.talk()

    # --- the hub ---

    def begin(self, past: Past) -> None:
        self.hub = Hub(plugins.load("ippmpi.policies", self.policy)(), LIMITS)
        self.uncommitted: deque[tuple[Message, Line | None, Message | None]] = deque()
        self.recalls: deque[Recall] = deque()
        self.take(self.hub.restore(past))

    def take(self, effects: object, line: Line | None = None, cause: Message | None = None) -> None:
        kept = False
        for effect in list(effects):  # type: ignore[call-overload]
            assert isinstance(effect, Effect)
            if isinstance(effect, Send):
                self.lines[effect.peer].down.append(effect.message)
            elif isinstance(effect, Keep):
                kept = True
                self.uncommitted.append((effect.message, line, cause))
            elif isinstance(effect, Recall):
                self.recalls.append(effect)
            elif isinstance(effect, Remember):
                self.cache[effect.key.digest] = effect.content
            elif isinstance(effect, Replay):
                found = self.replies[effect.task]
                self.lines[effect.peer].down.extend(found[e] for e in effect.engines or list(found) if e in found)
        check(self.hub)
        if line is not None and cause is not None and not kept:
            self.acknowledge(line, cause)

    def commit(self, most: int = 5) -> None:
        for _ in range(self.random.randint(1, most)):
            if not self.uncommitted:
                return
            message, line, cause = self.uncommitted.popleft()
            if isinstance(message, Submit):
                self.requests.setdefault(message.task, message)
            elif isinstance(message, Reply):
                self.replies[message.task][message.engine] = message
            elif isinstance(message, EnginesChanged):
                self.engines |= {record.id: record for record in message.joined}
                self.engines = {id_: r for id_, r in self.engines.items() if id_ not in message.left}
                self.take(self.hub.stored(message))
            if cause is not None and line is not None and all(c is not cause for _, _, c in self.uncommitted):
                self.acknowledge(line, cause)

    def recall(self) -> None:
        """Let the cache answer."""
        if self.recalls:
            effect = self.recalls.popleft()
            self.take(self.hub.recalled(TaskId(effect.task), self.cache.get(effect.digest), 5.0))

    def acknowledge(self, line: Line, message: Message) -> None:
        line.unacked = [m for m in line.unacked if m is not message]
        node = self.nodes.get(line.peer)
        if isinstance(message, EngineLost) and node is not None:
            node.dying.pop(message.rank, None)
        elif isinstance(message, RegisterEngines) and node is not None:
            for rank in node.ranks.values():
                rank.registered = rank.registered or any(r.pid == rank.record.pid for r in message.engines)
        elif isinstance(message, Reply) and node is not None:
            for rank in node.ranks.values():
                if rank.id == message.engine and rank.known.get(message.task) == message.attempt:
                    del rank.known[message.task]
                    rank.finished[message.task] = message.attempt
                    rank.failed.pop(message.task, None)
                    if message.failure is not None:
                        rank.failed[message.task] = message.attempt

    def kill_hub(self) -> None:
        tasks = []
        for task, submit in self.requests.items():
            ends = {e: r.failure is None for e, r in self.replies[task].items()}
            ended = len(ends) >= max(1, len(submit.targets))
            tasks.append(PastTask(task, _owner(task), ends, None if ended else submit))
        early = [r for task, found in self.replies.items() if task not in self.requests for r in found.values()]
        for line in self.lines.values():
            line.hub_died()
        self.begin(Past(list(self.engines.values()), tasks, early))

    # --- connections ---

    def connect(self, line: Line) -> None:
        line.open = True
        node = self.nodes.get(line.peer)
        if line.fresh and node is None:
            waiting = [Awaited(t, sorted(e - {-1})) for t, e in self.waiting.items() if _owner(t) == line.peer]
            line.unsent.append(StillWaiting(waiting))
        elif line.fresh and node is not None and (again := node.registration()).engines:
            line.unsent.appendleft(again)
            line.unsent.extend(rank.question for rank in node.ranks.values() if rank.question is not None)
        line.fresh = False
        self.take(self.hub.connected(line.peer, {}))

    def speak(self, line: Line) -> None:
        if line.unsent:
            message = line.unsent.popleft()
            line.unacked.append(message)
            self.take(self.hub.handle(line.peer, message), line, message)

    def hear(self, line: Line) -> None:
        if line.down:
            message = line.down.popleft()
            node = self.nodes.get(line.peer)
            if node is not None:
                self.agent_hears(node, message)
                self.ranks_hear(node, message)
            elif isinstance(message, Reply):
                self.client_hears(message)
            elif isinstance(message, EnginesChanged):
                self.seen[line.peer] = max([self.seen[line.peer], *(record.joined for record in message.joined)])

    def client_hears(self, reply: Reply) -> None:
        left = self.waiting.get(reply.task, set())
        place = reply.engine if reply.engine in left else -1
        if place not in left:
            return  # it came twice
        kind = "" if reply.failure is None else reply.failure.kind
        assert kind in ("", "code", "EngineError", "ImpossibleDependency") or reply.task in self.taken_back, reply
        left.discard(place)
        if not left:
            del self.waiting[reply.task]

    def agent_hears(self, node: Node, message: Message) -> None:
        if isinstance(message, Registered):
            for rank in node.ranks.values():
                if rank.record.pid in message.pids:
                    rank.id = message.base + rank.record.rank
        for rank in node.ranks.values():
            if isinstance(message, Run) and rank.id in message.engines:
                task, attempt = message.task, message.attempt
                if rank.known.get(task) != attempt and rank.finished.get(task) != attempt:
                    rank.known[task] = attempt
                    rank.queue.append(task)
            elif isinstance(message, Revoke) and rank.id in message.engines and message.task in rank.queue:
                rank.queue.remove(message.task)
                kind = "TaskReturned" if message.reclaim else "TaskAborted"
                self.reply(node, rank, message.task, Failure(kind, "taken back", kind=kind))

    def ranks_hear(self, node: Node, message: Message) -> None:
        """Let a rank answer another one, or take the answer."""
        for rank in node.ranks.values():
            if isinstance(message, Fetch) and rank.id == message.holder:
                node.line.unsent.append(Fetched(message.engine, message.number, INLINE))
            question = rank.question
            if isinstance(message, Fetched) and question is not None and rank.id == message.engine:
                rank.question = None if question.number == message.number else question

    def reply(self, node: Node, rank: Rank, task: str, failure: Failure | None) -> None:
        node.line.unsent.append(Reply(task, rank.id, Content(b"v", 1), failure, 1.0, 1.001, rank.known[task]))

    # --- what happens ---

    def start_ranks(self, node: Node, numbers: tuple[int, ...]) -> None:
        for number in numbers:
            self.pids += 1
            node.ranks[number] = Rank(EngineRecord(-1, number, node.world, node.host, self.pids))
        records = [node.ranks[number].record for number in numbers]
        node.line.unsent.append(RegisterEngines(node.world, SIZES[node.world], records))

    def run(self) -> None:
        node = self.random.choice([*self.nodes.values()])
        if node.ranks:
            rank = self.random.choice([*node.ranks.values()])
            if rank.queue:
                task = rank.queue.popleft()
                self.ran[task, rank.record.pid] += 1
                fails = self.random.random() < 0.2
                self.reply(node, rank, task, Failure("Oops", "it broke", kind="code") if fails else None)

    def ask(self) -> None:
        """Let a rank ask another one for what that has kept, or give up its question and ask another one."""
        node = self.random.choice([*self.nodes.values()])
        for rank in self.random.sample([*node.ranks.values()], len(node.ranks))[:1]:
            if rank.id >= 0:
                rank.asked += 1
                rank.question = Fetch(rank.id, rank.asked, self.random.randrange(6), "client:a-1")
                node.line.unsent.append(rank.question)

    def let_go(self) -> None:
        line = self.clients[self.random.choice(CLIENTS)]
        line.unsent.append(Free([f"{line.peer}-1"] * 2, self.random.sample(range(6), 2)))

    def kill_rank(self) -> None:
        node = self.random.choice([*self.nodes.values()])
        one = self.random.random() < 0.3
        for number in self.random.sample([*node.ranks], len(node.ranks))[: 1 if one else None]:
            node.dying[number] = rank = node.ranks.pop(number)
            self.dead.add(rank.record.pid)
            node.line.unsent.append(EngineLost(node.world, number, "signal 9"))

    def restart_ranks(self) -> None:
        for node in self.nodes.values():
            if not node.ranks and node.dying and not node.line.open and self.random.random() < 0.3:
                self.give_up_telling(node)
            if not node.ranks and not node.dying:  # a world ends as a whole, and with it its agents
                self.start_ranks(node, NODES[node.world, node.host])

    def give_up_telling(self, node: Node) -> None:
        """The agent leaves with nobody to tell that its ranks have died, and what they have replied."""
        self.forgotten |= {rank.record.pid for rank in node.dying.values()}
        node.dying.clear()
        line = node.line
        line.unsent.clear()
        line.unacked.clear()
        line.down = deque(m for m in line.down if not isinstance(m, Run | Revoke))
        self.uncommitted = deque((m, None if at is line else at, c) for m, at, c in self.uncommitted)
        line.fresh = True

    def power_off(self) -> None:
        """A host loses power: its agent is gone, and another one comes later, with other ranks."""
        node = self.random.choice([*self.nodes.values()])
        self.forgotten |= {rank.record.pid for rank in (*node.ranks.values(), *node.dying.values())}
        node.ranks.clear()
        node.dying.clear()
        line = node.line
        line.unsent.clear()
        line.unacked.clear()
        line.down.clear()
        self.uncommitted = deque((m, None if at is line else at, c) for m, at, c in self.uncommitted)
        self.take(self.hub.gone(line.peer, "no route to host"))
        line.open, line.fresh = False, True

    def submit(self) -> None:
        line = self.clients[self.random.choice(CLIENTS)]
        task = f"{line.peer}-{len(self.submits) + 1}"
        targets, placement, key = [], None, None
        if self.random.random() < 0.6:
            others = [t for t in list(self.submits)[-8:] if _owner(t) == line.peer]
            after = Dependency([self.random.choice(others)]) if others and self.random.random() < 0.3 else None
            near = self.random.sample(range(6), self.random.choice((0, 0, 1, 2)))
            placement = Placement(after=after, retries=self.random.choice((0, 0, 1, 3)), near=near)
            if after is None and self.random.random() < 0.3:
                key = CacheKey(f"k{len(self.submits) // 6}", "f")
        else:
            targets = sorted(self.random.sample(range(5), self.random.randint(1, 3)))
        seen = self.seen[line.peer]
        message = self.submits[task] = Submit(
            task,
            "apply" if key is not None else self.random.choice(("apply", "keep")),
            targets,
            [INLINE],
            placement=placement,
            seen=seen,
            cache=key,
        )
        self.waiting[task] = set(targets or [-1])
        line.unsent.append(message)

    def pass_time(self) -> None:
        """Let some time pass: what was handed out too early is asked back."""
        self.now += self.random.choice((0.001, 0.03))
        self.take(self.hub.tick(self.now))

    def take_back(self) -> None:
        task = self.random.choice([*self.waiting]) if self.waiting else ""
        if task:
            self.taken_back.add(task)
            self.clients[_owner(task)].unsent.append(Abort(1, [task], None))

    def break_line(self) -> None:
        line = self.random.choice([*self.lines.values()])
        if line.open:
            line.open = False
            self.take(self.hub.disconnected(line.peer))

    def talk(self) -> None:
        """Let a message go on its way, or somebody connect."""
        line = self.random.choice([*self.lines.values()])
        if not line.open:
            if self.random.random() < 0.2:
                self.connect(line)
            return
        self.random.choice((self.speak, self.hear))(line)
        if self.random.random() < 0.3:
            self.commit()

    def explain(self) -> None:
        """Ask why everything waits; what ranks really have is in the order that the hub believes in."""
        for reason in judge(self.hub):
            for engine in ids(reason.engines) if reason.others else ():
                queue = [task for rank in self.ranks_with(engine) for task in rank.queue]
                first = reason.others[0].task
                if reason.task in queue and first in queue:
                    assert queue.index(first) < queue.index(reason.task), f"{reason}: engine {engine} has {queue}"

    def ranks_with(self, engine: int) -> list[Rank]:
        return [rank for node in self.nodes.values() for rank in node.ranks.values() if rank.id == engine]

    HAPPENS = (
        (40, talk), (10, run), (6, submit), (2, restart_ranks), (1, take_back), (0.5, kill_rank), (0.4, break_line),
        (0.3, kill_hub), (0.05, power_off), (1, pass_time), (3, explain), (5, recall), (1, ask), (0.3, let_go),
    )  # fmt: skip

    def step(self) -> None:
        weights, rules = zip(*self.HAPPENS, strict=True)
        self.events += 1
        self.random.choices(rules, weights)[0](self)

    # --- the end ---

    def finish(self) -> None:
        """Do no more harm until all work has ended; fail if it does not."""
        for _ in range(50_000):
            if not self.waiting and not any(self.questions()):
                return
            self.events += 1
            self.random.choice((Village.talk, Village.talk, Village.run, Village.restart_ranks, Village.recall))(self)
        raise AssertionError(f"still waiting for {self.waiting}, and for answers to {list(self.questions())}")

    def questions(self) -> Iterator[Fetch]:
        """Yield those of living ranks that have no answer."""
        ranks = [rank for node in self.nodes.values() for rank in node.ranks.values()]
        return (rank.question for rank in ranks if rank.question is not None)

    def judge(self) -> None:
        """Raise AssertionError if something ran too often."""
        runs: defaultdict[str, list[int]] = defaultdict(list)
        for (task, pid), count in self.ran.items():
            runs[task] += [pid] * count
        for task, pids in runs.items():
            submit = self.submits[task]
            most = len(submit.targets) or 1 + (submit.placement.retries if submit.placement is not None else 0)
            retried = submit.placement is not None and submit.placement.retries > 0
            excused = set() if submit.targets else self.forgotten | (self.dead if retried else set())
            counted = [pid for pid in pids if pid not in excused]
            assert len(counted) <= most, f"{task} ran in processes {pids}, at most {most} runs are allowed"


def _owner(task: str) -> Peer:
    return Peer(task.rpartition("-")[0])


def live(seed: object, count: int, policy: str = "leastload") -> int:
    """Let *count* things happen in a village, then all work end; return how many events there were."""
    village = Village(seed, policy)
    for _ in range(count):
        village.step()
    village.finish()
    village.judge()
    return village.events
