"""Cutting a sequence into one piece per engine, and putting pieces together again.

Two distributions: ``"b"``, contiguous blocks (the first ``len % n`` pieces are one longer), and
``"r"``, round robin (piece ``i`` holds the elements ``i, i + n, i + 2n, ...``).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence, Sized
from itertools import islice, pairwise
from typing import Any

DISTRIBUTIONS = ("b", "r")


def check_distribution(dist: str) -> str:
    """Return *dist*, or raise ValueError naming what is possible."""
    if dist not in DISTRIBUTIONS:
        raise ValueError(f"distribution {dist!r}; have 'b' (blocks) and 'r' (round robin)")
    return dist


def is_array(value: object) -> bool:
    """Say whether *value* is a numpy array of at least one dimension; does not import numpy."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray) and value.ndim > 0


def split(sequence: Any, pieces: int, dist: str = "b") -> list[Any]:
    """Cut *sequence* into *pieces* pieces of its own kind; those that get nothing are empty.

    Pieces of numpy arrays are views. Raises TypeError if it has no length or cannot be sliced.
    """
    if check_distribution(dist) == "r":
        return [sequence[i::pieces] for i in range(pieces)]
    return [sequence[start:stop] for start, stop in block_bounds(len(sequence), pieces)]


def block_bounds(length: int, pieces: int) -> list[tuple[int, int]]:
    """Return start and stop of each of *pieces* contiguous blocks of ``range(length)``."""
    size, longer = divmod(length, pieces)
    starts = [i * size + min(i, longer) for i in range(pieces + 1)]
    return list(pairwise(starts))


def join(pieces: Sequence[Any], dist: str = "b") -> Any:
    """Put *pieces* together: arrays to one array; lists, tuples and ranges to one list.

    Pieces of any other kind (also a mixture with something else) come back as a list of pieces.
    """
    check_distribution(dist)
    if pieces and all(is_array(piece) for piece in pieces):
        return _join_arrays(pieces, dist)
    if pieces and all(isinstance(piece, list | tuple | range) for piece in pieces):
        return _join_lists(pieces, dist)
    return list(pieces)


def _join_lists(pieces: Sequence[Sequence[Any]], dist: str) -> list[Any]:
    if dist == "b":
        return [item for piece in pieces for item in piece]
    rounds = max(len(piece) for piece in pieces)
    return [piece[i] for i in range(rounds) for piece in pieces if i < len(piece)]


def _join_arrays(pieces: Sequence[Any], dist: str) -> Any:
    import numpy

    joined = numpy.concatenate(pieces)
    if dist == "b":
        return joined
    # element j of piece i stands at place i + j * n, if the pieces came from one round robin
    places = numpy.concatenate([numpy.arange(len(p)) * len(pieces) + i for i, p in enumerate(pieces)])
    return joined[numpy.argsort(places, kind="stable")]


def columns(sequences: Sequence[Iterable[Any]]) -> tuple[list[Any], int]:
    """Make the arguments of a map sliceable and return them with the length of the shortest.

    Arrays stay arrays. An endless iterable is fine next to one that has a length.
    """
    if not sequences:
        raise TypeError("map() needs a function and at least one sequence")
    sized = [len(s) for s in sequences if isinstance(s, Sized)]
    limit = min(sized, default=None)
    ready: list[Any] = [s if is_array(s) else list(islice(s, limit)) for s in sequences]
    return ready, min(len(s) for s in ready)
