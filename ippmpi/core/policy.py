"""The contract of a scheduling policy: which engine gets the next balanced task."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Protocol

from ippmpi.ids import EngineId

NONE: frozenset[EngineId] = frozenset()


class Policy(Protocol):
    """Knows the load of every engine that takes work, and chooses.

    Everything runs once or twice per task, so it should cost O(1) in the number of engines in the usual case.
    """

    def update(self, engine: EngineId, direct: int, balanced: int, room: int) -> None:
        """Learn the load of *engine*, new or known: outstanding tasks that named it, and that did not.

        ``room`` is how many more balanced tasks may be handed to it now.
        """

    def remove(self, engine: EngineId) -> None:
        """Forget *engine*; nothing happens if it is not known."""

    def choose(
        self, among: AbstractSet[EngineId] | None = None, without: AbstractSet[EngineId] = NONE
    ) -> EngineId | None:
        """Return the engine that should get the next task, or None to wait until some load changes.

        It must have room, be in *among* (None: any) and not in *without*. If one that qualifies is
        idle, an idle one must be returned; if all that qualify have room, one must be returned.
        """
