"""AsyncMapResult: the future of a map or a gather, whose parts are joined."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, cast

from ippmpi.client.collector import Collector
from ippmpi.client.contents import Flat
from ippmpi.client.futures import Owner
from ippmpi.client.maps import FailedItem
from ippmpi.client.parts import Part
from ippmpi.client.results import AsyncResult
from ippmpi.errors import RemoteError
from ippmpi.wire import pickling


def unpickle_items(part: Part, pickled: Flat) -> list[Any]:
    """Unpickle the values of one chunk; those of failed items become exceptions."""
    items = cast("list[Any]", pickling.unpack(pickled))
    return [_item(part, item) if isinstance(item, FailedItem) else item for item in items]


def _item(part: Part, item: FailedItem) -> RemoteError:
    return RemoteError(item.ename, item.evalue, item.traceback, {"engine_id": part.engine, "method": "map"})


class AsyncMapResult(AsyncResult):
    """The result of a map: one part per chunk, one value per item.

    Iteration yields items as their chunks come: in order, or with ``ordered=False`` first come first.
    """

    def __init__(
        self,
        owner: Owner,
        collector: Collector,
        *,
        sizes: Sequence[int],
        ordered: bool = True,
        return_exceptions: bool = False,
        arrays: bool = False,
    ) -> None:
        """*sizes*: numbers of items of the parts. *arrays*: join to an array if possible."""
        self.ordered = ordered
        self._sizes = sizes
        self._arrays = arrays
        super().__init__(owner, collector, unpickle=unpickle_items, return_exceptions=return_exceptions)

    def _combine(self, values: list[Any]) -> Any:
        chunks = [self._filled(value, size) for value, size in zip(values, self._sizes, strict=True)]
        items = list(chain.from_iterable(chunks))
        if not self._arrays or any(isinstance(item, Exception) for item in items):
            return items
        import numpy

        try:
            return numpy.array(items)
        except ValueError:  # values of different shapes
            return items

    def _filled(self, value: Any, size: int) -> list[Any]:
        """Give every item of a chunk that was lost as a whole the same error, so that places stay right."""
        return [value] * size if isinstance(value, RemoteError) else value

    def _iterate(self) -> Iterator[Any]:
        for index in self._indices():
            yield from self._filled(self._take(index), self._sizes[index])

    def _indices(self) -> Iterator[int]:
        if self.ordered:
            yield from range(len(self._collector.parts))
            return
        for position in range(len(self._collector.parts)):
            yield self._arrival(position)

    def _arrival(self, position: int) -> int:
        order = self._collector.order
        self._wait_for(lambda: len(order) > position, None)
        if len(order) <= position and self._collector.problem is not None:
            raise self._collector.problem
        return order[position]

    def __getitem__(self, key: int | slice | str) -> Any:
        """Return item *key* or items of a slice, or a field of the metadata of all chunks."""
        if isinstance(key, str):
            return self._of_parts(key)
        self._check_ended()
        return self.get()[key]

    def __len__(self) -> int:
        """Return the number of items."""
        return sum(self._sizes)

    @property
    def progress(self) -> int:
        """The number of items that are there."""
        return sum(self._sizes[index] for index in list(self._collector.order))


class AsyncGatherResult(AsyncResult):
    """The result of a gather: the pieces of all engines, joined."""

    def __init__(self, owner: Owner, collector: Collector, *, join: Callable[[list[Any]], Any]) -> None:
        """*join* puts the pieces together."""
        self._join = join
        super().__init__(owner, collector)

    def _combine(self, values: list[Any]) -> Any:
        return values if any(isinstance(v, RemoteError) for v in values) else self._join(values)
