"""Random lives of a hub: whatever happens, every part ends once, order holds, and nothing leaks.

The test plays all clients, agents and engines. It knows from the effects what runs where, answers
some of it well, some of it twice, late or wrongly, and keeps its own books to compare with.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from core.house import agent, records
from core.truth import judge
from ippmpi.core.effects import Effect, Keep, Recall, Release, Remember, Send, Shelve
from ippmpi.core.engine import EngineState
from ippmpi.core.hub import Hub
from ippmpi.core.invariants import check
from ippmpi.core.limits import Limits
from ippmpi.core.task import HANDED
from ippmpi.errors import ProtocolError
from ippmpi.ids import EngineId, Peer, TaskId
from ippmpi.policies.leastload import LeastLoad
from ippmpi.wire.messages import (
    Abort,
    CacheKey,
    Content,
    Dependency,
    Display,
    EngineLost,
    EnginesChanged,
    Failure,
    Farewell,
    Fetch,
    Fetched,
    Free,
    Interrupt,
    Message,
    Output,
    Placement,
    Query,
    RegisterEngines,
    Replies,
    Reply,
    Revoke,
    Run,
    SendSignal,
    Shutdown,
    Submit,
)

CLIENTS = [Peer(f"client:{name}") for name in ("a", "b")]
SIZES = {"w": 3, "x": 2}
HOSTS = ("h1", "h2")
LIMITS = Limits(kept_tasks=12, kept_worlds=1, kept_losses=3, live_tasks=20, held_bytes=60, output_bytes=50)
KINDS = ["code", "EngineError", "UnmetDependency", "TaskAborted", "Strange"]

clients = st.sampled_from(CLIENTS)
worlds = st.sampled_from(sorted(SIZES))
hosts = st.sampled_from(HOSTS)
engine_ids = st.integers(0, 6)
picks = st.integers(0, 1 << 16)
failures = st.none() | st.sampled_from(KINDS).map(lambda kind: Failure("Oops", "it broke", kind=kind))
flags = st.booleans()
seldom = st.sampled_from([False] * 7 + [True])


@dataclass
class Asked:
    """What the test knows of a task: how often each part was answered, and its spooled contents."""

    owner: Peer
    serial: int
    parts: list[int]
    balanced: bool
    contents: list[Content]
    replies: Counter[int] = field(default_factory=Counter)


class Life(RuleBasedStateMachine):
    """Everybody around one hub."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = LeastLoad()
        self.hub = Hub(self.policy, LIMITS)
        self.now = 0.0
        self.keys = 0
        self.pids = 1000
        self.asked: dict[str, Asked] = {}
        self.order: dict[Peer, list[int]] = {}
        self.given: list[tuple[Peer, str, int]] = []  # what agents were told to run
        self.spool: set[int] = set()  # keys that the hub must release, or hand to a client with a reply
        self.refused: set[tuple[str, int]] = set()  # task, pid of the engine that must not be asked again
        self.kept: Counter[tuple[str, str, int]] = Counter()
        self.sessions: Counter[Peer] = Counter()
        self.recalls: list[str] = []  # tasks for which the cache was asked
        self.keys_of: dict[str, str] = {}

    # --- reading what the hub asks for ---

    def do(self, effects: Any) -> list[Effect]:
        known = set(self.hub.ledger.clients)
        done = []
        for effect in effects:
            done.append(effect)
            if isinstance(effect, Release | Shelve):
                assert effect.content.transfer in self.spool, f"{effect} is released twice, or is not the hub's"
                self.spool.remove(effect.content.transfer)
            elif isinstance(effect, Keep):
                self.keep(effect)
            elif isinstance(effect, Recall | Remember):
                self.ask_the_cache(effect)
            elif isinstance(effect, Send):
                assert effect.peer in known | set(self.hub.ledger.clients) | set(self.hub.ledger.agents), effect
                self.send(effect)
        for effect in list(done):
            if isinstance(effect, Keep) and isinstance(effect.message, EnginesChanged):
                done += self.do(self.hub.stored(effect.message))
        return done

    def say(self, peer: Peer, message: Message, *, wrong: bool = False) -> list[Effect]:
        """Handle *message*; it is refused if *peer* is not there or it is *wrong*, else never."""
        if (peer in self.hub.ledger.clients or peer in self.hub.ledger.agents) and not wrong:
            return self.do(self.hub.handle(peer, message))
        before = len(self.spool)
        with pytest.raises(ProtocolError):
            self.do(self.hub.handle(peer, message))
        assert len(self.spool) == before
        contents = getattr(message, "contents", None) or [getattr(message, "content", Content())]
        self.spool -= {content.transfer for content in contents}  # the caller drops them
        return []

    def ask_the_cache(self, effect: Recall | Remember) -> None:
        if isinstance(effect, Recall):
            assert self.keys_of[effect.task] == effect.digest
            self.recalls.append(effect.task)
        else:
            assert effect.content.transfer in self.spool | {0}, "it is cached after it was released"

    def keep(self, effect: Keep) -> None:
        message = effect.message
        for one in message.replies if isinstance(message, Replies) else [message]:
            self.kept[type(one).__name__, effect.task, getattr(one, "engine", 0)] += 1

    def send(self, effect: Send) -> None:
        message = effect.message
        if isinstance(message, Reply):
            self.answered(effect.peer, message)
        elif isinstance(message, Replies):
            for reply in message.replies:
                self.answered(effect.peer, reply)
        elif isinstance(message, Fetched) and message.content.transfer:
            assert message.engine in self.hub.ledger.engines
            self.spool.remove(message.content.transfer)  # now the controller's, until the agent has it
        elif isinstance(message, Run):
            asked = self.asked[message.task]
            for engine in message.engines:
                assert (message.task, self.hub.ledger.engines[engine].pid) not in self.refused
            self.given += [(effect.peer, message.task, engine) for engine in message.engines]
            if not asked.balanced:
                self.order.setdefault(effect.peer, []).append(asked.serial)

    def answered(self, peer: Peer, message: Reply) -> None:
        asked = self.asked[message.task]
        assert peer == asked.owner
        part = message.engine if not asked.balanced else -1
        asked.replies[part] += 1
        assert asked.replies[part] == 1, f"{message} is the second end of this part"
        assert part in asked.parts
        assert self.kept["Reply", message.task, message.engine] == 1, f"{message} was not kept before"
        if message.content.transfer:
            self.spool.remove(message.content.transfer)  # now the controller's, until the client has it

    def spooled(self, large: bool) -> Content:
        if not large:
            return Content(inline=b"12345", size=5)
        self.keys += 1
        self.spool.add(self.keys)
        return Content(size=1000, transfer=self.keys)

    def pick(self, items: Any, number: int) -> Any:
        ordered = list(items)
        return ordered[number % len(ordered)] if ordered else None

    # --- clients and agents come and go ---

    @initialize(start=st.booleans())
    def somebody_is_there(self, start: bool) -> None:
        for peer in CLIENTS:
            self.connect_client(peer)
        if start:
            for world, host in (("w", "h1"), ("w", "h2"), ("x", "h1")):
                self.node_registers(world, host, world == "w", replaced=False, fresh=True)

    @rule(peer=clients)
    def connect_client(self, peer: Peer) -> None:
        if peer not in self.hub.ledger.clients:
            self.sessions[peer] += 1
        self.do(self.hub.connected(peer, {"user": "me"}))

    @rule(peer=clients)
    def client_is_away(self, peer: Peer) -> None:
        assert self.do(self.hub.disconnected(peer)) == []

    @rule(peer=clients, polite=flags, number=picks, really=seldom)
    def client_leaves(self, peer: Peer, polite: bool, number: int, really: bool) -> None:
        if not really:
            return
        mine = list(self.hub.ledger.clients[peer].tasks) if peer in self.hub.ledger.clients else []
        if polite and peer in self.hub.ledger.clients:
            self.say(peer, Farewell())
        else:
            self.do(self.hub.gone(peer, "gone"))
        for name in mine:  # some uploads were not complete
            if (number := number // 2) % 2:
                for content in self.asked[name].contents:
                    self.do(self.hub.content_failed(TaskId(name), content))
        for asked in self.asked.values():
            if asked.owner == peer:
                asked.owner = Peer("nobody")  # no reply may come any more

    @rule(world=worlds, host=hosts, split=flags, replaced=flags, fresh=flags)
    def node_registers(self, world: str, host: str, split: bool, replaced: bool, fresh: bool) -> None:
        peer = Peer(f"{agent(host, world)}-new") if replaced else agent(host, world)
        ranks = range(SIZES[world])
        if split:
            ranks = ranks[:1] if host == "h1" else ranks[1:]
        self.pids += 100
        known = self.hub.ledger.worlds.get(world)
        mine = records(ranks, world=world, host=host, pid=self.pids)
        if known is not None and not fresh:  # processes that live are reported with their true pids
            mine = [
                msgspec.structs.replace(r, pid=e.pid, host=e.host) if (e := known.engines.get(r.rank)) else r
                for r in mine
            ]
        self.do(self.hub.connected(peer, {}))
        taken = known is not None and any(
            (e := known.engines.get(r.rank))
            and (e.pid, e.host) != (r.pid, r.host)
            and (e.agent, e.host) != (peer, r.host)  # an agent may tell late that a rank was started again
            for r in mine
        )
        self.say(peer, RegisterEngines(world, SIZES[world], mine), wrong=taken)

    @rule(number=picks, really=seldom)
    def agent_is_gone(self, number: int, really: bool) -> None:
        peer = self.pick(self.hub.ledger.agents, number)
        if peer is not None and really:
            self.do(self.hub.gone(peer, "no route to host"))

    @rule(number=picks)
    def agent_is_away(self, number: int) -> None:
        peer = self.pick(self.hub.ledger.agents, number)
        if peer is not None:
            assert self.do(self.hub.disconnected(peer)) == []

    @rule(number=picks, world=worlds, rank=st.integers(0, 3), expected=flags)
    def engine_is_lost(self, number: int, world: str, rank: int, expected: bool) -> None:
        peer = self.pick(self.hub.ledger.agents, number)
        if peer is not None:
            self.say(peer, EngineLost(world, rank, "signal 9", expected))

    @rule(number=picks, really=seldom)
    def known_engine_is_lost(self, number: int, really: bool) -> None:
        engine = self.pick(self.hub.ledger.engines.values(), number)
        if engine is not None and really:
            untouched = [*engine.balanced, *engine.direct][1::2]
            message = EngineLost(engine.world, engine.rank, "signal 11", output="Segfault", untouched=untouched)
            self.say(engine.agent, message)
            assert self.hub.ledger.engines.get(engine.id) is not engine

    # --- clients ask ---

    def submit(self, peer: Peer, parts: list[int], message: Submit) -> None:
        if peer not in self.hub.ledger.clients:
            self.say(peer, message)
            return
        balanced = message.placement is not None
        self.asked[message.task] = Asked(peer, len(self.asked), parts, balanced, message.contents)
        self.say(peer, message)
        assert self.kept["Submit", message.task, 0] == 1
        if balanced or self.asked[message.task].replies.total() < len(parts):
            return
        assert TaskId(message.task) not in self.hub.ledger.tasks

    def new_name(self, peer: Peer) -> str:
        return f"{peer}-{self.sessions[peer]}-{len(self.asked)}"

    @rule(peer=clients, on=st.lists(engine_ids, max_size=5, unique=True), shared=flags, large=flags)
    def submit_direct(self, peer: Peer, on: list[int], shared: bool, large: bool) -> None:
        contents = [self.spooled(large) for _ in range(1 if shared else len(on))]
        self.submit(peer, on or [-1], Submit(self.new_name(peer), "apply", on, contents))

    @rule(
        peer=clients,
        large=flags,
        candidates=st.none() | st.none() | st.lists(engine_ids, max_size=4),
        after=st.none() | st.tuples(st.lists(picks, max_size=3), flags, flags, flags),
        follow=st.none() | st.none() | st.tuples(st.lists(picks, max_size=2), flags, flags, flags),
        timeout_s=st.sampled_from([0.0, 0.0, 1.0, 5.0]),
        retries=st.integers(0, 3),
    )
    def submit_balanced(
        self, peer: Peer, large: bool, candidates: Any, after: Any, follow: Any, timeout_s: float, retries: int
    ) -> None:
        placement = Placement(candidates, self.dependency(after), self.dependency(follow), timeout_s, retries)
        name = self.new_name(peer)
        self.submit(peer, [-1], Submit(name, "apply", [], [self.spooled(large)], placement=placement))

    @rule(peer=clients, large=flags, count=st.integers(2, 6), candidates=st.none() | st.lists(engine_ids, min_size=1))
    def submit_many(self, peer: Peer, large: bool, count: int, candidates: Any) -> None:
        for _ in range(count):
            message = Submit(self.new_name(peer), "apply", [], [self.spooled(large)], placement=Placement(candidates))
            self.submit(peer, [-1], message)

    @rule(peer=clients, large=flags, digests=st.lists(st.sampled_from("abc"), min_size=1, max_size=5), gone=flags)
    def submit_cached(self, peer: Peer, large: bool, digests: list[str], gone: bool) -> None:
        for digest in digests:
            name = self.new_name(peer)
            self.keys_of[name] = digest
            key = CacheKey(digest, "f", gone)
            message = Submit(name, "apply", [], [self.spooled(large)], placement=Placement(timeout_s=5.0), cache=key)
            self.submit(peer, [-1], message)

    @rule(number=picks, hit=flags, large=flags)
    def cache_answers(self, number: int, hit: bool, large: bool) -> None:
        if self.recalls:
            task = self.recalls.pop(number % len(self.recalls))
            self.do(self.hub.recalled(TaskId(task), self.spooled(large) if hit else None, 5.0))

    def dependency(self, drawn: Any) -> Dependency | None:
        if drawn is None:
            return None
        numbers, any_of, success, failure = drawn
        recent = list(self.asked)[-6:]
        names = [self.pick(recent, number) or "nobody-1" for number in numbers]
        return Dependency(names, any_of, success, failure or not success)

    @rule(number=picks, peer=clients)
    def submit_again(self, number: int, peer: Peer) -> None:
        name = self.pick(self.asked, number)
        if name is not None and self.hub.ledger.record_of(name) is not None:
            owner = self.hub.ledger.record_of(name).owner
            self.say(peer, Submit(name, "apply", [0], [self.spooled(True)]), wrong=owner != peer)

    @rule(peer=clients, numbers=st.none() | st.lists(picks, max_size=3), interrupt=flags, on=st.none() | st.just([0]))
    def take_back(self, peer: Peer, numbers: Any, interrupt: bool, on: Any) -> None:
        names = None if numbers is None else [self.pick(self.asked, n) or "nobody-1" for n in numbers]
        message = Interrupt(1, names or []) if interrupt else Abort(1, names, on)
        for effect in self.say(peer, message):
            if isinstance(effect, Send) and isinstance(effect.message, Revoke):
                assert self.asked[effect.message.task].owner == peer

    @rule(peer=clients, signal=flags, on=st.none() | st.lists(engine_ids, max_size=2))
    def signal_or_stop(self, peer: Peer, signal: bool, on: Any) -> None:
        self.say(peer, SendSignal(1, 2, on) if signal else Shutdown(1, (on or [0])[:1]))

    @rule(peer=clients, what=st.sampled_from(["status", "queue_status", "result_status", "?"]), really=seldom)
    def query(self, peer: Peer, what: str, really: bool) -> None:
        if not really:
            return
        self.say(peer, Query(1, what))

    # --- engines answer ---

    @rule(answers=st.lists(st.tuples(picks, flags), min_size=1, max_size=6))
    def engines_succeed(self, answers: list[tuple[int, bool]]) -> None:
        for number, large in answers:
            self.reply(self.running(number), None, large)

    @rule(number=picks, failure=failures, large=flags, again=flags)
    def engine_replies(self, number: int, failure: Failure | None, large: bool, again: bool) -> None:
        given = self.running(number)
        self.reply(given, failure, large)
        if again:
            self.reply(given, failure, large)

    @rule(number=picks, outcomes=st.lists(failures, min_size=1, max_size=5), again=flags)
    def engines_reply_together(self, number: int, outcomes: list[Failure | None], again: bool) -> None:
        """What an agent has of one task comes in one message, one of them perhaps twice."""
        running = self.running(number)
        if running is None:
            return
        peer, task, _ = running
        attempt = self.hub.ledger.tasks[TaskId(task)].attempt
        engines = sorted({engine for sender, name, engine in self.given if (sender, name) == (peer, task)})
        engines = [engine for engine in engines if not self.foreign(peer, engine)]
        replies = [
            Reply(
                task,
                engine,
                Content(b"12345", 5),
                None if failure and failure.kind == "UnmetDependency" else failure,
                attempt=attempt,
            )
            for engine, failure in zip(engines, outcomes, strict=False)
        ]
        if replies:
            self.say(peer, Replies(task, replies + replies[:1] * again))

    @rule(number=picks, failure=failures, large=flags)
    def engine_replies_late(self, number: int, failure: Failure | None, large: bool) -> None:
        self.reply(self.pick(self.given, number), failure, large)

    def running(self, number: int) -> tuple[Peer, str, int] | None:
        """Pick something that an engine runs, as far as the hub knows."""
        tasks = self.hub.ledger.tasks
        live = [g for g in self.given if g[1] in tasks and tasks[TaskId(g[1])].parts.get(g[2]) in HANDED]
        return self.pick(live, number)

    def reply(self, given: tuple[Peer, str, int] | None, failure: Failure | None, large: bool) -> None:
        if given is not None:
            peer, task, engine = given
            if self.foreign(peer, engine):
                self.say(peer, Reply(task, engine, Content(), failure), wrong=True)
                return
            if failure is not None and failure.kind == "UnmetDependency" and engine in self.hub.ledger.engines:
                self.refused.add((task, self.hub.ledger.engines[engine].pid))
            known = self.hub.ledger.tasks.get(TaskId(task))
            attempt = 0 if known is None else known.attempt
            times = (1.0, 2.0 if large else 1.0001)  # so that some engines are given tasks ahead
            self.say(peer, Reply(task, engine, self.spooled(large), failure, *times, attempt))

    @rule(number=picks, engine=engine_ids, large=flags, who=picks)
    def engine_replies_nonsense(self, number: int, engine: int, large: bool, who: int) -> None:
        peer = self.pick(self.hub.ledger.agents, who)
        task = self.pick(self.asked, number) or "nobody-1"
        live = self.hub.ledger.tasks.get(TaskId(task))
        known = self.hub.ledger.engines.get(EngineId(engine))
        if peer is not None and known is not None and known.agent != peer:
            with pytest.raises(ProtocolError, match="speaks for engine"):
                list(self.hub.handle(peer, Reply(task, engine, Content())))
        elif peer is not None and (live is None or engine not in live.parts):
            content = self.spooled(large)
            assert self.do(self.hub.handle(peer, Reply(task, engine, content))) == ([Release(content)] if large else [])

    @rule(number=picks, picture=flags)
    def engine_prints(self, number: int, picture: bool) -> None:
        given = self.pick(self.given, number)
        if given is not None:
            peer, task, engine = given
            message = Display(task, engine, b"1234567890") if picture else Output(task, engine, "stdout", b"hello")
            self.say(peer, message, wrong=self.foreign(peer, engine))

    @rule(number=picks, engine=engine_ids, holder=engine_ids, count=st.integers(1, 3))
    def engine_asks(self, number: int, engine: int, holder: int, count: int) -> None:
        peer = self.pick(self.hub.ledger.agents, number)
        if peer is not None:
            self.say(peer, Fetch(engine, count, holder, "a-1"), wrong=self.foreign(peer, engine))

    @rule(number=picks, engine=engine_ids, count=st.integers(1, 3), large=flags)
    def engine_answers(self, number: int, engine: int, count: int, large: bool) -> None:
        peer = self.pick(self.hub.ledger.agents, number)
        question = self.hub.exchange.asked.get(EngineId(engine))
        if peer is not None:
            wrong = question is not None and question.number == count and self.foreign(peer, question.holder)
            self.say(peer, Fetched(engine, count, self.spooled(large)), wrong=wrong)

    @rule(peer=clients, on=st.lists(engine_ids, max_size=5), wrong=seldom)
    def client_lets_go(self, peer: Peer, on: list[int], wrong: bool) -> None:
        self.say(peer, Free(["a-1"] * (len(on) + wrong), on), wrong=wrong)

    def foreign(self, peer: Peer, engine: int) -> bool:
        """Whether *engine* is behind another agent (by now)."""
        known = self.hub.ledger.engines.get(EngineId(engine))
        return known is not None and known.agent != peer

    @rule(number=picks, which=picks)
    def upload_fails(self, number: int, which: int) -> None:
        name = self.pick(self.asked, number)
        content = self.pick(self.asked[name].contents, which) if name is not None else None
        if content is not None and content.transfer:
            self.do(self.hub.content_failed(TaskId(name), content))

    @rule(step=st.sampled_from([0.0, 0.03, 0.5, 2.0, 10.0]))
    def time_passes(self, step: float) -> None:
        self.now += step
        self.do(self.hub.tick(self.now))
        deadline = self.hub.next_deadline()
        assert deadline is None or deadline > self.now

    # --- what must be true ---

    @invariant()
    def tables_agree(self) -> None:
        check(self.hub)

    @invariant()
    def every_task_has_a_true_reason(self) -> None:
        judge(self.hub)

    @invariant()
    def every_part_has_ended_once_or_is_open(self) -> None:
        for name, asked in self.asked.items():
            live = self.hub.ledger.tasks.get(TaskId(name))
            if asked.owner in self.hub.ledger.clients:
                open_parts = 0 if live is None else live.open
                assert asked.replies.total() + open_parts == len(asked.parts), name
            if live is None:
                assert not self.spool & {c.transfer for c in asked.contents}, f"{name} has ended, its contents stay"
            else:
                assert self.spool >= {c.transfer for c in asked.contents if c.transfer}, f"{name} lost its contents"

    @invariant()
    def only_contents_of_live_tasks_are_spooled(self) -> None:
        live = {c.transfer for name in self.hub.ledger.tasks for c in self.asked[name].contents if c.transfer}
        assert self.spool == live

    @invariant()
    def every_agent_gets_direct_work_in_the_order_of_the_hub(self) -> None:
        for peer, serials in self.order.items():
            assert serials == sorted(serials), peer

    @invariant()
    def the_policy_knows_the_load(self) -> None:
        self.hub.ledger.tell_policy()
        alive = {e.id: e for e in self.hub.ledger.engines.values() if e.state is EngineState.ALIVE}
        assert self.policy._places == {
            e.id: (bool(e.direct), len(e.direct) + len(e.balanced), len(e.balanced) < e.ahead) for e in alive.values()
        }

    def teardown(self) -> None:
        """Let everybody leave: nothing may be left."""
        for peer in CLIENTS:
            self.do(self.hub.gone(peer, "gone"))
        for peer in list(self.hub.ledger.agents):
            self.do(self.hub.gone(peer, "gone"))
        check(self.hub)
        ledger = self.hub.ledger
        for table in (ledger.tasks, ledger.ended, ledger.engines, ledger.clients, ledger.agents, ledger.queue):
            assert not len(table), table
        assert not self.spool
        assert not self.hub.scheduler.dependents
        assert not self.hub.caching.leaders
        assert not self.hub.caching.followers
        assert not len(self.hub.scheduler.deadlines)
        assert ledger.held_bytes == 0
        assert not any(world.engines for world in ledger.worlds.values())


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=200, stateful_step_count=80, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
