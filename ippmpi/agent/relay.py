"""Work on its way between the controller and this node's engines.

The agent owns nothing: a message is acknowledged (``done``) when its next owner has acknowledged it,
that is, for a request, all engines it was for (or their loss), and for a reply the controller.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from ippmpi.agent.contents import Arrival, Contents
from ippmpi.agent.members import FanOut, LocalEngine, Members
from ippmpi.agent.output import Outputs
from ippmpi.agent.post import Post
from ippmpi.agent.seams import Delivery
from ippmpi.agent.traces import Traces
from ippmpi.errors import ProtocolError
from ippmpi.wire.frames import encode
from ippmpi.wire.messages import Content, Display, Failure, Published, Reply, Revoke, Run

_log = logging.getLogger(__name__)

RENEW_S = 60.0
"""How long a request whose content broke off may wait to be sent again by a controller that was restarted."""


class Relay:
    """Fans requests out, passes replies up."""

    def __init__(
        self,
        post: Post,
        members: Members,
        contents: Contents,
        *,
        outputs: Outputs,
        traces: Traces,
    ) -> None:
        """Relay between the controller and *members*."""
        self._controller = post.controller
        self._together = post.together
        self._later = post.loop.call_later
        self._members = members
        self._contents = contents
        self._outputs = outputs
        self._traces = traces
        self._lost: dict[str, list[Arrival]] = {}

    # --- from the controller -------------------------------------------------------------------

    def on_run(self, delivery: Delivery) -> None:
        """Send the request to its engines at once (headers set the order), its large contents when they are here."""
        run = delivery.message
        assert isinstance(run, Run)
        if len(run.contents) not in (1, len(run.engines)):
            raise ProtocolError(f"task {run.task}: {len(run.contents)} contents for {len(run.engines)} engines")
        fan = FanOut(delivery.done)
        shared = len(run.contents) == 1
        arrivals = self._run_shared(run, delivery.raw, fan) if shared else self._run_separate(run, fan)
        for former in self._lost.pop(run.task, ()):
            former.abandon()
        for arrival in arrivals:
            arrival.start()
        fan.close()

    def _run_shared(self, run: Run, raw: bytes, fan: FanOut) -> list[Arrival]:
        engines = self._members.with_ids(run.engines)
        arrivals: list[Arrival] = []
        if run.contents[0].transfer:
            arrivals = self._receive(run.task, {run.contents[0]: engines}, fan)
        if arrivals:
            raw = encode(msgspec.structs.replace(run, contents=[arrivals[0].local]))
        for engine in engines:
            self._begin(engine, run)
            engine.conversation.send_raw(raw, on_ack=fan.expect(engine))
        return arrivals

    def _run_separate(self, run: Run, fan: FanOut) -> list[Arrival]:
        """Send to each engine its own content only."""
        wanted: dict[Content, list[LocalEngine]] = {}
        for target, content in zip(run.engines, run.contents, strict=True):
            wanted.setdefault(content, []).extend(self._members.with_ids([target]))
        arrivals = self._receive(run.task, {c: engines for c, engines in wanted.items() if c.transfer}, fan)
        local = {arrival.remote: arrival.local for arrival in arrivals}
        for content, engines in wanted.items():
            for engine in engines:
                self._begin(engine, run)
                own = Run(run.task, run.op, [engine.id], [local.get(content, content)], run.attempt)
                engine.conversation.send(own, on_ack=fan.expect(engine))
        return arrivals

    def _begin(self, engine: LocalEngine, run: Run) -> None:
        self._outputs.give(engine)
        engine.begin(run.task, run.attempt)
        self._traces.busy(engine.ready.pid)

    def _receive(self, task: str, wanted: dict[Content, list[LocalEngine]], fan: FanOut) -> list[Arrival]:
        arrivals = []
        for content, engines in wanted.items():
            if engines:
                arrivals.append(self._arrival(task, content, engines, fan.expect_other()))
            else:
                self._contents.reject(content)
        return arrivals

    def _arrival(self, task: str, content: Content, engines: list[LocalEngine], done: Callable[[], None]) -> Arrival:
        def ended() -> None:
            for engine in engines:
                engine.awaiting.discard(task)
            done()

        arrival = self._contents.receive(content, engines, ended)
        arrival.on_lost = lambda: self._on_lost(task, arrival)
        for engine in engines:
            engine.awaiting.add(task)
        return arrival

    def _on_lost(self, task: str, arrival: Arrival) -> None:
        """The controller has lost its memory in the middle of a content; it will send the request again."""
        self._lost.setdefault(task, []).append(arrival)

        def give_up() -> None:
            if arrival in self._lost.get(task, ()):
                del self._lost[task]
                arrival.give_up()

        self._later(RENEW_S, give_up)

    def on_revoke(self, delivery: Delivery) -> None:
        """Pass it on to the engines it names."""
        message = delivery.message
        assert isinstance(message, Revoke)
        fan = FanOut(delivery.done)
        for engine in self._members.with_ids(message.engines):
            engine.conversation.send_raw(delivery.raw, on_ack=fan.expect(engine))
        fan.close()

    # --- from engines --------------------------------------------------------------------------

    def on_reply(self, delivery: Delivery) -> None:
        """Pass it on, after all that the task has printed."""
        reply = delivery.message
        assert isinstance(reply, Reply)
        engine = self._sender(delivery, reply.engine)
        done, past = delivery.done, engine.is_past(reply.task, reply.attempt)
        if not past:  # else it came again, and what runs here goes on
            self._outputs.replied(engine, reply.task)
            engine.finish(reply.task, failed=reply.failure is not None)
            done = self._forget_reply(engine, reply, done)
        if reply.content.path:
            reply, end = self._offer(reply, engine)
            self._controller.send(reply, on_ack=_both(end, done))
            return
        self._together.send(reply, delivery.raw, done, more=not past and self._members.anyone_has(reply.task))

    def _forget_reply(self, engine: LocalEngine, reply: Reply, done: Callable[[], None]) -> Callable[[], None]:
        task, attempt = reply.task, reply.attempt
        engine.replied[task] = attempt

        def on_ack() -> None:
            if engine.replied.get(task) == attempt:
                del engine.replied[task]
            done()

        return on_ack

    def _offer(self, reply: Reply, engine: LocalEngine) -> tuple[Reply, Callable[[], None] | None]:
        try:
            content, end = self._contents.offer(reply.content, engine)
        except (ProtocolError, OSError) as error:  # the task must end all the same
            _log.error("result of task %s on %s cannot be read: %s", reply.task, engine, error)
            return _unreadable(reply, engine, error), None
        return msgspec.structs.replace(reply, content=content), end

    def on_display(self, delivery: Delivery) -> None:
        """Pass it on, after what was printed before it."""
        message = delivery.message
        assert isinstance(message, Display)
        engine = self._sender(delivery, message.engine)
        self._outputs.drain(engine)
        self._controller.send_raw(delivery.raw, on_ack=delivery.done)

    def on_published(self, delivery: Delivery) -> None:
        """Pass it on."""
        message = delivery.message
        assert isinstance(message, Published)
        self._sender(delivery, message.engine)
        self._controller.send_raw(delivery.raw, on_ack=delivery.done)

    def _sender(self, delivery: Delivery, claimed: int) -> LocalEngine:
        engine = self._members.of_conversation(delivery.peer)
        if engine is None:
            raise ProtocolError(f"{delivery.peer.name} has not introduced itself")
        if engine.id != claimed:
            raise ProtocolError(f"{engine} is engine {engine.id} and speaks for engine {claimed}")
        return engine


def _both(first: Callable[[], None] | None, second: Callable[[], None]) -> Callable[[], None]:
    if first is None:
        return second

    def call() -> None:
        first()
        second()

    return call


def _unreadable(reply: Reply, engine: LocalEngine, error: Exception) -> Reply:
    ready = engine.ready
    failure = Failure(
        "EngineError",
        f"the result of {reply.content.size} bytes could not be read on its node: {error}",
        kind="EngineError",
        engine=reply.engine,
        rank=ready.rank,
        world=ready.world,
        host=ready.host,
        pid=ready.pid,
    )
    return msgspec.structs.replace(reply, content=Content(), failure=failure)
