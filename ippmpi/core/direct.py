"""Tasks that name their engines: handed out at once, in the order in which they came."""

from __future__ import annotations

from collections.abc import Iterator

from ippmpi.core.effects import Effect, Send
from ippmpi.core.ending import EMPTY, Ending
from ippmpi.core.ledger import Ledger
from ippmpi.core.task import NOWHERE, Event, Task
from ippmpi.ids import EngineId, Peer
from ippmpi.wire.messages import Content, Run, Submit


class Direct:
    """Turns one ``Submit`` into one ``Run`` per node."""

    def __init__(self, ledger: Ledger, ending: Ending) -> None:
        """Share the tables."""
        self._ledger = ledger
        self._ending = ending

    def make(self, peer: Peer, message: Submit) -> Task:
        """Make the task of *message*; its inline contents are not kept, as they are sent at once."""
        places = [EngineId(target) for target in message.targets] or [NOWHERE]
        contents = message.contents
        spooled = [c if c.transfer else EMPTY for c in contents] if any(c.transfer for c in contents) else []
        return Task(peer, message, places, spooled)

    def start(self, task: Task, message: Submit) -> Iterator[Effect]:
        """Hand out *task*; the parts on engines that take no work fail."""
        shared = len(message.contents) == 1
        runs: dict[Peer, tuple[list[int], list[Content]]] = {}
        refused = []
        for index, target in enumerate(task.parts):
            engine = self._ledger.open_engine(target)
            if engine is None:
                refused.append(target)
                continue
            task.move(target, Event.ASSIGN)
            task.engine = engine if len(task.parts) == 1 else None
            self._ledger.load(task, engine)
            self._ending.touch(engine)
            engines, contents = runs.setdefault(engine.agent, ([], []))
            engines.append(target)
            contents.append(message.contents[0 if shared else index])
        for agent, (engines, contents) in runs.items():
            yield Send(agent, Run(task.id, task.op, engines, contents[:1] if shared else contents))
        for target in refused:
            about = self._ledger.engines.get(target)
            yield from self._ending.fail(task, target, "EngineError", self._ledger.missing(target), engine=about)
