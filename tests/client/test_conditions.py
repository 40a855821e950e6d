"""Locks and futures without a condition, until somebody waits."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading

import pytest

from helpers import eventually
from ippmpi.client.conditions import Changes, LateFuture


def test_the_lock_can_be_taken_again_by_its_holder_only() -> None:
    changes = Changes()
    with changes, changes:
        taken = []
        thread = threading.Thread(target=lambda: taken.append(changes._lock.acquire(timeout=0.05)))
        thread.start()
        thread.join()
        assert taken == [False]


def test_who_waits_is_told_and_who_does_not_costs_nothing() -> None:
    changes, values = Changes(), [0]
    with changes:
        changes.notify_all()
        assert changes._condition is None
        assert not changes.wait_for(lambda: values[0] > 0, 0.01)
    ends: list[bool] = []

    def wait() -> None:
        with changes:
            ends.append(changes.wait_for(lambda: values[0] > 0, 10))

    thread = threading.Thread(target=wait)
    thread.start()
    with changes:
        values[0] = 1
        changes.notify_all()
    thread.join(10)
    assert ends == [True]


@pytest.mark.parametrize("asked_before", [False, True], ids=["asked after", "asked before"])
@pytest.mark.parametrize("error", [None, ValueError("x")], ids=["value", "error"])
def test_a_future_does_what_the_standard_one_does(asked_before: bool, error: Exception | None) -> None:
    future, called = LateFuture(), []
    if asked_before:
        future.add_done_callback(called.append)
        assert not future.done()
    future.resolve(error)
    assert future.done()
    assert future.exception(0) is error
    future.add_done_callback(called.append)
    assert called == [future] * (2 if asked_before else 1)
    assert concurrent.futures.wait([future], 0).done == {future}
    assert list(concurrent.futures.as_completed([future], 0)) == [future]
    assert "finished" in repr(future)


def test_one_that_nobody_asked_has_made_nothing() -> None:
    future = LateFuture()
    future.resolve(None)
    assert future._made is None
    assert future.done()


def test_who_waits_for_several_is_told() -> None:
    futures = [LateFuture() for _ in range(3)]
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(len(concurrent.futures.wait(futures, 10).done)))
    thread.start()
    eventually(lambda: all(future._made for future in futures))
    for future in futures:
        future.resolve(None)
    thread.join(10)
    assert found == [3]


def test_a_coroutine_can_wait() -> None:
    async def wait() -> object:
        future = LateFuture()
        asyncio.get_running_loop().call_later(0.01, future.resolve, None)
        return await asyncio.wait_for(asyncio.wrap_future(future), 10)

    assert asyncio.run(wait()) is None


def test_being_resolved_and_being_asked_at_the_same_time_never_misses() -> None:
    for _ in range(2000):
        future = LateFuture()
        called: list[object] = []
        thread = threading.Thread(target=future.resolve, args=(None,))
        thread.start()
        future.add_done_callback(called.append)
        assert future.exception(10) is None
        thread.join()
        assert called == [future]
