"""Balanced tasks that wait: held back by dependencies, or ready and grouped by the engines they may go to.

Tasks that may go to the same engines share a group, first come first served, so that an engine that
gets free looks at a few groups and never at the tasks behind their heads.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from ippmpi.core.policy import NONE
from ippmpi.core.task import BalancedTask
from ippmpi.ids import EngineId, TaskId


class Choice(NamedTuple):
    """Engines that a task may go to: those in ``among`` (None: any), but not those in ``without``."""

    among: frozenset[EngineId] | None = None
    without: frozenset[EngineId] = NONE


ANYWHERE = Choice()


@dataclass(slots=True, eq=False)
class Group:
    """Ready tasks with one choice of engines, the next one first (an OrderedDict pops its first key in O(1)).

    ``near``: some may have data on an engine.
    """

    choice: Choice
    tasks: OrderedDict[TaskId, BalancedTask] = field(default_factory=OrderedDict)
    near: bool = False

    def head(self) -> int:
        """Return when its first task was submitted, as a serial number."""
        return next(iter(self.tasks.values())).serial


class Queue:
    """All waiting tasks. A task is held, hoping, or in exactly one group; groups are never empty."""

    def __init__(self) -> None:
        """Start empty."""
        self.held: dict[TaskId, BalancedTask] = {}
        self.hoping: dict[TaskId, BalancedTask] = {}  # for a cached result, or for one of an equal task that runs
        self.groups: dict[Choice, Group] = {}
        self._open: dict[Choice, Group] = {}  # those without ``among``
        self._of_engine: dict[EngineId, dict[Choice, Group]] = {}
        self._where: dict[TaskId, Group] = {}

    def __len__(self) -> int:
        """Count the waiting tasks."""
        return len(self.held) + len(self.hoping) + len(self._where)

    def __iter__(self) -> Iterator[BalancedTask]:
        """Yield every waiting task."""
        yield from self.held.values()
        yield from self.hoping.values()
        for group in self.groups.values():
            yield from group.tasks.values()

    @property
    def ready(self) -> int:
        """How many tasks could start if an engine were free."""
        return len(self._where)

    def put(self, task: BalancedTask, choice: Choice, *, first: bool = False) -> Group:
        """Add a ready task; *first*: before all others of its group, as it has waited already."""
        group = self.groups.get(choice) or self._make(choice)
        group.tasks[task.id] = task
        if task.near:
            group.near = True
        if first:
            group.tasks.move_to_end(task.id, last=False)
        self._where[task.id] = group
        return group

    def pop(self, group: Group) -> BalancedTask:
        """Take the next task out of *group*."""
        task_id, task = group.tasks.popitem(last=False)
        del self._where[task_id]
        if not group.tasks:
            self._drop(group)
        return task

    def discard(self, task: BalancedTask) -> None:
        """Take out *task* wherever it waits."""
        group = self._where.pop(task.id, None)
        if group is None:
            if self.held.pop(task.id, None) is None:
                self.hoping.pop(task.id, None)
            return
        del group.tasks[task.id]
        if not group.tasks:
            self._drop(group)

    def groups_for(self, engine: EngineId) -> list[Group]:
        """Return the groups with a task that may go to *engine*, the oldest head first."""
        if not self._where:
            return []
        found = [group for group in self._open.values() if engine not in group.choice.without]
        found.extend(self._of_engine.get(engine, {}).values())
        if len(found) > 1:
            found.sort(key=Group.head)
        return found

    def drain(self, groups: Iterable[Group]) -> list[BalancedTask]:
        """Take all tasks out of *groups*, in the order of their submission."""
        tasks: list[BalancedTask] = []
        for group in groups:
            self._drop(group)
            tasks += group.tasks.values()
        for task in tasks:
            del self._where[task.id]
        return sorted(tasks, key=lambda task: task.serial)

    def forget(self, engine: EngineId) -> list[Group]:
        """Strike *engine* from all choices; return the groups that the caller must drain and place anew.

        Costs O(groups that mention it), not O(tasks): a dying world reports its ranks one by one.
        """
        changed = [g for g in self._open.values() if engine in g.choice.without]
        changed += self._of_engine.get(engine, {}).values()
        empty = []
        for group in changed:
            among, without = group.choice.among, group.choice.without
            choice = Choice(None if among is None else among - {engine}, without - {engine})
            if choice.among == NONE or choice in self.groups:
                empty.append(group)
                continue
            self._drop(group)
            group.choice = choice
            self._index(group)
        return empty

    def _make(self, choice: Choice) -> Group:
        group = Group(choice)
        self._index(group)
        return group

    def _index(self, group: Group) -> None:
        choice = group.choice
        self.groups[choice] = group
        if choice.among is None:
            self._open[choice] = group
            return
        for engine in choice.among:
            self._of_engine.setdefault(engine, {})[choice] = group

    def _drop(self, group: Group) -> None:
        choice = group.choice
        del self.groups[choice]
        if choice.among is None:
            del self._open[choice]
            return
        for engine in choice.among:
            of_engine = self._of_engine[engine]
            del of_engine[choice]
            if not of_engine:
                del self._of_engine[engine]
