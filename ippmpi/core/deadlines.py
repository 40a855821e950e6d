"""When waiting tasks run out of time: a heap that may hold stale entries, but never many."""

from __future__ import annotations

import heapq

from ippmpi.core.task import BalancedTask

_SLACK = 64


class Deadlines:
    """Earliest first. An entry is stale once its task's ``deadline`` is another one."""

    def __init__(self) -> None:
        """Start empty."""
        self._heap: list[tuple[float, int, BalancedTask]] = []
        self._live = 0

    def __len__(self) -> int:
        """Count the deadlines that are not stale."""
        return self._live

    def set(self, task: BalancedTask, deadline: float) -> None:
        """Let *task* end at *deadline* (s) unless it is cleared; it must have none."""
        task.deadline = deadline
        self._live += 1
        heapq.heappush(self._heap, (deadline, task.serial, task))

    def clear(self, task: BalancedTask) -> None:
        """Forget the deadline of *task*, if it has one."""
        if task.deadline is None:
            return
        task.deadline = None
        self._live -= 1
        if len(self._heap) > 2 * self._live + _SLACK:
            self._heap = [entry for entry in self._heap if entry[2].deadline == entry[0]]
            heapq.heapify(self._heap)

    def next(self) -> float | None:
        """Return the earliest deadline."""
        while self._heap and self._heap[0][2].deadline != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def expired(self, now: float) -> list[BalancedTask]:
        """Clear and return the tasks whose deadline is not after *now*."""
        tasks = []
        while (deadline := self.next()) is not None and deadline <= now:
            task = heapq.heappop(self._heap)[2]
            task.deadline = None
            self._live -= 1
            tasks.append(task)
        return tasks
