"""Where a ready balanced task may go: its candidates, where its predecessors ran, and where it has been."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice

from ippmpi.core.engine import Engine
from ippmpi.core.ledger import spans
from ippmpi.core.queue import ANYWHERE, Choice, Group
from ippmpi.core.task import BalancedTask
from ippmpi.ids import EngineId

Engines = Mapping[EngineId, Engine]

MOST_OVERTAKING = 32
"""How many tasks may overtake one because they have data on the engine that is free, and how far back these are."""


def choice_of(task: BalancedTask, engines: Engines) -> Choice | None:
    """Return where *task* may go among *engines* (those that take work), or None if it can never start.

    Engines on which it failed are avoided as long as another one qualifies; those that refused it
    are never asked again. A task that may go anywhere waits for engines to come; one whose
    engines are gone does not.
    """
    tried = task.failed_on | task.refused_by
    among = _named(task, engines)
    if among is None:
        return _anywhere(task, tried, engines)
    fresh = among - _ids(tried, engines)
    allowed = fresh or among - _ids(task.refused_by, engines)
    return Choice(allowed) if allowed else None


def matched(group: Group, free: Engine, engines: Engines) -> tuple[BalancedTask, Engine]:
    """Return which task of *group* starts now, and where, if the policy has chosen the engine *free*.

    The first one goes to an idle engine that has its data. If there is none, *free* takes it, unless a task close
    behind has data there: that may overtake it, a few times.
    """
    tasks = iter(group.tasks.values())
    head = next(tasks)
    near = _idle_near(head, group.choice, engines)
    if near is not None or not head.near or head.overtaken >= MOST_OVERTAKING:
        return head, near or free
    for task in islice(tasks, MOST_OVERTAKING):
        if free.id in task.near:
            head.overtaken += 1
            return task, free
    return head, free


def _idle_near(task: BalancedTask, choice: Choice, engines: Engines) -> Engine | None:
    """Return the idle engine of *choice* that has most of the data of *task*, None if there is no such one."""
    among, without = choice
    for place in task.near:
        engine = engines.get(EngineId(place))
        if engine is None or engine.direct or engine.balanced or engine.id in without:
            continue
        if among is None or engine.id in among:
            return engine
    return None


def why_nowhere(task: BalancedTask, engines: Engines) -> str:
    """Say why ``choice_of`` returned None."""
    among = _named(task, engines)
    last = f"; before that: {task.last_failure}" if task.last_failure else ""
    if among or (among is None and task.refused_by):
        refused = spans(engine.id for engine in task.refused_by)
        return f"no engine is left: it was refused by engines {refused}{last}"
    wanted = [f"candidates {spans(task.candidates)}"] if task.candidates is not None else []
    if task.follow is not None:
        wanted.append(f"followed tasks on {', '.join(sorted(map(str, task.follow.engines))) or 'no engine'}")
    return f"no engine qualifies: {' and '.join(wanted)}; have {spans(engines)}{last}"


def _anywhere(task: BalancedTask, tried: frozenset[Engine], engines: Engines) -> Choice | None:
    if not tried:
        return ANYWHERE
    for avoided in (tried, task.refused_by):
        without = _ids(avoided, engines)
        if len(without) < len(engines):
            return Choice(None, without) if without else ANYWHERE
    return None if task.refused_by else ANYWHERE


def _named(task: BalancedTask, engines: Engines) -> frozenset[EngineId] | None:
    among = None if task.candidates is None else frozenset(engine for engine in task.candidates if engine in engines)
    if task.follow is None:
        return among
    followed = _ids(task.follow.engines, engines)
    return followed if among is None else among & followed


def _ids(found: Iterable[Engine], engines: Engines) -> frozenset[EngineId]:
    return frozenset(engine.id for engine in found if engines.get(engine.id) is engine)
