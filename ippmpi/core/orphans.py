"""Tasks that engines have and the hub does not know: it was killed before it had stored them.

Their clients will submit them again, since nobody has acknowledged them. Until then their replies wait here
(and in the store).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from ippmpi.core.ledger import Ledger
from ippmpi.ids import EngineId, TaskId
from ippmpi.wire.messages import Reply


class Orphans:
    """Which engines have them, and how they ended there; the oldest are dropped beyond ``kept_tasks``."""

    def __init__(self, ledger: Ledger) -> None:
        """Know none."""
        self._ledger = ledger
        self._holders: OrderedDict[TaskId, set[EngineId]] = OrderedDict()
        self._replies: dict[TaskId, dict[EngineId, Reply]] = {}

    def add(self, task: TaskId, engine: EngineId) -> None:
        """Note that *engine* has *task*."""
        self._holders.setdefault(task, set()).add(engine)
        if len(self._holders) > self._ledger.limits.kept_tasks:
            oldest, _ = self._holders.popitem(last=False)
            self._replies.pop(oldest, None)

    def holders(self, task: TaskId) -> Iterable[EngineId]:
        """Return the engines that have *task*."""
        return self._holders.get(task, ())

    def keep(self, reply: Reply) -> bool:
        """Keep *reply* if it is one to an orphan; say whether it is."""
        task, engine = TaskId(reply.task), EngineId(reply.engine)
        if engine not in self._holders.get(task, ()):
            return False
        self._replies.setdefault(task, {})[engine] = reply
        return True

    def claim(self, task: TaskId) -> list[Reply]:
        """Return the replies to *task*, which is known from now on."""
        self._holders.pop(task, None)
        return list(self._replies.pop(task, {}).values())
