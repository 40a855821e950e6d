"""Connections that have not said hello: only so many at once, and only for so long."""

from __future__ import annotations

import time
from typing import Protocol

from ippmpi.net.loop import Loop, Timer

MOST = 512
"""Strangers at a time; one more takes the place of the one that has been silent for longest."""

HELLO_S = 10.0
"""Seconds in which a stranger must say hello."""


class Stranger(Protocol):
    """A connection that may be closed."""

    def turn_away(self, why: str) -> None:
        """Close it."""


class Strangers:
    """Who is at the door, in the order of arrival."""

    def __init__(self, loop: Loop) -> None:
        """Start with nobody."""
        self._loop = loop
        self._since: dict[Stranger, float] = {}
        self._timer: Timer | None = None

    def __len__(self) -> int:
        """Count them."""
        return len(self._since)

    def add(self, one: Stranger) -> None:
        """Let *one* wait at the door."""
        self._since[one] = time.monotonic()
        if len(self._since) > MOST:
            oldest = next(iter(self._since))
            self._turn_away(oldest, f"{MOST} others came later and have not said hello either")
        if self._timer is None:
            self._timer = self._loop.call_later(HELLO_S, self._sweep)

    def discard(self, one: Stranger) -> None:
        """*one* has come in, or is gone. Harmless if it is not here."""
        self._since.pop(one, None)

    def close(self) -> None:
        """Turn everybody away."""
        for one in list(self._since):
            self._turn_away(one, "closed")

    def _turn_away(self, one: Stranger, why: str) -> None:
        del self._since[one]
        one.turn_away(why)

    def _sweep(self) -> None:
        self._timer = None
        now = time.monotonic()
        for one, since in list(self._since.items()):
            if now - since < HELLO_S:  # and so are all that came later
                self._timer = self._loop.call_later(since + HELLO_S - now + 0.01, self._sweep)
                return
            self._turn_away(one, f"no hello within {HELLO_S:.0f} s")
