"""Contents whose upload failed: the parts that need them can never run."""

from __future__ import annotations

from collections.abc import Iterator

from ippmpi.core.balanced import Scheduler
from ippmpi.core.effects import Effect
from ippmpi.core.ending import Ending
from ippmpi.core.ledger import Ledger
from ippmpi.core.task import HANDED, NOWHERE, BalancedTask, State, Task
from ippmpi.ids import EngineId, TaskId
from ippmpi.wire.messages import Content, Revoke


class Uploads:
    """Ends the parts of a task that wait, somewhere, for a content that will not come."""

    def __init__(self, ledger: Ledger, ending: Ending, scheduler: Scheduler) -> None:
        """Share the tables."""
        self._ledger = ledger
        self._ending = ending
        self._scheduler = scheduler

    def failed(self, name: TaskId, content: Content, reason: str) -> Iterator[Effect]:
        """Fail the open parts of task *name* that need *content*, and take them back from engines."""
        task = self._ledger.tasks.get(name)
        if task is None:
            return
        text = f"its content of {content.size} bytes did not arrive: {reason}"
        if isinstance(task, BalancedTask) and task.parts.get(NOWHERE) is State.WAITING:
            if content.transfer in {c.transfer for c in task.contents}:
                yield from self._scheduler.drop(task, "TaskAborted", text)
            return
        parts = [part for part in _users(task, content) if task.parts[part] in HANDED]
        engines = [self._ledger.engines[part] for part in parts]
        # before the failures: whatever starts on these engines next must not queue behind this task
        for agent, ids in self._ledger.by_agent(engines).items():
            yield from self._ledger.to_agent(agent, Revoke(task.id, ids))
        for part, engine in zip(parts, engines, strict=True):
            yield from self._ending.fail(task, part, "TaskAborted", text, engine=engine)


def _users(task: Task, content: Content) -> list[EngineId]:
    parts = list(task.parts)
    if len(task.contents) == 1:
        return parts if task.contents[0].transfer == content.transfer else []
    return [part for part, c in zip(parts, task.contents, strict=False) if c.transfer == content.transfer]
