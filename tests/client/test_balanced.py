from __future__ import annotations

import itertools
import operator
import threading
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ippmpi as ipp
from client.conftest import Pair
from client.fakes import FakeHub
from helpers import eventually
from ippmpi.wire import messages as m
from ippmpi.wire.messages import Failure, Interrupt


def test_a_task_is_one_bare_value(rc: ipp.Client, hub: FakeHub) -> None:
    view = rc.load_balanced_view()
    result = view.apply_async(operator.add, 1, 2)
    assert result.get() == 3
    assert result.engine_id in rc.ids
    assert hub.submits[-1].targets == []
    assert hub.submits[-1].placement == m.Placement(None, None, None, 0.0, 0)
    assert view.apply_sync(abs, -4) == 4


def test_flags_become_the_placement(rc: ipp.Client, hub: FakeHub) -> None:
    view = rc.load_balanced_view([1, 2])
    first = view.apply_async(abs, 1)
    second = view.apply_async(abs, 1)
    assert {first.get(), second.get()} == {1}
    condition = ipp.Dependency([first, second], all=False, failure=True)
    with view.temp_flags(after=condition, follow=first, timeout=2.5, retries=3, label="third"):
        view.apply_sync(abs, 1)
    view.apply_sync(abs, 1)
    placement = hub.submits[2].placement
    assert placement is not None
    assert placement.candidates == [1, 2]
    assert placement.after == m.Dependency(sorted([*first.msg_ids, *second.msg_ids]), True, True, True)
    assert placement.follow == m.Dependency(first.msg_ids)
    assert (placement.timeout_s, placement.retries) == (2.5, 3)
    assert hub.submits[2].label == "third"
    assert hub.submits[3].placement == m.Placement([1, 2])


def test_dependencies_can_be_ids_results_and_lists_of_them(rc: ipp.Client) -> None:
    result = rc.load_balanced_view().apply_async(abs, 1)
    assert ipp.Dependency(["x", result, {"y"}]) == {"x", "y", *result.msg_ids}
    with pytest.raises(ValueError, match="not 5"):
        ipp.Dependency([5])
    with pytest.raises(ValueError, match="success, failure or both"):
        ipp.Dependency([], success=False)


def test_a_dependency_can_be_made_of_data(rc: ipp.Client, hub: FakeHub) -> None:
    made = ipp.Dependency(["b", "a"], all=False, failure=True)
    assert made.as_dict() == {"dependencies": ["a", "b"], "all": False, "success": True, "failure": True}
    again = ipp.Dependency(made.as_dict())
    assert again.as_dict() == made.as_dict()
    view = rc.load_balanced_view(after={"dependencies": ["a"], "failure": True})
    view.apply_async(abs, 1)
    eventually(lambda: hub.submits)
    assert hub.submits[0].placement == m.Placement(None, m.Dependency(["a"], False, True, True))
    with pytest.raises(ValueError, match="has no msg_ids"):
        ipp.Dependency({"msg_ids": ["a"]})


@pytest.mark.parametrize(
    ("options", "met", "unreachable"),
    [
        ({}, False, True),
        ({"all": False}, True, False),
        ({"failure": True}, True, False),
        ({"success": False, "failure": True}, False, True),
        ({"all": False, "success": False, "failure": True}, True, False),
    ],
)
def test_a_dependency_says_whether_it_is_met(options: dict[str, bool], met: bool, unreachable: bool) -> None:
    dependency = ipp.Dependency(["good", "bad"], **options)
    assert dependency.check({"good", "other"}, {"bad"}) is met
    assert dependency.unreachable({"good", "other"}, {"bad"}) is unreachable
    assert not dependency.check(set())
    assert not dependency.unreachable(set())
    assert ipp.Dependency([], **options).check(set())
    assert not ipp.Dependency([], **options).unreachable({"x"}, {"y"})


def test_no_limit_of_time_may_also_be_none(rc: ipp.Client, hub: FakeHub) -> None:
    view = rc.load_balanced_view(timeout=5)
    view.timeout = None
    assert view.apply_sync(abs, -1) == 1
    assert hub.submits[-1].placement == m.Placement()


def test_a_negative_timeout_is_refused(rc: ipp.Client) -> None:
    with pytest.raises(ValueError, match="timeout is -1"):
        rc.load_balanced_view(timeout=-1).apply(abs, 1)


def test_a_timeout_of_a_task_without_engine_says_so(manual: Pair) -> None:
    rc, _ = manual
    result = rc.load_balanced_view().apply_async(abs, 1)
    assert result.engine_id is None
    with pytest.raises(TimeoutError, match=r"missing: 1 waiting task\(s\)"):
        result.get(0.01)


# --- map ---


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=20)
@given(st.lists(st.integers(), max_size=20), st.integers(1, 7))
def test_a_map_is_like_the_builtin(rc: ipp.Client, items: list[int], chunksize: int) -> None:
    view = rc.load_balanced_view()
    result = view.map_async(operator.neg, items, chunksize=chunksize)
    assert result.get() == list(result) == [-i for i in items]
    assert len(result) == len(items)


def test_a_map_is_a_task_per_chunk(rc: ipp.Client, hub: FakeHub) -> None:
    view = rc.load_balanced_view()
    assert view.map_sync(operator.add, range(5), itertools.count(10)) == [10, 12, 14, 16, 18]
    assert len(hub.submits) == 5
    assert view.map_sync(abs, range(5), chunksize=2) == list(range(5))
    assert len(hub.submits) == 8
    with pytest.raises(ValueError, match="at least one item"):
        view.map(abs, [1], chunksize=0)
    with pytest.raises(TypeError, match="colour"):
        view.map(abs, [1], colour="red")


def test_an_unordered_map_yields_first_come_first_served(manual: Pair) -> None:
    rc, hub = manual
    view = rc.load_balanced_view()
    result = view.map_async(abs, range(4), chunksize=2, ordered=False)
    eventually(lambda: len(hub.submits) == 2)
    hub.reply(hub.submits[1].task, 0, [2, 3])
    values = iter(result)
    assert [next(values), next(values)] == [2, 3]
    assert result.progress == 2
    hub.reply(hub.submits[0].task, 3, [0, 1])
    assert list(values) == [0, 1]
    assert result.get() == [0, 1, 2, 3]
    assert result[1:3] == [1, 2]
    assert result.engine_id == [3, 0]


def test_a_lost_chunk_with_return_exceptions_keeps_all_places(manual: Pair) -> None:
    rc, hub = manual
    result = rc.load_balanced_view().map_async(abs, range(4), chunksize=2, return_exceptions=True)
    eventually(lambda: len(hub.submits) == 2)
    hub.fail(hub.submits[0].task, 1, Failure("EngineError", "gone", kind="EngineError", engine=1))
    hub.reply(hub.submits[1].task, 0, [2, 3])
    values = result.get(5)
    assert [isinstance(v, ipp.EngineError) for v in values] == [True, True, False, False]
    assert len(values) == len(result) == 4


def test_an_item_that_cannot_be_pickled_takes_the_whole_map_back(manual: Pair) -> None:
    rc, hub = manual
    with pytest.raises(TypeError, match="lock"):
        rc.load_balanced_view().map_async(bool, [1, 2, threading.Lock(), 4], chunksize=1)
    eventually(lambda: any(isinstance(sent, Interrupt) for sent in list(hub.messages)))
    assert hub.messages[-1].tasks == [s.task for s in hub.submits]  # type: ignore[attr-defined]
    assert len(hub.submits) == 2


# --- imap ---


def test_imap_takes_items_only_as_results_come(rc: ipp.Client) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for i in itertools.count():
            taken.append(i)
            yield i

    values = rc.load_balanced_view().imap(operator.neg, items())
    assert len(taken) == 8
    assert [next(values) for _ in range(10)] == [-i for i in range(10)]
    assert len(taken) <= 100 * 4 + 10
    values.cancel()
    assert list(values) == [-i for i in range(10, len(taken))]


def test_imap_without_order_yields_what_is_finished(rc: ipp.Client) -> None:
    view = rc.load_balanced_view()
    assert sorted(view.imap(operator.neg, range(20), ordered=False, max_outstanding=3)) == list(range(-19, 1))


def test_imap_without_limit_submits_everything_at_once(manual: Pair) -> None:
    rc, hub = manual
    values = rc.load_balanced_view().imap(abs, range(9), max_outstanding=0)
    eventually(lambda: len(hub.submits) == 9)
    for i, submit in reversed(list(enumerate(hub.submits))):
        hub.reply(submit.task, 0, [i])
    assert list(values) == list(range(9))


def test_an_error_of_the_items_comes_after_the_values_before_it(rc: ipp.Client) -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise LookupError("no third item")

    values = rc.load_balanced_view().imap(abs, items())
    assert [next(values), next(values)] == [1, 2]
    with pytest.raises(LookupError, match="no third item"):
        next(values)
    with pytest.raises(StopIteration):
        next(values)


def test_a_failing_item_of_imap_is_raised_or_returned(rc: ipp.Client) -> None:
    view = rc.load_balanced_view()
    values = view.imap(operator.floordiv, [1, 1, 4], [1, 0, 2])
    assert next(values) == 1
    with pytest.raises(ipp.RemoteError, match="ZeroDivisionError"):
        next(values)
    assert next(values) == 2
    one, error = view.imap(operator.floordiv, [1, 1], [1, 0], return_exceptions=True)
    assert one == 1
    assert isinstance(error, ipp.RemoteError)
    assert isinstance(error, ZeroDivisionError)


# --- the executor ---


def test_a_view_is_an_executor(rc: ipp.Client) -> None:
    with rc.executor() as executor:
        future = executor.submit(operator.add, 1, 2)
        assert future.result(5) == 3
        assert list(executor.map(operator.neg, range(5))) == [0, -1, -2, -3, -4]
        assert list(executor.map(operator.neg, range(5), chunksize=2, timeout=5)) == [0, -1, -2, -3, -4]
    with pytest.raises(RuntimeError, match="shut down"):
        executor.submit(abs, 1)


def test_a_balanced_view_has_no_namespace(rc: ipp.Client) -> None:
    view = rc.load_balanced_view()
    for name in ("execute", "run", "push", "pull", "update", "get", "scatter", "gather", "clear"):
        assert not hasattr(view, name), name
    with pytest.raises(TypeError):
        view["a"]


def test_views_show_their_candidates_and_size(rc: ipp.Client) -> None:
    assert repr(rc.load_balanced_view()) == "<LoadBalancedView any engine>"
    assert repr(rc.load_balanced_view(2)) == "<LoadBalancedView [2]>"
    assert len(rc.load_balanced_view()) == 4
    assert len(rc.load_balanced_view([0, 1])) == 2


def test_the_executor_of_a_direct_view_maps_items_not_engines(rc: ipp.Client, hub: FakeHub) -> None:
    with rc[:].executor as executor:
        for chunksize in (1, 3):
            values = executor.map(operator.add, range(10), range(10), chunksize=chunksize, timeout=10)
            assert list(values) == [2 * i for i in range(10)]
        assert len(hub.submits) == 2
        assert executor.submit(abs, -1).result() == [1] * 4
    with pytest.raises(RuntimeError, match="shut down"):
        executor.map(abs, [1])


@pytest.mark.parametrize("chunksize", [1, 2])
def test_the_time_of_an_executors_map_begins_with_the_call(manual: Pair, chunksize: int) -> None:
    rc, hub = manual
    values = rc.load_balanced_view().executor.map(abs, range(4), chunksize=chunksize, timeout=0.1)
    eventually(lambda: len(hub.submits) == 4 // chunksize)
    hub.call_soon(lambda: hub.reply(hub.submits[0].task, 0, [7, 8] if chunksize == 2 else 7))
    eventually(lambda: len(rc.outstanding) == len(hub.submits) - 1)
    assert next(values) == 7
    with pytest.raises(TimeoutError):
        list(values)


def test_no_timeout_is_no_limit(rc: ipp.Client) -> None:
    view = rc.load_balanced_view()
    view.timeout = None
    assert view.apply_sync(abs, -1) == 1


def test_metadata_name_the_tasks_that_a_task_waits_for(rc: ipp.Client) -> None:
    view = rc.load_balanced_view()
    first, second = view.apply_async(abs, -1), view.apply_async(abs, -2)
    with view.temp_flags(after=[first, second], follow=second):
        third = view.apply_async(abs, -3)
    assert (third.metadata.after, third.metadata.follow) == (first.msg_ids + second.msg_ids, second.msg_ids)
    assert (first.metadata["after"], first["follow"]) == ([], [])
    assert rc[0].apply_async(abs, -1).metadata.after == []
