"""A hub with everybody around it played by the test: what it asked for is recorded, its tables are checked."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ippmpi.core.effects import Effect, Keep, Recall, Release, Remember, Send, Stop
from ippmpi.core.hub import Hub
from ippmpi.core.invariants import check
from ippmpi.core.limits import Limits
from ippmpi.ids import EngineId, Peer, TaskId
from ippmpi.policies.leastload import LeastLoad
from ippmpi.wire.messages import (
    Answer,
    CacheKey,
    Content,
    EngineLost,
    EngineRecord,
    EnginesChanged,
    Failure,
    Message,
    Placement,
    Query,
    RegisterEngines,
    Reply,
    Run,
    Shutdown,
    Submit,
)

ALICE = Peer("client:alice")
BOB = Peer("client:bob")
INLINE = Content(inline=b"blob", size=4)


def agent(host: str = "h1", world: str = "w") -> Peer:
    """Name the agent of a world on a host."""
    return Peer(f"agent:{world}@{host}")


def records(ranks: Iterable[int], *, world: str = "w", host: str = "h1", pid: int = 100) -> list[EngineRecord]:
    """Make the records of ranks as an agent sends them; process ids are ``pid + rank``."""
    return [EngineRecord(-1, rank, world, host, pid + rank) for rank in ranks]


class House:
    """The hub, and short ways to say what happens to it. Each returns the effects and keeps them in ``all``."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.hub = Hub(LeastLoad(), limits or Limits())
        self.all: list[Effect] = []
        self.last: list[Effect] = []
        self.checks = True  # costs O(state) per call
        self.stores = True  # who joins is in the store at once
        self._names = 0

    def took(self, effects: Iterable[Effect]) -> list[Effect]:
        """Exhaust *effects*, check the tables; store at once who joins."""
        self.last = list(effects)
        self._check()
        changes = [e.message for e in self.last if isinstance(e, Keep) and isinstance(e.message, EnginesChanged)]
        for change in changes if self.stores else []:
            self.last += self.hub.stored(change)
            self._check()
        self.all += self.last
        return self.last

    def _check(self) -> None:
        if self.checks:
            check(self.hub)

    # --- what happens ---

    def client(self, peer: Peer = ALICE, **about: object) -> list[Effect]:
        return self.took(self.hub.connected(peer, about))

    def handle(self, peer: Peer, message: Message) -> list[Effect]:
        return self.took(self.hub.handle(peer, message))

    def node(
        self, ranks: Iterable[int], size: int, *, world: str = "w", host: str = "h1", pid: int = 100
    ) -> list[Effect]:
        """Let the agent of *world* on *host* connect and register *ranks*."""
        peer = agent(host, world)
        self.took(self.hub.connected(peer, {}))
        return self.handle(peer, RegisterEngines(world, size, records(ranks, world=world, host=host, pid=pid)))

    def submit(
        self,
        targets: list[int] | None = None,
        *,
        peer: Peer = ALICE,
        name: str = "",
        contents: list[Content] | None = None,
        placement: Placement | None = None,
        cache: str = "",
    ) -> str:
        """Submit a task, balanced unless *targets* are given, under the key *cache* if there is one; return its id."""
        self._names += 1
        name = name or f"{peer.partition(':')[2]}-{self._names}"
        if targets is None:
            placement = placement or Placement()
        key = CacheKey(cache, "f") if cache else None
        self.handle(peer, Submit(name, "apply", targets or [], contents or [INLINE], placement=placement, cache=key))
        return name

    def recalled(self, task: str, content: Content | None = None) -> list[Effect]:
        """Say what the cache has for *task*."""
        return self.took(self.hub.recalled(TaskId(task), content, 5.0))

    def reply(
        self, task: str, engine: int, failure: Failure | None = None, *, content: Content | None = None
    ) -> list[Effect]:
        known = self.hub.ledger.tasks.get(TaskId(task))
        attempt = 0 if known is None else known.attempt
        sender = self.hub.ledger.engines.get(EngineId(engine))
        reply = Reply(task, engine, content or Content(), failure, attempt=attempt)
        return self.handle(sender.agent if sender else agent(), reply)

    def fail(self, task: str, engine: int, kind: str = "code") -> list[Effect]:
        return self.reply(task, engine, Failure("Oops", "it broke", kind=kind))

    def lose(self, rank: int, cause: str = "signal 9", *, host: str = "h1", world: str = "w") -> list[Effect]:
        return self.handle(agent(host, world), EngineLost(world, rank, cause))

    def stop(self, targets: list[int] | None = None, *, peer: Peer = ALICE) -> list[Effect]:
        return self.handle(peer, Shutdown(8, targets))

    def query(self, what: str, arguments: object = None, *, peer: Peer = ALICE) -> object:
        """Ask and decode the answer."""
        self.handle(peer, Query(7, what, msgspec.msgpack.encode(arguments)))
        (answer,) = self.sent(Answer)
        assert not answer.error
        return msgspec.msgpack.decode(answer.value)

    def tick(self, now: float) -> list[Effect]:
        return self.took(self.hub.tick(now))

    # --- what was asked for, by the last call or by all of them ---

    def sent(self, kind: type[Message], *, to: Peer | None = None, ever: bool = False) -> list:
        """Return the messages of one kind that were sent."""
        sends = [effect for effect in (self.all if ever else self.last) if isinstance(effect, Send)]
        return [s.message for s in sends if isinstance(s.message, kind) and to in (None, s.peer)]

    def runs(self, *, ever: bool = False) -> list[tuple[Peer, str, list[int]]]:
        """Return who was told to run which task on which engines."""
        sends = [effect for effect in (self.all if ever else self.last) if isinstance(effect, Send)]
        return [(s.peer, s.message.task, s.message.engines) for s in sends if isinstance(s.message, Run)]

    def failures(self, *, ever: bool = False) -> list[tuple[str, int, str]]:
        """Return task, engine and kind of the failures that were sent to clients."""
        return [(r.task, r.engine, r.failure.kind) for r in self.sent(Reply, ever=ever) if r.failure is not None]

    def texts(self) -> list[str]:
        """Return the texts of the failures that were just sent."""
        return [r.failure.evalue for r in self.sent(Reply) if r.failure is not None]

    def released(self, *, ever: bool = False) -> list[int]:
        """Return the keys of released contents."""
        return [e.content.transfer for e in (self.all if ever else self.last) if isinstance(e, Release)]

    def kept(self) -> list[Message]:
        """Return the messages that were just put into the store."""
        return [effect.message for effect in self.last if isinstance(effect, Keep)]

    def recalls(self) -> list[tuple[str, str]]:
        """Return for which tasks the cache was just asked, and under which digests."""
        return [(effect.task, effect.digest) for effect in self.last if isinstance(effect, Recall)]

    def remembered(self) -> list[tuple[str, Content]]:
        """Return what was just to be cached, by digests."""
        return [(effect.key.digest, effect.content) for effect in self.last if isinstance(effect, Remember)]

    def stopped(self) -> bool:
        return any(isinstance(effect, Stop) for effect in self.last)

    def changes(self, *, to: Peer | None = None) -> list[EnginesChanged]:
        return self.sent(EnginesChanged, to=to)

    def live(self, task: str) -> bool:
        return TaskId(task) in self.hub.ledger.tasks


def small_house(engines: int = 2, limits: Limits | None = None) -> House:
    """Make a house with client alice and one complete world of *engines* ranks on host h1."""
    house = House(limits)
    house.client(ALICE)
    house.node(range(engines), engines)
    return house
