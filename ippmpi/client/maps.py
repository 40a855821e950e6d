"""What a map runs on the engines. Engines import this module, so it imports nothing heavy."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class FailedItem(NamedTuple):
    """Stands for the value of one item whose call raised, when failures are wanted as values."""

    ename: str
    evalue: str
    traceback: str


def call_each(function: Callable[..., Any], return_exceptions: bool, *columns: Sequence[Any]) -> list[Any]:
    """Call *function* with the first element of every column, the second, and so on; return the values."""
    if not return_exceptions:
        return list(map(function, *columns))
    return [_call(function, items) for items in zip(*columns, strict=False)]


def _call(function: Callable[..., Any], items: tuple[Any, ...]) -> Any:
    try:
        return function(*items)
    except Exception as error:  # the user's code may raise anything; SystemExit and interrupts end the task
        return FailedItem(type(error).__name__, str(error), traceback.format_exc())
