"""AsyncMapResult: the future of a map or a gather, whose parts are joined."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

from ippmpi.client.chunks import unpickle_items
from ippmpi.client.collector import Collector
from ippmpi.client.failures import composite
from ippmpi.client.futures import Owner
from ippmpi.client.growing import Growing
from ippmpi.client.results import AsyncResult
from ippmpi.errors import RemoteError


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
        return self._joined(list(chain.from_iterable(chunks)))

    def _joined(self, items: list[Any]) -> Any:
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


class AdaptiveMapResult(AsyncMapResult):
    """The result of a map whose tasks have as many items as is best: to the user, each item is a result of its own."""

    def __init__(
        self, collector: Growing, owner: Owner, *, ordered: bool, return_exceptions: bool, arrays: bool
    ) -> None:
        """See ``AsyncMapResult``."""
        self._growing = collector
        super().__init__(
            owner, collector, sizes=(), ordered=ordered, return_exceptions=return_exceptions, arrays=arrays
        )

    def _errors(self) -> list[RemoteError]:
        return [error for chunk in self._growing.chunks for error in chunk.item_errors().values()]

    def _raisable(self, errors: list[RemoteError]) -> RemoteError:
        return composite(errors, len(self), self._growing.method)

    def _build(self, *, with_errors: bool) -> Any:
        chunks = self._growing.chunks
        self._read(chunks)
        errors = self._errors()
        if errors and not with_errors:
            raise self._raisable(errors)
        return self._joined([item for chunk in chunks for item in chunk.items()])

    def _iterate(self) -> Iterator[Any]:
        for index in self._indices():
            chunk = self._growing.chunks[index]
            self._wait_for(lambda chunk=chunk: chunk.done, None)  # type: ignore[misc]
            if not chunk.done and self._growing.problem is not None:
                raise self._growing.problem
            chunk.read(self._unpickle)
            errors = {} if self._return_exceptions else chunk.item_errors()
            for place, item in enumerate(chunk.items()):
                if place in errors:
                    raise errors[place]
                yield item

    def _indices(self) -> Iterator[int]:
        known = self._growing.chunks if self.ordered else self._growing.order
        position = 0
        while self._comes(known, position):
            yield position if self.ordered else self._growing.order[position]
            position += 1

    def _comes(self, known: Sequence[object], position: int) -> bool:
        """Wait until there is one at *position*, or will be none."""
        if len(known) <= position:
            self._wait_for(lambda: len(known) > position or self._growing.ended, None)
        if len(known) <= position and self._growing.problem is not None:
            raise self._growing.problem
        return len(known) > position

    def __len__(self) -> int:
        """Return the number of items."""
        return self._growing.length

    @property
    def progress(self) -> int:
        """The number of items that are there."""
        return self._growing.progress


class AsyncGatherResult(AsyncResult):
    """The result of a gather: the pieces of all engines, joined."""

    def __init__(self, owner: Owner, collector: Collector, *, join: Callable[[list[Any]], Any]) -> None:
        """*join* puts the pieces together."""
        self._join = join
        super().__init__(owner, collector)

    def _combine(self, values: list[Any]) -> Any:
        return values if any(isinstance(v, RemoteError) for v in values) else self._join(values)
