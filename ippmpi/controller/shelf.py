"""Large results that nobody waits for, kept for whoever asks for them: the youngest, up to a number of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable


class Shelf:
    """Says which contents go when there is no room; they are known by their keys."""

    def __init__(self, limit_bytes: int, drop: Callable[[int], None]) -> None:
        """Hold at most *limit_bytes*; *drop* is called with the key of what has to go, and takes it away."""
        self._limit = limit_bytes
        self._drop = drop
        self._sizes: OrderedDict[int, int] = OrderedDict()
        self._bytes = 0

    def __contains__(self, key: int) -> bool:
        """Say whether this content is here."""
        return key in self._sizes

    def put(self, key: int, size: int, *, crowded: bool = False) -> None:
        """Add a content. *crowded*: drop nothing for it now, even if it is too much."""
        if key not in self._sizes:
            self._sizes[key] = size
            self._bytes += size
            if not crowded:
                self.make_room(lambda: self._bytes <= self._limit)

    def take(self, key: int) -> None:
        """Forget a content. Harmless if it is not here."""
        self._bytes -= self._sizes.pop(key, 0)

    def make_room(self, enough: Callable[[], bool]) -> None:
        """Drop the oldest contents until it is *enough*, or nothing is left."""
        while self._sizes and not enough():
            key = next(iter(self._sizes))
            self.take(key)
            self._drop(key)
