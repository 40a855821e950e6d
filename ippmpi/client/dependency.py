"""Conditions on other balanced tasks: ``after`` and ``follow``."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
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
        """Take ids, results, a mixture of them, or what ``as_dict`` returned."""
        if isinstance(dependencies, dict):
            known = {"all": all, "success": success, "failure": failure} | dependencies
            dependencies = known.pop("dependencies", ())
            all, success, failure = (bool(known.pop(name)) for name in ("all", "success", "failure"))  # noqa: A001
            if known:
                raise ValueError(f"a dependency has no {', '.join(known)}; have dependencies, all, success, failure")
        if not (success or failure):
            raise ValueError("a dependency must count success, failure or both as met")
        super().__init__(task_ids(dependencies))
        self.all, self.success, self.failure = all, success, failure

    def as_dict(self) -> dict[str, Any]:
        """Return it as data, from which it can be made again."""
        return {"dependencies": sorted(self), "all": self.all, "success": self.success, "failure": self.failure}

    def check(self, completed: AbstractSet[str], failed: AbstractSet[str] = frozenset()) -> bool:
        """Say whether it is met, once the tasks *completed* have succeeded and those *failed* have not."""
        met = self & self._right(completed, failed)
        return len(met) == len(self) if self.all else bool(met) or not self

    def unreachable(self, completed: AbstractSet[str], failed: AbstractSet[str] = frozenset()) -> bool:
        """Say whether it can not be met any more."""
        wrong = self & ((completed | failed) - self._right(completed, failed))
        return bool(wrong) if self.all else len(wrong) == len(self) > 0

    def _right(self, completed: AbstractSet[str], failed: AbstractSet[str]) -> set[str]:
        return {*(completed if self.success else ()), *(failed if self.failure else ())}


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
    found = dependencies if isinstance(dependencies, Dependency) else Dependency(dependencies)  # a dict as well
    if not found:
        return None
    return m.Dependency(sorted(found), any_of=not found.all, success=found.success, failure=found.failure)
