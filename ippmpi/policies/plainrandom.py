"""Any idle engine; then any that has room."""

from __future__ import annotations

from ippmpi.ids import EngineId

from ._pools import Bag, Pools


class PlainRandom(Pools):
    """One at random."""

    def pick(self, engines: Bag | list[EngineId]) -> EngineId:
        """Return any of *engines*."""
        return engines[next(self.random()) % len(engines)]
