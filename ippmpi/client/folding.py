"""Equal things of several ranks as one, with the list of those ranks: pure.

What a rank shows is a sequence. Folding merges the sequences of all ranks into one in which each is still there, in its
order; where several have the same next thing it is there once, for all of them. A thing that others will show later
waits for them, unless they wait for each other; all else is in the order of the ranks.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Hashable, Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T", bound=Hashable)


class Folded(NamedTuple, Generic[T]):
    """*what* *ranks* show, which are in order."""

    ranks: tuple[int, ...]
    what: T


def spans(ids: Iterable[int]) -> str:
    """Return ids as text: ``0-3,7`` for 0, 1, 2, 3 and 7."""
    found: list[list[int]] = []
    for number in sorted(set(ids)):
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in found)


def fold(items: Iterable[tuple[int, T]]) -> list[Folded[T]]:
    """Merge *items*, pairs of a rank and what it shows, in order for each rank."""
    sequences: dict[int, deque[T]] = {}
    for rank, what in items:
        sequences.setdefault(rank, deque()).append(what)
    if len(sequences) < 2:
        return [Folded((rank,), what) for rank, sequence in sequences.items() for what in sequence]
    return _Fold(sequences).run()


def fold_neighbours(items: Sequence[tuple[int, T]]) -> list[Folded[T]]:
    """Join those of *items* that follow each other and are equal, if they are of different ranks."""
    found: list[tuple[list[int], T]] = []
    for rank, what in items:
        if found and found[-1][1] == what and rank not in found[-1][0]:
            found[-1][0].append(rank)
        else:
            found.append(([rank], what))
    return [Folded(tuple(sorted(ranks)), what) for ranks, what in found]


class _Fold(Generic[T]):
    """One merge. ``_heads`` are the ranks by what each shows next, ``_holders`` how many will show a thing at all."""

    def __init__(self, sequences: dict[int, deque[T]]) -> None:
        self._sequences = sequences
        self._left = {rank: Counter(sequence) for rank, sequence in sequences.items()}
        self._holders = Counter(what for left in self._left.values() for what in left)
        self._heads: dict[T, list[int]] = {}
        self._ready: list[tuple[int, int, T]] = []  # a heap by the first rank; those that nobody will show later
        self._ties = 0  # so that no two things are ever compared
        for rank in sorted(sequences):
            self._reach(rank)

    def run(self) -> list[Folded[T]]:
        found = []
        for rank in sorted(self._sequences):  # the first one is shown even if others will show the same later
            while self._sequences[rank]:
                while self._ready:
                    found.append(self._take(heapq.heappop(self._ready)[-1]))
                if self._sequences[rank]:
                    found.append(self._take(self._sequences[rank][0]))
        return found

    def _reach(self, rank: int) -> None:
        """Note what *rank* shows next."""
        if self._sequences[rank]:
            what = self._sequences[rank][0]
            ranks = self._heads.setdefault(what, [])
            ranks.append(rank)
            if len(ranks) == self._holders[what]:
                self._ties += 1
                heapq.heappush(self._ready, (min(ranks), self._ties, what))

    def _take(self, what: T) -> Folded[T]:
        ranks = sorted(self._heads.pop(what))
        for rank in ranks:
            self._sequences[rank].popleft()
            self._left[rank][what] -= 1
            self._holders[what] -= not self._left[rank][what]
        for rank in ranks:
            self._reach(rank)
        return Folded(tuple(ranks), what)
