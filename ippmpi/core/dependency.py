"""Conditions of one waiting task on others: met, still open, or impossible, and why."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from ippmpi.core.engine import Engine, EngineState
from ippmpi.ids import EngineId, TaskId
from ippmpi.wire.messages import Dependency

MOST_NAMED = 8
"""How many engines a reason names."""


class Verdict(Enum):
    """What a condition says at this moment."""

    OPEN = "open"
    MET = "met"
    IMPOSSIBLE = "impossible"


class Condition:
    """What is left of one ``after``. Feed it with ``note`` as tasks end; each step costs O(1)."""

    __slots__ = ("accepted", "dependency", "pending", "reason")

    def __init__(self, dependency: Dependency) -> None:
        """Wait for all tasks of *dependency*."""
        self.dependency = dependency
        self.pending: set[TaskId] = set(map(TaskId, dependency.tasks))
        self.accepted = not self.pending  # a condition on nothing is met
        self.reason = ""

    def note(self, task: TaskId, succeeded: bool, engine: Engine | None, failed: Sequence[EngineId] = ()) -> None:
        """Learn how *task* ended, on which engine (None: on none, or on several), and which of them *failed*."""
        self.pending.discard(task)
        wanted = self.dependency.success if succeeded else self.dependency.failure
        problem = self._place(task, engine) if wanted else _ended_wrongly(task, succeeded, engine, failed)
        if problem:
            self.reason = problem
        else:
            self.accepted = True

    def verdict(self) -> Verdict:
        """Say whether it is met, or can still be met."""
        if self.dependency.any_of:
            if self.accepted:
                return Verdict.MET
            return Verdict.OPEN if self.pending else Verdict.IMPOSSIBLE
        if self.reason:
            return Verdict.IMPOSSIBLE
        return Verdict.OPEN if self.pending else Verdict.MET

    def _place(self, task: TaskId, engine: Engine | None) -> str:  # noqa: ARG002 - for Location
        return ""


def _ended_wrongly(task: TaskId, succeeded: bool, engine: Engine | None, failed: Sequence[EngineId]) -> str:
    what = f"task {task} {'succeeded' if succeeded else 'failed'}"
    if engine is not None:
        return f"{what} on {engine}"
    if not failed:
        return what
    shown = ", ".join(map(str, failed[:MOST_NAMED])) + (", ..." if len(failed) > MOST_NAMED else "")
    return f"{what} on engine{'s' if len(failed) > 1 else ''} {shown}"


class Location(Condition):
    """What is left of one ``follow``: the tasks must have run where this one can run too.

    An engine that has been lost takes along what the tasks left on it, so it counts no more, even
    if another one got its id.
    """

    __slots__ = ("engines",)

    def __init__(self, dependency: Dependency) -> None:
        """Wait for all tasks of *dependency*."""
        super().__init__(dependency)
        self.engines: set[Engine] = set()

    def verdict(self) -> Verdict:
        """Say whether it is met, or can still be met, on an engine that is still there."""
        for engine in [e for e in self.engines if e.state is EngineState.LOST]:
            self.engines.discard(engine)
            self.reason = f"{engine}, where a task ran that this one follows, was lost"
        if self.dependency.tasks:
            self.accepted = bool(self.engines)
        return super().verdict()

    def _place(self, task: TaskId, engine: Engine | None) -> str:
        if engine is None:
            return f"task {task} ran on no engine"
        if engine.state is EngineState.LOST:
            return f"{engine}, where task {task} ran, was lost"
        self.engines.add(engine)
        if len(self.engines) > 1 and not self.dependency.any_of:
            return f"the tasks to follow ran on several engines: {', '.join(sorted(str(e.id) for e in self.engines))}"
        return ""
