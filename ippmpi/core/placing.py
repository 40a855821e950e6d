"""Where a ready balanced task may go: its candidates, where its predecessors ran, and where it has been."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ippmpi.core.engine import Engine
from ippmpi.core.ledger import spans
from ippmpi.core.queue import ANYWHERE, Choice
from ippmpi.core.task import BalancedTask
from ippmpi.ids import EngineId

Engines = Mapping[EngineId, Engine]


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
