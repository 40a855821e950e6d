from __future__ import annotations

import threading
from typing import Any

import pytest

from ippmpi.client.maps import FailedChunk, call_columns, call_rows
from ippmpi.errors import UnmetDependency
from ippmpi.wire.pickling import pack, unpack


def called(function: Any, *columns: list[Any]) -> Any:
    return call_columns(pack(function).join(), *columns)


def test_all_items_are_called_and_each_fails_alone() -> None:
    assert called(divmod, [7, 9], [2, 3]) == [(3, 1), (3, 0)]
    chunk = called(divmod, [7, 9, 8, 1], [2, 0, 3, 0])
    assert isinstance(chunk, FailedChunk)
    assert unpack(chunk.values) == [(3, 1), None, (2, 2), None]
    assert {place: item.ename for place, item in chunk.failures.items()} == dict.fromkeys([1, 3], "ZeroDivisionError")


def test_rows_are_pickled_one_by_one() -> None:
    rows = [pack(row).join() for row in [(7, 2), (1, 0)]]
    chunk = call_rows(pack(divmod).join(), rows)
    assert isinstance(chunk, FailedChunk)
    assert (unpack(chunk.values), list(chunk.failures)) == ([(3, 1), None], [1])


def test_an_item_that_raises_stop_iteration_does_not_end_the_others() -> None:
    chunk = called(next, [iter([1]), iter([]), iter([3])])
    assert (unpack(chunk.values), chunk.failures[1].ename) == ([1, None, 3], "StopIteration")


def give(what: Any) -> Any:
    return threading.Lock() if what == "lock" else what


def test_a_value_that_cannot_be_pickled_does_not_take_the_others_with_it() -> None:
    chunk = called(give, [1, "lock", [2]])
    assert (unpack(chunk.values), chunk.failures[1].ename) == ([1, None, [2]], "TypeError")
    assert called(give, [[1], [2]]) == [[1], [2]]


def refuse(item: Any) -> Any:
    if item is None:
        raise UnmetDependency
    return item


def test_an_engine_that_refuses_the_first_item_refuses_the_task() -> None:
    with pytest.raises(UnmetDependency):
        called(refuse, [None, 1])
    assert called(refuse, [1, None]).failures[1].ename == "UnmetDependency"


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise ValueError


def speak(_: Any) -> None:
    raise UnspeakableError


def test_an_exception_without_a_text_is_a_failure_too() -> None:
    assert "raised ValueError" in called(speak, [1]).failures[0].evalue
