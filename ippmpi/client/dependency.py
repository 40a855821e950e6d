"""Conditions on other balanced tasks: ``after`` and ``follow``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ippmpi.client.results import AsyncResult
from ippmpi.wire import messages as m


class Dependency(set[str]):
    """Ids of tasks that must have ended before another may start.

    *all*: every one of them, else any one. *success*, *failure*: which ends count; by default
    a task that failed makes the dependent task fail with ``ImpossibleDependency``.
    """

    def __init__(
        self,
        dependencies: Any = (),
        all: bool = True,  # noqa: A002 - the name that users of ipyparallel know
        success: bool = True,
        failure: bool = False,
    ) -> None:
        """Take ids, results, or a mixture of them."""
        if not (success or failure):
            raise ValueError("a dependency must count success, failure or both as met")
        super().__init__(task_ids(dependencies))
        self.all, self.success, self.failure = all, success, failure


def task_ids(dependencies: Any) -> list[str]:
    """Return the ids of the tasks behind an id, a result, or an iterable of these; ValueError for others."""
    if isinstance(dependencies, str):
        return [dependencies]
    if isinstance(dependencies, AsyncResult):
        return dependencies.msg_ids
    if isinstance(dependencies, Iterable) and not isinstance(dependencies, dict):
        return [task for item in dependencies for task in task_ids(item)]
    raise ValueError(
        f"a dependency is a task id, an AsyncResult, a Dependency or a list of these, not {dependencies!r}"
    )


def to_record(dependencies: Any) -> m.Dependency | None:
    """Return the record that travels; None if there is no condition."""
    if dependencies is None:
        return None
    found = dependencies if isinstance(dependencies, Dependency) else Dependency(dependencies)
    if not found:
        return None
    return m.Dependency(sorted(found), any_of=not found.all, success=found.success, failure=found.failure)
