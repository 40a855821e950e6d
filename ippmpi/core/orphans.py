"""Tasks that engines have and the hub does not know: it was killed before it had stored them.

Their clients will submit them again, since nobody has acknowledged them. Until then their replies wait here
(and in the store).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from ippmpi.core.ending import RETURNED
from ippmpi.core.ledger import Ledger
from ippmpi.ids import EngineId, TaskId
from ippmpi.wire.messages import Reply


class Orphans:
    """Which engines have them, and how they ended there; the oldest are dropped beyond ``kept_tasks``."""

    def __init__(self, ledger: Ledger) -> None:
        """Know none."""
        self._ledger = ledger
        self._holders: OrderedDict[TaskId, dict[EngineId, int]] = OrderedDict()
        self._least: OrderedDict[TaskId, int] = OrderedDict()
        self._replies: dict[TaskId, dict[EngineId, Reply]] = {}

    def add(self, task: TaskId, engine: EngineId, attempt: int) -> None:
        """Note that *engine* has *task*, as this *attempt*."""
        self._holders.setdefault(task, {})[engine] = attempt
        if len(self._holders) > self._ledger.limits.kept_tasks:
            oldest, _ = self._holders.popitem(last=False)
            self._replies.pop(oldest, None)

    def begin_at(self, task: TaskId, attempt: int) -> None:
        """Note that engines have seen all attempts at *task* below *attempt*."""
        if attempt > 0:
            self._least[task] = max(attempt, self._least.get(task, 0))
            if len(self._least) > self._ledger.limits.kept_tasks:
                self._least.popitem(last=False)

    def least_attempt(self, task: TaskId) -> int:
        """Return the lowest attempt that would be a new one for all engines."""
        return self._least.get(task, 0)

    def holders(self, task: TaskId) -> Mapping[EngineId, int]:
        """Return the engines that have *task*, with their attempts."""
        return self._holders.get(task, {})

    def keep(self, reply: Reply) -> bool:
        """Keep *reply* if it is a new one to an orphan, whose latest attempt it ends; say whether it is."""
        task, engine = TaskId(reply.task), EngineId(reply.engine)
        holders = self._holders.get(task, {})
        if engine not in holders or reply.attempt < max(holders.values()) or reply.attempt != holders[engine]:
            return False
        if reply.failure is not None and reply.failure.kind == RETURNED:
            del holders[engine]
            self.begin_at(task, reply.attempt + 1)
            return False
        replies = self._replies.setdefault(task, {})
        if engine in replies and replies[engine].attempt == reply.attempt:
            return False  # it came again: its content, if it was interrupted, goes on in the first one
        replies[engine] = reply
        return True

    def claim(self, task: TaskId) -> list[Reply]:
        """Return the replies to *task*, which is known from now on."""
        self._holders.pop(task, None)
        self._least.pop(task, None)
        return list(self._replies.pop(task, {}).values())
