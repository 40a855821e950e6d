"""Tasks that name their engines: handed out at once, in the order in which they came."""

from __future__ import annotations

from collections.abc import Iterator

from ippmpi.core.effects import Effect
from ippmpi.core.ending import EMPTY, Ending
from ippmpi.core.ledger import Ledger
from ippmpi.core.orphans import Orphans
from ippmpi.core.task import NOWHERE, Event, State, Task
from ippmpi.ids import EngineId, Peer
from ippmpi.wire.messages import Content, Run, Submit


class Direct:
    """Turns one ``Submit`` into one ``Run`` per node."""

    def __init__(self, ledger: Ledger, ending: Ending, orphans: Orphans) -> None:
        """Share the tables."""
        self._ledger = ledger
        self._ending = ending
        self._orphans = orphans

    def make(self, peer: Peer, message: Submit) -> Task:
        """Make the task of *message*; its inline contents are not kept, as they are sent at once."""
        places = [EngineId(target) for target in message.targets] or [NOWHERE]
        contents = message.contents
        spooled = [c if c.transfer else EMPTY for c in contents] if any(c.transfer for c in contents) else []
        return Task(peer, message, places, spooled)

    def start(self, task: Task, message: Submit) -> Iterator[Effect]:
        """Hand out *task*; the parts on engines that take no work fail, those on engines that have it run already.

        So do the parts on engines that another process has become since it was submitted: the one that was meant may
        have run it, and the hub of that time, which knew, may have been killed.
        """
        shared = len(message.contents) == 1
        runs: dict[Peer, tuple[list[int], list[Content]]] = {}
        refused = []
        has_it = self._orphans.holders(task.id)
        for index, target in enumerate(task.parts):
            if task.parts[target] is not State.WAITING:
                continue  # it had ended before the hub was started again
            engine = self._ledger.open_engine(target)
            if engine is None or (0 <= message.seen < engine.joined and target not in has_it):
                refused.append(target)
                continue
            task.move(target, Event.ASSIGN)
            task.engine = engine if len(task.parts) == 1 else None
            self._ledger.load(task, engine)
            self._ending.touch(engine)
            if target in has_it:
                continue
            engines, contents = runs.setdefault(engine.agent, ([], []))
            engines.append(target)
            contents.append(message.contents[0 if shared else index])
        for agent, (engines, contents) in runs.items():
            run = Run(task.id, task.op, engines, contents[:1] if shared else contents)
            yield from self._ledger.to_agent(agent, run)
        for target in refused:
            yield from self._refuse(task, target)

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
