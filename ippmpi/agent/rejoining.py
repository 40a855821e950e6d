"""A new agent in the place of one that died: what the controller says waits until the node's ranks are back.

The controller sends again whatever the dead agent had not acknowledged, to ranks that the new one
does not know yet; to let it through now would lose it. And what ranks say that are back waits too: a controller
that was restored in the same moment drops a reply of a rank of which it does not know yet what it has.
"""

from __future__ import annotations

from collections.abc import Callable

from ippmpi.agent.seams import Loop

REJOIN_S = 5.0
"""How long the ranks have to come; to the controller, those that have not are lost then."""


class Rejoining:
    """Holds deliveries back until all ranks have joined, or some have and the others do not come."""

    def __init__(self, loop: Loop, register: Callable[[bool], bool]) -> None:
        """Call *register* (with True: now, whoever is there) until it has registered the node."""
        self._loop = loop
        self._register = register
        self._held: list[Callable[[], None]] = []
        self.over = False
        loop.call_later(REJOIN_S, self._on_late)

    def hold(self, take: Callable[[], None]) -> None:
        """Call *take* when its turn comes; each takes one delivery."""
        if self.over:
            take()
        else:
            self._held.append(take)

    def joined(self) -> None:
        """A rank has come."""
        self._look(False)

    def _on_late(self) -> None:
        self._look(True)
        if not self.over:  # nobody has come at all
            self._loop.call_later(REJOIN_S, self._on_late)

    def _look(self, late: bool) -> None:
        if self.over or not self._register(late):
            return
        self.over = True
        held, self._held = self._held, []
        for take in held:
            take()
