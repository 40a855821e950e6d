"""What a map runs on the engines. Engines import this module, so it imports nothing heavy."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ippmpi.errors import UnmetDependency
from ippmpi.wire.exceptions import take_apart
from ippmpi.wire.pickling import pack, unpack

if TYPE_CHECKING:
    from typing_extensions import Buffer

MOST_TEXT = 64 * 1024
"""Characters of an item's message or traceback that are kept."""

PLAIN = frozenset({type(None), bool, int, float, complex, str, bytes})
"""Types whose values can always be pickled."""


class FailedItem(NamedTuple):
    """Stands for the value of one item whose call raised."""

    ename: str
    evalue: str
    traceback: str
    origin: tuple[list[str], bytes] = ([], b"")


class FailedChunk(NamedTuple):
    """The values of a chunk of which some items failed: a blob of the list, and the failures by their places in it.

    Reading it runs no code of the user's; reading ``values`` may.
    """

    values: bytes
    failures: dict[int, FailedItem]


# --- chunks of a size that the user chose: a chunk fails as a whole, unless failures are wanted as values ---


def call_each(function: Callable[..., Any], return_exceptions: bool, *columns: Sequence[Any]) -> list[Any]:
    """Call *function* with the first element of every column, the second, and so on; return the values."""
    if not return_exceptions:
        return list(map(function, *columns))
    return [_call(function, items) for items in zip(*columns, strict=False)]


def _call(function: Callable[..., Any], items: tuple[Any, ...]) -> Any:
    try:
        return function(*items)
    except UnmetDependency:
        raise  # another engine may do it
    except Exception as error:  # the user's code may raise anything; SystemExit and interrupts end the task
        return _failed(error)


# --- chunks of a size that we chose: each item succeeds or fails on its own ---


def call_columns(function: Buffer, *columns: Sequence[Any]) -> list[Any] | FailedChunk:
    """Call the pickled *function* with the first element of every column, the second, and so on."""
    return _call_all(unpack(function), columns, len(columns[0]))  # type: ignore[arg-type] # it is a function


def call_rows(function: Buffer, rows: Sequence[Buffer]) -> list[Any] | FailedChunk:
    """Call the pickled *function* with each of the pickled argument tuples *rows*."""
    called: Callable[..., Any] = unpack(function)  # type: ignore[assignment]

    def call(row: Buffer) -> Any:
        return called(*unpack(row))  # type: ignore[misc] # a tuple

    return _call_all(call, (rows,), len(rows))


def _call_all(function: Callable[..., Any], columns: Sequence[Sequence[Any]], length: int) -> list[Any] | FailedChunk:
    values: list[Any] = []
    failures: dict[int, FailedItem] = {}
    calls = map(function, *columns)
    while len(values) < length:
        error: Exception = StopIteration()  # an item that raises it seems to end the map
        try:
            values.extend(calls)  # keeps what came before an error
        except UnmetDependency as refusal:
            if not values:
                raise  # nothing has run: another engine may take all of them
            error = refusal
        except Exception as problem:  # the user's code may raise anything; SystemExit and interrupts end the task
            error = problem
        if len(values) < length:
            failures[len(values)] = _failed(error)
            values.append(None)
    if length > 1:
        for place, reason in _unsendable(values):
            failures[place] = _failed(reason)
            values[place] = None
    return FailedChunk(pack(values).join(), failures) if failures else values


def _unsendable(values: list[Any]) -> Iterator[tuple[int, Exception]]:
    """Say which values cannot be pickled: they must not take the others with them."""
    if set(map(type, values)) <= PLAIN:
        return
    try:
        pack(values)
    except Exception:  # whatever the user's classes raise; look which of them
        for place, value in enumerate(values):
            try:
                pack(value)
            except Exception as error:
                yield place, error


def _failed(error: Exception) -> FailedItem:
    try:
        inner = error.__traceback__ and error.__traceback__.tb_next  # without our frame
        text, trace = str(error), "".join(traceback.format_exception(type(error), error, inner))
    except Exception as second:  # the user's __str__
        text = trace = f"<its text raised {type(second).__name__}>"
    return FailedItem(type(error).__name__, text[:MOST_TEXT], trace[-MOST_TEXT:], take_apart(error))
