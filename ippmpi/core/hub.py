"""The hub: one method per message, each returning what to do about it.

Nothing happens until the returned iterator is exhausted, and it must be exhausted before the next
call. Every method that changes something ends by letting the scheduler follow it up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import cast

from ippmpi.core.archive import QUESTIONS, Archive
from ippmpi.core.balanced import Scheduler
from ippmpi.core.caching import Caching
from ippmpi.core.control import Control
from ippmpi.core.direct import Direct
from ippmpi.core.effects import Effect, Keep, Release, Remember, Send
from ippmpi.core.ending import Ending, event_of
from ippmpi.core.engine import Engine
from ippmpi.core.exchange import Exchange
from ippmpi.core.intake import check, problem
from ippmpi.core.ledger import Ledger, release
from ippmpi.core.limits import Limits
from ippmpi.core.membership import Membership
from ippmpi.core.orphans import Orphans
from ippmpi.core.policy import Policy
from ippmpi.core.queries import Queries
from ippmpi.core.relay import Relay
from ippmpi.core.restoring import Past, Restoring
from ippmpi.core.task import HANDED, BalancedTask, Event, State, Task
from ippmpi.core.uploads import Uploads
from ippmpi.errors import ProtocolError
from ippmpi.ids import EngineId, Peer, TaskId
from ippmpi.wire import messages as m

SENDERS: dict[type[m.Message], frozenset[str]] = {
    kind: frozenset(hop.split(" -> ")[0] for hop in kind.ROUTE.split(", ") if hop.endswith(" -> hub"))
    for kind in m.Message.__subclasses__()
}
"""Which roles may send a message to the hub, read from its ROUTE."""


class Hub:
    """The controller's brain. Peers are named ``client:...`` and ``agent:...``."""

    def __init__(self, policy: Policy, limits: Limits) -> None:
        """Know nobody; *policy* places balanced tasks, *limits* bound every table."""
        self.ledger = Ledger(policy, limits)
        self.ending = Ending(self.ledger)
        self.scheduler = Scheduler(self.ledger, self.ending)
        self.caching = Caching(self.ledger, self.ending, self.scheduler)
        self._orphans = Orphans(self.ledger)
        self._direct = Direct(self.ledger, self.ending, self._orphans)
        self._restoring = Restoring(self.ledger, self.scheduler, self.caching, self._direct, self._orphans)
        self.exchange = Exchange(self.ledger)
        self._membership = Membership(self.ledger, self.ending, self.scheduler, self._restoring, self.exchange)
        self._control = Control(self.ledger, self.scheduler, self._membership)
        self._queries = Queries(self.ledger)
        self._archive = Archive(self.ledger)
        self._relay = Relay(self.ledger)
        self._uploads = Uploads(self.ledger, self.ending, self.scheduler)
        self._handlers: dict[tuple[str, type[m.Message]], Callable[[Peer, m.Message], Iterator[Effect]]] = {
            (role, kind): getattr(self, f"on_{kind.__struct_config__.tag}")
            for kind, roles in SENDERS.items()
            for role in roles
        }

    # --- peers, contents, time ---

    def restore(self, past: Past) -> Iterator[Effect]:
        """Go on where an earlier life ended; before anybody connects. What its engines do is known when they return."""
        yield from self._restoring.restore(past)
        yield from self.scheduler.settle()

    def connected(self, peer: Peer, about: Mapping[str, object]) -> Iterator[Effect]:
        """Enter *peer*, or note that it is back. A client is told who is there."""
        if _role(peer) == "client":
            yield from self._membership.client_connected(peer, about)
        else:
            self._membership.agent_connected(peer)

    def disconnected(self, peer: Peer) -> Iterator[Effect]:
        """Note that *peer* is away. Nothing is lost: messages to it go on, the session keeps them."""
        known = self.ledger.clients.get(peer) or self.ledger.agents.get(peer)
        if known is not None:
            known.connected = False
        return iter(())

    def gone(self, peer: Peer, reason: str) -> Iterator[Effect]:
        """Forget *peer*, which never comes back; *reason* is what the loss of an agent's engines is put down to.

        A client's running tasks go on. Where their contents will never arrive, tell
        ``content_failed`` of each.
        """
        if _role(peer) == "client":
            yield from self._membership.client_gone(peer)
        else:
            yield from self._membership.agent_gone(peer, reason)
        yield from self.scheduler.settle()

    def content_failed(self, task: TaskId, content: m.Content, reason: str = "the upload failed") -> Iterator[Effect]:
        """Fail the parts of *task* that need *content*, which will never be whole; *reason* is for people."""
        yield from self._uploads.failed(task, content, reason)
        yield from self.scheduler.settle()

    def recalled(self, task: TaskId, content: m.Content | None, now: float) -> Iterator[Effect]:
        """Learn what the cache has for *task* (None: nothing); *now*: seconds since the epoch."""
        yield from self.caching.recalled(task, content, now)
        yield from self.scheduler.settle()

    def stored(self, change: m.EnginesChanged) -> Iterator[Effect]:
        """Go on with engines that joined: the ``Keep`` that told of it is in the store, or will never be."""
        yield from self._membership.stored(change)
        yield from self.scheduler.settle()

    def tick(self, now: float) -> Iterator[Effect]:
        """Set the time (s, of any clock that does not jump), and fail what has waited too long."""
        self.ledger.now = now
        yield from self.scheduler.expire()
        yield from self.scheduler.settle()

    @property
    def engine_count(self) -> int:
        """Return how many engines live, those of incomplete worlds included."""
        return sum(len(agent.engines) for agent in self.ledger.agents.values())

    def next_deadline(self) -> float | None:
        """Return when ``tick`` has something to do."""
        return self.scheduler.next_deadline()

    # --- messages ---

    def handle(self, peer: Peer, message: m.Message) -> Iterator[Effect]:
        """Dispatch to ``on_<tag>``.

        A message that cannot be raises ProtocolError, here or from the iterator before its first
        effect; it has changed nothing, and its contents are the caller's to drop.
        """
        handler = self._handlers.get((_role(peer), type(message)))
        if handler is None:
            raise ProtocolError(f"{peer} may not send {type(message).__name__}")
        if peer not in self.ledger.clients and peer not in self.ledger.agents:
            raise ProtocolError(f"{peer} has not connected, or is gone")
        return handler(peer, message)

    def on_submit(self, peer: Peer, message: m.Submit) -> Iterator[Effect]:
        """Start a new task. One that is known already is not started again."""
        check(message, self.ledger)
        known = self.ledger.record_of(message.task)
        if known is not None:
            if known.owner != peer:
                raise ProtocolError(f"{peer} submits {message.task}, which is a task of {known.owner}")
            yield from release(message.contents)
            return
        yield Keep(TaskId(message.task), message)
        if message.op == "keep":
            self.ledger.clients[peer].keeps = True
        found = problem(message, self.ledger)
        if found is not None:
            yield from self._refuse(peer, message, found)
        elif message.placement is not None:
            balanced = self.scheduler.make(peer, message)
            self.ledger.add(balanced)
            balanced.begin_at(self._orphans.least_attempt(balanced.id))
            if not self._restoring.adopt(balanced, self._orphans.holders(balanced.id)):
                begin = self.scheduler.start if message.cache is None else self.caching.hope
                yield from begin(balanced, message)
        else:
            task = self._direct.make(peer, message)
            self.ledger.add(task)
            yield from self._direct.start(task, message)
        for reply in self._orphans.claim(TaskId(message.task)):
            yield from self._end(reply)
        yield from self.scheduler.settle()

    def _refuse(self, peer: Peer, message: m.Submit, found: tuple[str, str]) -> Iterator[Effect]:
        task = self._direct.make(peer, message)
        self.ledger.add(task)
        for part in list(task.parts):
            yield from self.ending.fail(task, part, *found)

    def on_reply(self, peer: Peer, message: m.Reply) -> Iterator[Effect]:
        """End one part of a task; a reply that nobody waits for (any more) is dropped."""
        self._check_speaker(peer, message.engine)
        if self._orphans.keep(message):  # its request comes as soon as its client is back
            yield Keep(TaskId(message.task), message)
            return
        yield from self._end(message)
        yield from self.scheduler.settle()

    def on_replies(self, peer: Peer, message: m.Replies) -> Iterator[Effect]:
        """End several parts of a task; usually they are told and kept as they came, as one."""
        engines = cast("Mapping[int, Engine]", self.ledger.engines)
        for reply in message.replies:
            if reply.task != message.task or reply.content.transfer:
                raise ProtocolError(f"replies to {message.task}: one is to {reply.task}, or not inline")
            engine = engines.get(reply.engine)
            if engine is None or engine.agent != peer:
                self._check_speaker(peer, reply.engine)
        task = self.ledger.tasks.get(TaskId(message.task))
        if task is not None and not isinstance(task, BalancedTask) and _all_open(task, message):
            yield from self.ending.end_together(task, message)
            yield from self.scheduler.settle()
            return
        for reply in message.replies:
            yield from self.on_reply(peer, reply)

    def _end(self, message: m.Reply) -> Iterator[Effect]:
        task = self.ledger.tasks.get(TaskId(message.task))
        place = EngineId(message.engine)
        if task is None or task.parts.get(place) not in HANDED or message.attempt != task.attempt:
            if message.content.transfer:
                yield Release(message.content)
            return
        event = event_of(message)
        if isinstance(task, BalancedTask):
            if task.cache is not None and event is Event.FINISH:
                yield Remember(task.cache, message.content)
            yield from self.scheduler.reply(task, self.ledger.engines[place], message, event)
        else:
            yield from self.ending.end(task, place, event, message)

    def on_still_waiting(self, peer: Peer, message: m.StillWaiting) -> Iterator[Effect]:
        """Repeat what an earlier life has stored; fail what nobody knows of."""
        return self._restoring.still_waiting(peer, message)

    def _check_speaker(self, peer: Peer, engine: int) -> None:
        """Raise ProtocolError if *engine* lives behind another agent; what is left of a lost one may come late."""
        known = self.ledger.engines.get(EngineId(engine))
        if known is not None and known.agent != peer:
            raise ProtocolError(f"{peer} speaks for {known}, which is behind {known.agent}")

    def on_output(self, peer: Peer, message: m.Output) -> Iterator[Effect]:
        """Pass on what a task printed."""
        self._check_speaker(peer, message.engine)
        return self._relay.output(message)

    def on_display(self, peer: Peer, message: m.Display) -> Iterator[Effect]:
        """Pass on what a task displayed."""
        self._check_speaker(peer, message.engine)
        return self._relay.display(message)

    def on_published(self, peer: Peer, message: m.Published) -> Iterator[Effect]:
        """Pass on what a task shows."""
        self._check_speaker(peer, message.engine)
        return self._relay.published(message)

    def on_fetch(self, peer: Peer, message: m.Fetch) -> Iterator[Effect]:
        """Pass on an engine's question for what another one has."""
        self._check_speaker(peer, message.engine)
        return self.exchange.ask(message)

    def on_fetched(self, peer: Peer, message: m.Fetched) -> Iterator[Effect]:
        """Pass on the answer."""
        return self.exchange.answer(peer, message)

    def on_free(self, peer: Peer, message: m.Free) -> Iterator[Effect]:
        """Tell engines what they may let go."""
        return self.exchange.free(peer, message)

    def on_abort(self, peer: Peer, message: m.Abort) -> Iterator[Effect]:
        """Take back tasks that have not started."""
        yield from self._control.abort(peer, message)
        yield from self.scheduler.settle()

    def on_interrupt(self, peer: Peer, message: m.Interrupt) -> Iterator[Effect]:
        """Interrupt tasks that run, take back those that do not."""
        yield from self._control.interrupt(peer, message)
        yield from self.scheduler.settle()

    def on_send_signal(self, peer: Peer, message: m.SendSignal) -> Iterator[Effect]:
        """Deliver a signal to engines."""
        return self._control.signal(peer, message)

    def on_query(self, peer: Peer, message: m.Query) -> Iterator[Effect]:
        """Answer a question about the state, or about what is stored."""
        if message.what in QUESTIONS:
            yield from self._archive.answer(peer, message)
        else:
            yield Send(peer, self._queries.answer(message))

    def on_shutdown(self, peer: Peer, message: m.Shutdown) -> Iterator[Effect]:
        """End engines and, if asked, the controller."""
        yield from self._control.shutdown(peer, message)
        yield from self.scheduler.settle()

    def on_farewell(self, peer: Peer, message: m.Farewell) -> Iterator[Effect]:  # noqa: ARG002 - it says nothing more
        """Forget a client that closed on purpose."""
        return self.gone(peer, "closed")

    def on_register_engines(self, peer: Peer, message: m.RegisterEngines) -> Iterator[Effect]:
        """Enter ranks of a world."""
        yield from self._membership.register(peer, message)
        yield from self.scheduler.settle()

    def on_engine_lost(self, peer: Peer, message: m.EngineLost) -> Iterator[Effect]:
        """Enter the end of an engine and fail or move its tasks."""
        yield from self._membership.lost(peer, message)
        yield from self.scheduler.settle()


def _all_open(task: Task, message: m.Replies) -> bool:
    """Say whether each of *message* ends a part of its own that is under way."""
    parts = cast("Mapping[int, State]", task.parts)
    attempt, places = task.attempt, set()
    for reply in message.replies:
        place = reply.engine
        if reply.attempt != attempt or place in places or parts.get(place) not in HANDED:
            return False
        places.add(place)
    return True


def _role(peer: Peer) -> str:
    return peer.partition(":")[0]
