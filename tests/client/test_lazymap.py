"""``imap``: tasks grow by measured time, items are taken lazily."""

from __future__ import annotations

import itertools
import operator
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import ippmpi as ipp
from client.conftest import Pair
from client.fakes import FakeHub, connected
from helpers import eventually
from ippmpi.wire.messages import Failure, Submit
from ippmpi.wire.pickling import unpack

SHORT_S = 1e-5


@pytest.fixture
def short(pair: Pair) -> Pair:
    """A client and a hub whose engines say that every task was short."""
    pair[1].took_s = SHORT_S
    return pair


class Endless:
    """Counts up, and knows how far it is."""

    def __init__(self) -> None:
        self.taken = 0

    def __iter__(self) -> Iterator[int]:
        for self.taken in itertools.count(1):
            yield self.taken


def sizes(hub: FakeHub) -> list[int]:
    return [len(work(submit)) for submit in hub.submits]


def work(submit: Submit) -> Any:
    function, args, kwargs = unpack(submit.contents[0].inline)  # type: ignore[misc]
    return function(*args, **kwargs)


@pytest.mark.parametrize("ordered", [True, False])
def test_tasks_grow_while_items_are_short_and_values_come_one_by_one(short: Pair, ordered: bool) -> None:
    rc, hub = short
    values = list(rc.load_balanced_view().imap(operator.neg, range(3000), ordered=ordered))
    assert (values if ordered else sorted(values, reverse=True)) == list(range(0, -3000, -1))
    assert len(hub.submits) < 1000
    assert 8 < max(sizes(hub)) <= 33


def test_long_items_stay_one_a_task(pair: Pair) -> None:
    rc, hub = pair
    hub.took_s = 0.1
    assert list(rc.load_balanced_view().imap(abs, range(100))) == list(range(100))
    assert sizes(hub) == [1] * 100


def test_an_endless_iterator_is_read_only_so_far_ahead(short: Pair) -> None:
    items = Endless()
    values = short[0].load_balanced_view().imap(operator.neg, items)
    for number in range(1, 2001):
        assert next(values) == -number
        assert items.taken - number <= 100 * 4


def test_a_number_of_tasks_outstanding_means_one_item_each(short: Pair) -> None:
    rc, hub = short
    assert list(rc.load_balanced_view().imap(abs, range(300), max_outstanding=5)) == list(range(300))
    assert sizes(hub) == [1] * 300


def test_with_retries_an_item_is_a_task_that_fails_as_a_whole(short: Pair) -> None:
    rc, hub = short
    values = rc.load_balanced_view(retries=2).imap(operator.floordiv, [4] * 50, [1] * 49 + [0], return_exceptions=True)
    *good, bad = values
    assert good == [4] * 49
    assert (bad.ename, bad.engine_info["items"], len(hub.submits)) == ("ZeroDivisionError", range(49, 50), 50)
    assert {submit.placement.retries for submit in hub.submits if submit.placement} == {2}


def test_an_item_that_fails_is_raised_at_its_place_and_the_others_come(short: Pair) -> None:
    divisors = [1] * 700 + [0] + [2] * 299
    values = short[0].load_balanced_view().imap(operator.floordiv, [4] * 1000, divisors)
    assert list(itertools.islice(values, 700)) == [4] * 700
    with pytest.raises(ipp.RemoteError, match=r"item 700\] ZeroDivisionError"):
        next(values)
    assert list(values) == [2] * 299
    again = short[0].load_balanced_view().imap(operator.floordiv, [4] * 1000, divisors, return_exceptions=True)
    assert [place for place, value in enumerate(again) if isinstance(value, ipp.RemoteError)] == [700]


def test_an_item_that_cannot_be_pickled_comes_after_the_values_before_it(short: Pair) -> None:
    items = [*range(500), threading.Lock(), 1, 2]
    values = short[0].load_balanced_view().imap(repr, items)
    assert list(itertools.islice(values, 500)) == [repr(i) for i in range(500)]
    with pytest.raises(TypeError, match="lock") as caught:
        next(values)
    assert caught.value.__notes__ == ["while item 500 of the map was pickled"]
    assert list(values) == []


def test_items_that_come_slowly_do_not_hold_back_values(short: Pair) -> None:
    rc, hub = short
    gate = threading.Semaphore(8)  # what is sent at first

    def items() -> Iterator[int]:
        for number in range(1000):
            gate.acquire()
            yield number

    values = rc.load_balanced_view().imap(abs, items())
    came: list[int] = []
    reader = threading.Thread(target=lambda: came.extend(values))
    reader.start()
    for _ in range(992):
        gate.release()
        if gate._value > 20:
            eventually(lambda: gate._value < 10)
    reader.join(30)
    assert came == list(range(1000))
    assert len(hub.submits) >= 8


def test_an_engine_that_is_lost_takes_the_items_of_its_task(manual: Pair) -> None:
    rc, hub = manual
    values = rc.load_balanced_view([0]).imap(abs, range(2), return_exceptions=True)
    eventually(lambda: len(hub.submits) == 2)
    hub.fail(hub.submits[0].task, 1, Failure("EngineError", "gone", kind="EngineError", engine=1))
    hub.reply(hub.submits[1].task, 0, [1])
    first, second = values
    assert isinstance(first, ipp.EngineError)
    assert second == 1


def test_a_client_that_is_closed_ends_the_iteration() -> None:
    with connected(automatic=False) as (rc, hub):
        values = rc.load_balanced_view().imap(abs, itertools.count())
        eventually(lambda: len(hub.submits) == 8)
    with pytest.raises(ConnectionError, match="closed"):
        next(values)
