"""One task of a map: several items, each of which may have failed on its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from ippmpi.client.contents import Flat
from ippmpi.client.maps import FailedChunk, FailedItem
from ippmpi.client.parts import Part
from ippmpi.errors import RemoteError
from ippmpi.wire import pickling
from ippmpi.wire.exceptions import retyped

_MARK = FailedChunk.__name__.encode()
_NEAR = 256  # the mark is within so many bytes of the start


class ChunkPart(Part):
    """The part of a map that is one task: ``size`` items from number ``first`` on.

    ``failures``: those of its items, by their places in it, if not the task as a whole failed; ``error`` is one.
    """

    __slots__ = ("failures", "first", "size")

    first: int
    size: int
    failures: dict[int, RemoteError]

    def succeed(self, pickled: Flat) -> None:
        """Take the pickled values; see whether some of them are failures, without running code of the user's."""
        super().succeed(pickled)
        if _MARK not in pickled[:_NEAR]:
            return
        chunk = pickling.unpack(pickled)
        if isinstance(chunk, FailedChunk):
            super().succeed(chunk.values)
            self.failures = {place: self._failure(place, item) for place, item in chunk.failures.items()}
            self.error = next(iter(self.failures.values()))

    def fail(self, error: RemoteError) -> None:
        """Take the failure of the whole."""
        error.engine_info["items"] = range(self.first, self.first + self.size)
        self.failures = {}
        super().fail(error)

    def read(self, unpickle: Callable[[Part, Flat], Any]) -> RemoteError | None:
        """Make sure that the values are unpickled, and that failures are of the types that were raised."""
        super().read(unpickle)
        if self.failures:
            self.failures = {place: retyped(error) for place, error in self.failures.items()}
            self.error = next(iter(self.failures.values()))
        return self.error

    def _failure(self, place: int, item: FailedItem) -> RemoteError:
        info: dict[str, object] = {"engine_id": self.engine, "method": self.method}
        record = None if self.engine is None else self.engines.get(self.engine)
        if record is not None:
            info |= {"rank": record.rank, "world": record.world, "host": record.host, "pid": record.pid}
        info["items"] = range(self.first + place, self.first + place + 1)
        return _error(item, info)

    def item_errors(self) -> dict[int, RemoteError]:
        """Return the failures by places; if the task failed as a whole, all places have the same."""
        if self.error is not None and not self.failures:
            return dict.fromkeys(range(self.size), self.error)
        return self.failures

    def items(self) -> list[Any]:
        """Return the values, once ``read`` was called; failures in the places of items that have no value."""
        errors = self.item_errors()
        if not errors:
            return cast("list[Any]", self.value)
        values = self.value if self.failures and self.value is not None else [None] * self.size
        return [errors.get(place, value) for place, value in enumerate(values)]


def unpickle_items(part: Part, pickled: Flat) -> list[Any]:
    """Unpickle the values of one chunk; those of failed items become exceptions."""
    items = cast("list[Any]", pickling.unpack(pickled))
    return [_item(part, item) if isinstance(item, FailedItem) else item for item in items]


def items_of(part: Part, chunk: FailedChunk) -> list[Any]:
    """Return the values of a chunk that is not a ``ChunkPart``, with exceptions for those of failed items."""
    values = unpickle_items(part, chunk.values)
    return [_item(part, chunk.failures[i]) if i in chunk.failures else value for i, value in enumerate(values)]


def _item(part: Part, item: FailedItem) -> RemoteError:
    return retyped(_error(item, {"engine_id": part.engine, "method": "map"}))


def _error(item: FailedItem, info: dict[str, object]) -> RemoteError:
    error = RemoteError(item.ename, item.evalue, item.traceback, info)
    error.origin = item.origin
    return error
