"""Tasks that name their engines: handed out at once, in the order in which they came."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from ippmpi.core.effects import Effect
from ippmpi.core.ending import EMPTY, Ending
from ippmpi.core.engine import Engine, EngineState
from ippmpi.core.ledger import Ledger
from ippmpi.core.orphans import Orphans
from ippmpi.core.task import NOWHERE, Event, State, Task
from ippmpi.ids import EngineId, Peer, TaskId
from ippmpi.wire.messages import Run, Submit


class Direct:
    """Turns one ``Submit`` into one ``Run`` per node."""

    def __init__(self, ledger: Ledger, ending: Ending, orphans: Orphans) -> None:
        """Share the tables."""
        self._ledger = ledger
        self._ending = ending
        self._orphans = orphans

    def make(self, peer: Peer, message: Submit) -> Task:
        """Make the task of *message*; its inline contents are not kept, as they are sent at once."""
        places = cast("list[EngineId]", message.targets) or [NOWHERE]  # one by one it would cost a call each
        contents = message.contents
        spooled = [c if c.transfer else EMPTY for c in contents] if any(c.transfer for c in contents) else []
        return Task(peer, message, places, spooled)

    def start(self, task: Task, message: Submit) -> Iterator[Effect]:
        """Hand out *task*; the parts on engines that take no work fail, those on engines that have it run already.

        So do the parts on engines that another process has become since it was submitted: the one that was meant may
        have run it, and the hub of that time, which knew, may have been killed.
        """
        given: list[Engine] = []
        refused = []
        known = self._ledger.engines
        for target, state in task.parts.items():
            if state is not State.WAITING:
                continue  # it had ended before the hub was started again
            engine = known.get(target)
            if engine is not None and engine.state is EngineState.ALIVE and self._meant(engine, message):
                given.append(engine)
            else:
                refused.append(target)
        self._give(task, given)
        for agent, run in self._runs(task, message, given):
            yield from self._ledger.to_agent(agent, run)
        for target in refused:
            yield from self._refuse(task, target)

    def _meant(self, engine: Engine, message: Submit) -> bool:
        """Say whether *engine* was there when *message* was submitted, or has it."""
        if engine.joined <= message.seen or message.seen < 0:
            return True
        return engine.id in self._orphans.holders(TaskId(message.task))

    def _refuse(self, task: Task, target: EngineId) -> Iterator[Effect]:
        engine = self._ledger.open_engine(target)
        if engine is None:
            about, text = self._ledger.engines.get(target), self._ledger.missing(target)
        else:
            about = None
            text = (
                f"engine {target} was lost: the process that had this id when this was submitted has ended; {engine} "
                "has it now, without what the other one knew"
            )
        yield from self._ending.fail(task, target, "EngineError", text, engine=about)

    def _give(self, task: Task, engines: list[Engine]) -> None:
        task.move_all([engine.id for engine in engines], Event.ASSIGN)
        self._ledger.hand_out(task)
        if engines and len(task.parts) == 1:
            task.engine = engines[0]
        self._ledger.load_all(task, engines)
        self._ending.touch_all(engines)

    def _runs(self, task: Task, message: Submit, given: list[Engine]) -> Iterator[tuple[Peer, Run]]:
        """Yield what each agent is told; engines that have *task* already are not named."""
        has_it = self._orphans.holders(task.id)
        new = [engine for engine in given if engine.id not in has_it] if has_it else given
        contents = message.contents
        own = dict(zip(task.parts, contents, strict=True)) if len(contents) > 1 else {}
        for agent, ids in self._ledger.by_agent(new).items():
            yield agent, Run(task.id, task.op, ids, [own[EngineId(i)] for i in ids] if own else contents)
