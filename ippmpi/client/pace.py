"""How many items of a map make a task: guided self-scheduling (Polychronopoulos and Kuck, 1987), by measured time.

The first tasks are single items. While they prove to be short, tasks grow; a long item makes the next ones short again.
"""

from __future__ import annotations

CHUNK_S = 0.010
"""What a task should take at most, or half an item more: short enough that nothing waits long behind it."""

LEAST_S = 0.001
"""What a task should take at least, if its items are short, even when few are left: less is mostly overhead."""

GROWTH = 2
"""How many times longer than one that was short the next task may be."""

SHARES = 4
"""A task is at most this part of what is left for each engine."""

FIRST = 2
"""Tasks of one item for each engine, to learn from."""

AHEAD = 3
"""Tasks under way for each engine, so that it never waits for the next."""

FADE = 0.5
"""A long item is remembered: the next are believed to take this part of its time, with each task that is shorter."""

LONGEST_S = 1.0
"""Believed of a task whose times make no sense."""

SHORTEST_S = 1e-6


class Pace:
    """Learns how long items take."""

    def __init__(self) -> None:
        """Know nothing: tasks are single items."""
        self._item_s = LONGEST_S
        self._grown = 0

    def learn(self, items: int, took_s: float) -> None:
        """Take that a task of so many *items* took *took_s* seconds, by the clock of its engine."""
        item_s = (max(took_s, SHORTEST_S) if took_s > 0 else LONGEST_S) / items
        self._item_s = max(item_s, self._item_s * FADE) if self._grown else item_s
        self._grown = max(self._grown, items)

    def size(self, left: int, engines: int) -> int:
        """Return how many items the next task should have, of *left* that remain for *engines*."""
        if not self._grown:
            return 1
        most = min(GROWTH * self._grown, round(CHUNK_S / self._item_s))
        share = max(left / (SHARES * engines), LEAST_S / self._item_s)
        return max(1, min(most, int(share), left))
