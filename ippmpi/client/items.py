"""The items of a map, kept as they were when it was called, until they are sent."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from itertools import chain, islice
from typing import Any

from ippmpi.client.maps import call_columns, call_rows
from ippmpi.client.partition import is_array
from ippmpi.wire.messages import INLINE_LIMIT
from ippmpi.wire.pickling import Blob, pack

IMMUTABLE = frozenset({type(None), bool, int, float, complex, str, bytes})
"""Nobody can change them: no need to pickle them at once, if they are small. So are tuples of them."""

SMALL_TEXT = 1024
"""Length of a string or bytes that is small."""

SMALL_TUPLE = 16
"""Length of a tuple that is small."""

_TEXTS = (str, bytes)

SMALL_ARRAY = 16 * 1024 * 1024
"""Bytes of an array that is copied at once; a larger one must not be changed until it is ``sent``, as ever."""

ROOM = INLINE_LIMIT - 1024
"""Bytes of items in one task of several."""


class Items:
    """A function and the arguments of its calls, pickled; raises what pickling raises.

    A program may change lists, globals that the function reads, and so on, as soon as the map has been called, but
    most tasks are made later.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        columns: Sequence[Any],
        length: int,
        first: int = 0,
        pack: Callable[[object], Blob] = pack,
    ) -> None:
        """Take the first *length* elements of *columns*. *first*: number of the first item, for errors."""
        self._pack = pack
        self._function = pickle.PickleBuffer(self._pack(function).join())
        self._length = length
        self._columns: list[Any] = []
        self._rows: list[bytes | Blob] = []
        self._most = length
        if all(_immutable(column) for column in columns):
            self._columns = [_kept(column[:length]) for column in columns]
            item_bytes = sum(_item_bytes(column) for column in self._columns)
            self._most = max(1, ROOM // max(1, item_bytes))
        else:
            self._rows = [
                self._row(first + i, row) for i, row in enumerate(islice(zip(*columns, strict=False), length))
            ]

    def __len__(self) -> int:
        """Return how many there are."""
        return self._length

    def _row(self, number: int, row: tuple[Any, ...]) -> bytes | Blob:
        try:
            blob = self._pack(row)
            if blob.size <= INLINE_LIMIT and not blob.handles:  # those make it a task of its own, for the best place
                return blob.join()
            return self._pack((call_columns, (self._function, *([cell] for cell in row)), {}))
        except Exception as error:
            error.add_note(f"while item {number} of the map was pickled")
            raise

    def most(self, start: int, wanted: int) -> int:
        """Return how many items from *start* on fit into one task: up to *wanted*, and at least one."""
        if not self._rows:
            return min(wanted, self._most)
        room, count = ROOM, 0
        for row in self._rows[start : start + wanted]:
            room -= len(row) if isinstance(row, bytes) else INLINE_LIMIT
            if room < 0:
                break
            count += 1
        return max(1, count)

    def blob(self, start: int, stop: int) -> Blob:
        """Return the call for the items from *start* up to *stop*; forgets what is not needed again."""
        if not self._rows:
            return self._pack((call_columns, (self._function, *(column[start:stop] for column in self._columns)), {}))
        rows = self._rows[start:stop]
        self._rows[start:stop] = [b""] * len(rows)
        if isinstance(rows[0], Blob):
            return rows[0]
        return self._pack((call_rows, (self._function, rows), {}))


def _immutable(column: Any) -> bool:
    if is_array(column):
        return bool(column.dtype.hasobject is False)
    kinds = set(map(type, column))
    if kinds == {tuple}:
        return _immutable(list(chain.from_iterable(column))) and max(map(len, column)) <= SMALL_TUPLE
    return kinds <= IMMUTABLE and all(len(value) <= SMALL_TEXT for value in column if type(value) in _TEXTS)


def _kept(column: Any) -> Any:
    return column.copy() if is_array(column) and column.nbytes <= SMALL_ARRAY else column


def _item_bytes(column: Any) -> int:
    """Say how large an item may be, pickled."""
    if is_array(column):
        return int(column[:1].nbytes)
    if column and type(column[0]) is tuple:
        return max(map(len, column)) * _item_bytes(list(chain.from_iterable(column)))
    return max((4 * len(value) for value in column if type(value) in _TEXTS), default=0) + 9
