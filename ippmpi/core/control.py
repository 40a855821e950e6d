"""What overtakes work: taking tasks back, interrupting them, signals, and the end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from ippmpi.core.balanced import Scheduler
from ippmpi.core.effects import Effect, Send, Stop
from ippmpi.core.engine import Engine
from ippmpi.core.ledger import Ledger, spans
from ippmpi.core.membership import Membership
from ippmpi.core.task import HANDED, NOWHERE, BalancedTask, Event, State, Task
from ippmpi.ids import EngineId, Peer, TaskId
from ippmpi.wire.messages import Abort, Answer, Deliver, Interrupt, Revoke, SendSignal, Shutdown, StopEngines

_NIL = msgspec.msgpack.encode(None)


class Control:
    """Acts on tasks and engines at once, whatever is queued."""

    def __init__(self, ledger: Ledger, scheduler: Scheduler, membership: Membership) -> None:
        """Share the tables."""
        self._ledger = ledger
        self._scheduler = scheduler
        self._membership = membership

    # --- tasks ---

    def abort(self, peer: Peer, message: Abort) -> Iterator[Effect]:
        """Take back what waits, ask engines for the rest; the answer counts what was taken back at once."""
        targets = None if message.targets is None else frozenset(map(EngineId, message.targets))
        yield from self._take_back(peer, message.request, message.tasks, targets=targets)

    def interrupt(self, peer: Peer, message: Interrupt) -> Iterator[Effect]:
        """Interrupt tasks where they run, take them back where they wait; answers like an abort."""
        yield from self._take_back(peer, message.request, message.tasks, interrupt=True)

    def _take_back(
        self,
        peer: Peer,
        request: int,
        names: Iterable[str] | None,
        *,
        targets: frozenset[EngineId] | None = None,
        interrupt: bool = False,
    ) -> Iterator[Effect]:
        mine = self._ledger.clients[peer].tasks
        wanted = list(mine) if names is None else list(dict.fromkeys(map(TaskId, names)))
        foreign = [name for name in wanted if name not in mine and self._foreign(peer, name)]
        if foreign:
            yield Send(peer, Answer(request, error=f"task {foreign[0]} is not a task of this client"))
            return
        taken = 0
        for task in [mine[name] for name in wanted if name in mine]:
            if task.parts.get(NOWHERE) is not State.WAITING:
                yield from self._revoke(task, targets, interrupt)
            elif targets is None and isinstance(task, BalancedTask):
                taken += 1
                yield from self._scheduler.drop(task, "TaskAborted", "taken back before it started", event=Event.ABORT)
        yield Send(peer, Answer(request, msgspec.msgpack.encode(taken)))

    def _foreign(self, peer: Peer, name: TaskId) -> bool:
        record = self._ledger.record_of(name)
        return record is not None and record.owner != peer

    def _revoke(self, task: Task, targets: frozenset[EngineId] | None, interrupt: bool) -> Iterator[Effect]:
        engines = [
            part for part, state in task.parts.items() if state in HANDED and (targets is None or part in targets)
        ]
        for part in engines:
            task.move(part, Event.RECALL)
        for agent, ids in self._ledger.by_agent(self._ledger.engines[part] for part in engines).items():
            yield from self._ledger.to_agent(agent, Revoke(task.id, ids, interrupt))

    # --- engines ---

    def signal(self, peer: Peer, message: SendSignal) -> Iterator[Effect]:
        """Have a signal delivered; targets that are not there are named in the answer."""
        engines, error = self._find(message.targets)
        for agent, ids in self._ledger.by_agent(engines).items():
            yield Send(agent, Deliver(ids, message.signal))
        yield Send(peer, Answer(message.request, _NIL, error))

    def shutdown(self, peer: Peer, message: Shutdown) -> Iterator[Effect]:
        """End engines in good order; with ``controller``, all of them and the controller."""
        if message.targets is None or message.controller:
            error = ""
            engines = [engine for agent in self._ledger.agents.values() for engine in agent.engines.values()]
            for agent in self._ledger.agents:
                yield Send(agent, StopEngines())
        else:
            engines, error = self._find(message.targets)
            for agent, ids in self._ledger.by_agent(engines).items():
                yield Send(agent, StopEngines(ids))
        yield from self._membership.stop(engines)
        yield Send(peer, Answer(message.request, _NIL, error))
        if message.controller:
            yield Stop(f"{peer} asked for it")

    def _find(self, targets: list[int] | None) -> tuple[list[Engine], str]:
        known = self._ledger.engines
        if targets is None:
            return list(known.values()), ""
        wanted = [EngineId(target) for target in dict.fromkeys(targets)]
        missing = [target for target in wanted if target not in known]
        error = f"no engines {spans(missing)}; have {spans(known)}" if missing else ""
        return [known[target] for target in wanted if target in known], error
