"""The life of this node's ranks: they join, get their ids, are sent signals, stop, are lost."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable

from ippmpi.agent.causes import Ending, describe
from ippmpi.agent.lifetime import Lifetime
from ippmpi.agent.members import UNASSIGNED, FanOut, LocalEngine, Members
from ippmpi.agent.output import Outputs
from ippmpi.agent.post import Post
from ippmpi.agent.registration import Registration
from ippmpi.agent.seams import Conversation, Delivery
from ippmpi.agent.stopping import Stopper
from ippmpi.agent.traces import Traces
from ippmpi.agent.watch import Watch, Watched
from ippmpi.errors import ProtocolError
from ippmpi.wire.messages import Assigned, Deliver, EngineLost, EngineReady, Registered, StopEngines

_log = logging.getLogger(__name__)

LARGEST_PID = 1 << 22
LONGEST_HOST = 255


class Ranks:
    """Receives what is said about ranks themselves, as opposed to their work; watches their processes."""

    def __init__(
        self,
        post: Post,
        members: Members,
        outputs: Outputs,
        traces: Traces,
        lifetime: Lifetime,
        forget: Callable[[str], None],
    ) -> None:
        """Keep *members*; *forget* ends the conversation with a lost engine, by name."""
        self._post = post
        self._members = members
        self._outputs = outputs
        self._traces = traces
        self._lifetime = lifetime
        self._forget = forget
        self._watches: dict[LocalEngine, Watch] = {}
        self._registration = Registration(post.world, post.loop, post.controller, members)
        self._stopper = Stopper(post.loop, members, self._send_signal)

    # --- from engines --------------------------------------------------------------------------

    def on_engine_ready(self, delivery: Delivery) -> None:
        """Let a rank join, or hear from one that has a new session."""
        ready = delivery.message
        assert isinstance(ready, EngineReady)
        self._check(ready, delivery.peer.name)
        engine = self._members.of_rank(ready.rank)
        if engine is None:
            engine = self._join(ready, delivery.peer)
        elif (engine.ready.pid, engine.ready.started) == (ready.pid, ready.started):
            self._members.move(engine, delivery.peer)
        else:
            raise ProtocolError(f"pid {ready.pid} says it is rank {ready.rank}, but {engine} lives")
        if engine.id != UNASSIGNED:
            engine.conversation.send(Assigned(engine.id))
        self._registration.add(engine, delivery.done)
        if self._lifetime.closing:
            self._stopper.stop([engine])

    def _check(self, ready: EngineReady, name: str) -> None:
        if ready.world != self._post.world:
            raise ProtocolError(f"rank {ready.rank} of world {ready.world!r}; this agent is of {self._post.world!r}")
        if name != f"engine:{ready.rank}":
            raise ProtocolError(f"{name} says it is rank {ready.rank}")
        if not 0 <= ready.rank < ready.size or not 1 <= ready.local_size <= ready.size:
            raise ProtocolError(f"rank {ready.rank} of {ready.size}, {ready.local_size} of them here")
        if not 0 < ready.pid <= LARGEST_PID or len(ready.host) > LONGEST_HOST:
            raise ProtocolError(f"pid {ready.pid} on a host whose name has {len(ready.host)} characters")

    def _join(self, ready: EngineReady, conversation: Conversation) -> LocalEngine:
        engine = LocalEngine(ready, conversation)
        self._members.add(engine)
        self._lifetime.joined(ready.rank, ready.local_size)
        self._traces.note(ready.pid)
        if ready.engine != UNASSIGNED:  # a dead agent had it
            engine.resume(ready)
            self._members.assign(engine, ready.engine)
        self._outputs.open(engine)
        record = self._post.folder / f"{self._post.prefix}.{ready.pid}.exit" if ready.parent_records_exit else None
        watched = Watched(ready.pid, ready.started, record)
        self._watches[engine] = Watch(self._post.loop, watched, lambda ending: self._on_end(engine, ending))
        _log.debug("%s of %d has joined", engine, ready.size)
        return engine

    # --- from the controller -------------------------------------------------------------------

    def on_registered(self, delivery: Delivery) -> None:
        """Tell every rank its id."""
        message = delivery.message
        assert isinstance(message, Registered)
        if message.world != self._post.world:
            raise ProtocolError(f"ids for world {message.world!r}; this agent is of {self._post.world!r}")
        fan = FanOut(delivery.done)
        pids = frozenset(message.pids)
        for engine in self._members:
            if pids and engine.ready.pid not in pids:
                continue
            engine_id = message.base + engine.ready.rank
            first = engine.id == UNASSIGNED
            self._members.assign(engine, engine_id)
            engine.conversation.send(Assigned(engine_id), on_ack=fan.expect(engine))
            if first:
                self._outputs.assigned(engine)
        fan.close()

    def on_deliver(self, delivery: Delivery) -> None:
        """Send a signal, at once, whatever the engines do."""
        message = delivery.message
        assert isinstance(message, Deliver)
        if message.signal not in signal.valid_signals():
            raise ProtocolError(f"no signal {message.signal}")
        for engine in self._members.with_ids(message.engines):
            self._send_signal(engine, message.signal)
        delivery.done()

    def on_stop_engines(self, delivery: Delivery) -> None:
        """Ask some or all to end."""
        message = delivery.message
        assert isinstance(message, StopEngines)
        fan = FanOut(delivery.done)
        if message.engines is None:
            self.stop_all(fan)
        else:
            self._stopper.stop(self._members.with_ids(message.engines), fan)
        fan.close()

    def stop_all(self, fan: FanOut | None = None, reason: str = "") -> None:
        """Ask all to end, also those that have not joined yet; then the agent leaves. *reason*: of no normal end."""
        self._stopper.reason = reason
        self._stopper.stop(self._members, fan)
        self._lifetime.close()

    def register_again(self) -> None:
        """The controller is a new process that knows nobody."""
        self._registration.again()

    def hold_registration(self) -> None:
        """Register nobody before ``register_whole``."""
        self._registration.hold()

    def register_whole(self, late: bool) -> bool:
        """Register the ranks as all that this node has, when all are there or it is *late*; say whether it was done."""
        here = len(self._members)
        if here == 0 or not (late or here >= next(iter(self._members)).ready.local_size):
            return False
        self._registration.whole()
        return True

    # --- processes -----------------------------------------------------------------------------

    def close(self) -> None:
        """Stop watching and reading."""
        for engine, watch in self._watches.items():
            watch.close()
            self._outputs.close(engine)
        self._watches.clear()

    def _send_signal(self, engine: LocalEngine, number: int) -> None:
        try:
            self._watches[engine].send(number)
        except OSError as error:
            _log.error("signal %d to %s: %s", number, engine, error)

    def _on_end(self, engine: LocalEngine, ending: Ending) -> None:
        del self._watches[engine]
        self._registration.flush()  # the controller must have heard of it to understand its loss
        self._post.together.flush()  # and of what it has done
        output, begun = self._outputs.close(engine)
        killed = ending.signal == signal.SIGKILL or ending == Ending()
        cause = describe(
            ending,
            expected=engine.told_to_stop,
            out_of_memory=killed and self._traces.claim_oom_kill(engine.ready.pid),
            recorder=engine.ready.parent_records_exit,
        )
        _log.debug("%s is gone: %s", engine, cause)
        self._members.remove(engine)
        self._registration.forget(engine)
        self._forget(engine.conversation.name)
        self._post.controller.send(
            EngineLost(
                self._post.world,
                engine.ready.rank,
                cause,
                expected=engine.told_to_stop,
                exit_code=ending.exit_code,
                signal=ending.signal,
                output=output,
                untouched=engine.untouched(begun),
            ),
            on_ack=lambda: self._registration.bury(engine),
        )
        self._lifetime.lost()
