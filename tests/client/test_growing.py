"""Maps without a chunk size: tasks grow by measured time."""

from __future__ import annotations

import operator
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ippmpi as ipp
from client.conftest import Pair
from client.fakes import FakeHub, connected
from helpers import eventually
from ippmpi.client import growing
from ippmpi.wire.messages import Abort, Failure, Interrupt, Submit
from ippmpi.wire.pickling import unpack

SHORT_S, LONG_S = 1e-5, 0.1


@pytest.fixture
def short(pair: Pair) -> Pair:
    """A client and a hub whose engines say that every task was short."""
    pair[1].took_s = SHORT_S
    return pair


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A map that keeps what it has not sent until something comes back."""
    monkeypatch.setattr(growing, "HOLD_S", 3600.0)


def work(submit: Submit) -> Any:
    """Do what a task of a map says; return its values."""
    function, args, kwargs = unpack(submit.contents[0].inline)  # type: ignore[misc]
    return function(*args, **kwargs)


def answer(hub: FakeHub, submit: Submit) -> Any:
    values = work(submit)
    hub.reply(submit.task, 0, values)
    return values


def answer_all(hub: FakeHub, answered: int = 0) -> int:
    """Answer what came after the first *answered* ones; return how many there are now."""
    for submit in hub.submits[answered:]:
        answer(hub, submit)
        answered += 1
    return answered


def sizes(hub: FakeHub) -> list[int]:
    return [len(work(submit)) for submit in hub.submits]


# --- how many items make a task ---


@pytest.mark.usefixtures("patient")
def test_the_first_tasks_are_two_single_items_for_each_engine(manual: Pair) -> None:
    rc, hub = manual
    result = rc.load_balanced_view().map_async(abs, range(1000))
    eventually(lambda: len(hub.submits) >= 12)
    assert sizes(hub) == [1] * 12  # and one more each, which waits there
    assert (len(result), result.progress, result.sent) == (1000, 0, False)


def test_tasks_grow_while_items_are_short(short: Pair) -> None:
    rc, hub = short
    assert rc.load_balanced_view().map_sync(abs, range(5000)) == list(range(5000))
    grown = sizes(hub)
    assert sum(grown) == 5000
    assert len(grown) < 300
    assert max(grown) > 32


def test_long_items_stay_one_a_task(pair: Pair) -> None:
    rc, hub = pair
    hub.took_s = LONG_S
    assert rc.load_balanced_view().map_sync(abs, range(100)) == list(range(100))
    assert sizes(hub) == [1] * 100


@pytest.mark.usefixtures("patient")
def test_a_long_item_makes_the_next_tasks_short_again(manual: Pair) -> None:
    rc, hub = manual
    hub.took_s = SHORT_S
    result = rc.load_balanced_view([0]).map_async(abs, range(2000))
    answered = 0
    while max(sizes(hub), default=0) < 64:
        answered = answer_all(hub, answered)
    hub.took_s = 100 * LONG_S
    before = len(hub.submits)
    answered = answer_all(hub, answered)
    eventually(lambda: len(hub.submits) > max(before, answered))
    assert sizes(hub)[answered + 1] <= 2
    result.cancel()


def test_what_is_left_is_sent_when_nothing_comes_back_for_a_while(manual: Pair, monkeypatch: Any) -> None:
    monkeypatch.setattr(growing, "HOLD_S", 0.05)
    rc, hub = manual
    result = rc.load_balanced_view().map_async(abs, range(100))
    eventually(lambda: result.sent)
    eventually(lambda: len(hub.submits) == 100)


def test_with_retries_a_task_is_an_item_so_that_only_what_failed_is_tried_again(short: Pair) -> None:
    rc, hub = short
    assert rc.load_balanced_view(retries=1).map_sync(abs, range(300)) == list(range(300))
    assert len(hub.submits) == 300


def test_a_chunk_size_overrides(short: Pair) -> None:
    rc, hub = short
    rc.load_balanced_view().map_sync(abs, range(300), chunksize=7)
    assert sizes(hub) == [7] * 42 + [6]


def test_a_task_has_no_more_bytes_than_travel_with_its_message(short: Pair) -> None:
    rc, hub = short
    items = [bytes(5000) for _ in range(400)]
    assert rc.load_balanced_view().map_sync(len, items) == [5000] * 400
    assert rc.load_balanced_view().map_sync(len, np.zeros((400, 600))).tolist() == [600] * 400
    assert all(not content.transfer for submit in hub.submits for content in submit.contents)
    assert rc.load_balanced_view().map_sync(len, [("x" * 1000, 1)] * 400) == [2] * 400
    assert all(not content.transfer for submit in hub.submits for content in submit.contents)
    large = [bytes(100_000), b"", np.ones(50_000), bytes(70_000)] * 10
    assert rc.load_balanced_view().map_sync(len, large) == [100_000, 0, 50_000, 70_000] * 10


# --- it is like the builtin ---


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(st.lists(st.integers() | st.text() | st.none() | st.tuples(st.floats(allow_nan=False)), max_size=60))
def test_a_map_is_like_the_builtin(short: Pair, items: list[Any]) -> None:
    result = short[0].load_balanced_view().map_async(repr, items)
    assert list(result) == result.get() == list(map(repr, items))
    assert len(result) == result.progress == len(items)
    unordered = short[0].load_balanced_view().map_async(repr, items, ordered=False)
    assert sorted(unordered) == sorted(map(repr, items))


def test_arrays_give_an_array(short: Pair) -> None:
    view = short[0].load_balanced_view()
    values = view.map_sync(operator.add, np.arange(500), np.arange(500))
    assert isinstance(values, np.ndarray)
    assert values.tolist() == list(range(0, 1000, 2))
    objects = np.array([[1], "two", None], dtype=object)
    assert view.map_sync(str, objects).tolist() == ["[1]", "two", "None"]


@pytest.mark.usefixtures("patient")
def test_items_and_arrays_are_those_of_the_call(manual: Pair) -> None:
    rc, hub = manual
    item, numbers = {"value": 1}, np.ones(40)
    view = rc.load_balanced_view([0])
    results = [view.map_async(str, [item] * 40), view.map_async(int, numbers)]
    item["value"] = 2
    numbers[:] = 2
    answered = 0
    while not all(result.done() for result in results):
        answered = answer_all(hub, answered)
    assert set(results[0].get()) == {"{'value': 1}"}
    assert results[1].get().tolist() == [1] * 40


def test_an_item_that_cannot_be_pickled_is_named_and_nothing_is_sent(manual: Pair) -> None:
    rc, hub = manual
    with pytest.raises(TypeError, match="lock") as caught:
        rc.load_balanced_view().map_async(bool, [1, 2, threading.Lock(), 4])
    assert caught.value.__notes__ == ["while item 2 of the map was pickled"]
    assert not hub.submits


# --- failures ---


def test_one_item_fails_and_the_others_of_its_task_do_not(short: Pair) -> None:
    rc, _ = short
    divisors = [1] * 800 + [0] + [2] * 199
    result = rc.load_balanced_view().map_async(operator.floordiv, [4] * 1000, divisors)
    with pytest.raises(ipp.CompositeError, match=r"1 of 1000 results of map are errors") as caught:
        result.get(10)
    (error,) = caught.value.errors
    assert (error.ename, error.engine_info["items"]) == ("ZeroDivisionError", range(800, 801))
    assert "item 800] ZeroDivisionError: " in str(error)
    assert error.engine_info["host"] == "host"
    values = result.get(return_exceptions=True)
    assert values == [4] * 800 + [error] + [2] * 199
    came = []
    with pytest.raises(ipp.RemoteError, match="ZeroDivisionError"):
        came.extend(result)
    assert not result.successful()
    assert isinstance(result.exception(), ipp.CompositeError)
    assert "error" in result.status
    again = rc.load_balanced_view().map_async(operator.floordiv, [4] * 1000, divisors, return_exceptions=True)
    for error in (list(again)[800], again.get()[800]):
        assert isinstance(error, ipp.RemoteError)
        assert isinstance(error, ZeroDivisionError)


@pytest.mark.usefixtures("patient")
def test_iteration_yields_what_is_before_the_failure(manual: Pair) -> None:
    rc, hub = manual
    hub.took_s = SHORT_S
    result = rc.load_balanced_view([0]).map_async(operator.floordiv, [4] * 400, [1] * 300 + [0] + [1] * 99)
    answered = 0
    while not result.done():
        answered = answer_all(hub, answered)
    values: Iterator[Any] = iter(result)
    assert [next(values) for _ in range(300)] == [4] * 300
    with pytest.raises(ipp.RemoteError, match="item 300"):
        next(values)


def test_an_engine_that_is_lost_takes_the_items_of_its_task(manual: Pair, monkeypatch: Any) -> None:
    monkeypatch.setattr(growing, "HOLD_S", 0.0)
    rc, hub = manual
    result = rc.load_balanced_view().map_async(abs, range(20))
    eventually(lambda: len(hub.submits) == 20)
    hub.fail(hub.submits[3].task, 1, Failure("EngineError", "gone", kind="EngineError", engine=1))
    for submit in hub.submits[:3] + hub.submits[4:]:
        answer(hub, submit)
    with pytest.raises(ipp.CompositeError, match="1 of 20"):
        result.get(10)
    assert isinstance(result.get(return_exceptions=True)[3], ipp.EngineError)


# --- while not all is sent ---


@pytest.mark.usefixtures("patient")
def test_values_come_while_most_is_not_sent_yet(manual: Pair) -> None:
    rc, hub = manual
    result = rc.load_balanced_view().map_async(operator.neg, range(1000), ordered=False)
    eventually(lambda: len(hub.submits) == 12)
    answer(hub, hub.submits[2])
    assert next(iter(result)) == -2
    assert (result.progress, result.done()) == (1, False)
    eventually(lambda: len(hub.submits) == 13)
    with pytest.raises(TimeoutError, match=r"map: 1 of 1000 results came within 0.01 s; missing: 12 waiting"):
        result.get(0.01)


@pytest.mark.usefixtures("patient")
def test_who_asks_for_the_ids_gets_all_of_them(manual: Pair) -> None:
    rc, hub = manual
    result = rc.load_balanced_view().map_async(abs, range(100))
    ids = result.msg_ids
    eventually(lambda: len(hub.submits) == 100)
    assert ids == [submit.task for submit in hub.submits]
    assert len(rc.load_balanced_view().map_async(abs, range(100)).split()) == 100


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("how", ["cancel", "abort"])
def test_what_is_taken_back_before_it_was_sent_is_aborted(manual: Pair, how: str) -> None:
    rc, hub = manual
    result = rc.load_balanced_view().map_async(operator.neg, range(1000))
    eventually(lambda: len(hub.submits) == 12)
    getattr(result, how)()
    sent = next(m for m in eventually(lambda: [m for m in hub.messages if isinstance(m, Abort | Interrupt)]))
    assert set(sent.tasks or []) == {submit.task for submit in hub.submits} == set(result.msg_ids)
    answer_all(hub)
    values = result.get(10, return_exceptions=True)
    assert values[:12] == [-i for i in range(12)]
    assert len(values) == 1000
    assert all(isinstance(value, ipp.TaskAborted) for value in values[12:])
    assert len(hub.submits) == 12
    with pytest.raises(ipp.CompositeError, match="988 of 1000"):
        result.get()


@pytest.mark.usefixtures("patient")
def test_taking_back_everything_takes_back_what_was_not_sent(manual: Pair) -> None:
    rc, hub = manual
    result = rc.load_balanced_view().map_async(operator.neg, range(1000))
    eventually(lambda: len(hub.submits) == 12)
    rc.abort()
    for submit in hub.submits:
        hub.fail(submit.task, 0, Failure("TaskAborted", "taken back", kind="TaskAborted"))
    eventually(result.done)
    assert all(isinstance(value, ipp.TaskAborted) for value in result.get(return_exceptions=True))


@pytest.mark.usefixtures("patient")
def test_a_client_that_is_closed_ends_the_map() -> None:
    with connected(automatic=False) as (rc, hub):
        result = rc.load_balanced_view().map_async(operator.neg, range(1000))
        eventually(lambda: len(hub.submits) == 12)
    with pytest.raises(ConnectionError, match="closed"):
        result.get(10)
    with pytest.raises(ConnectionError, match="closed"):
        list(result)
    eventually(lambda: not any(thread.name == "ippmpi map" for thread in threading.enumerate()))
    with pytest.raises(ConnectionError, match="closed"):
        rc.load_balanced_view().map_async(abs, range(1000))


@pytest.mark.usefixtures("patient")
def test_a_map_that_has_been_sent_leaves_no_thread(short: Pair) -> None:
    assert len(short[0].load_balanced_view().map_sync(abs, range(1000))) == 1000
    eventually(lambda: not any(thread.name == "ippmpi map" for thread in threading.enumerate()))
