from __future__ import annotations

import inspect
import threading
import warnings
from typing import Any

import numpy as np
import pytest

import ippmpi as ipp
from client.fakes import FakeHub
from ippmpi.wire.pickling import pack, unpack

# --- remote ---


def test_a_remote_function_runs_on_the_engines_of_its_view(rc: ipp.Client, hub: FakeHub) -> None:
    @rc[:].remote(block=True)
    def double(x: int, plus: int = 0) -> int:
        """Double it."""
        return 2 * x + plus

    assert isinstance(double, ipp.RemoteFunction)
    assert double(4, plus=1) == [9] * 4
    assert hub.submits[-1].targets == [0, 1, 2, 3]
    assert (double.__name__, double.__doc__) == ("double", "Double it.")
    assert list(inspect.signature(double).parameters) == ["x", "plus"]
    assert repr(double) == "<RemoteFunction double on <DirectView [0, 1, 2, 3]>>"
    double.block = False
    assert isinstance(double(4), ipp.AsyncResult)


def test_a_remote_function_uses_the_flags_that_the_view_has_at_the_call_and_its_own(
    rc: ipp.Client, hub: FakeHub
) -> None:
    view = rc[:]
    negative = view.remote(label="mine")(abs)
    view.targets = 2
    assert negative(-1).get() == 1
    assert (hub.submits[-1].targets, hub.submits[-1].label) == ([2], "mine")
    assert view.label is None
    view.block = True
    assert negative(-1) == 1


def test_flags_that_do_not_exist_are_refused_where_the_function_is_decorated(rc: ipp.Client) -> None:
    with pytest.raises(KeyError, match="no flag 'after'"):
        rc[:].remote(after=None)(abs)
    rc.load_balanced_view().remote(after=None)(abs)
    with pytest.raises(TypeError, match="made of a function"):
        ipp.RemoteFunction(rc[:], 5)  # type: ignore[arg-type]


def test_a_remote_function_of_a_balanced_view_is_a_task(rc: ipp.Client, hub: FakeHub) -> None:
    f = ipp.remote(rc.load_balanced_view(), retries=3)(abs)
    assert f(-2).get() == 2
    assert hub.submits[-1].placement is not None
    assert hub.submits[-1].placement.retries == 3


def test_threads_that_call_one_remote_function_do_not_disturb_each_other(rc: ipp.Client) -> None:
    view = rc[:]
    functions = [view.remote(targets=engine, block=True)(lambda engine=engine: engine) for engine in rc.ids]
    seen: list[Any] = []

    def work(f: Any) -> None:
        seen.extend(f() for _ in range(50))

    threads = [threading.Thread(target=work, args=(f,)) for f in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(seen) == sorted(rc.ids * 50), "a list or another engine's value means that flags got mixed up"
    assert view.targets == rc.ids


def test_a_remote_function_travels_as_the_plain_one(rc: ipp.Client) -> None:
    names: dict[str, Any] = {"__name__": "__main__", "view": rc[0]}
    exec("@view.remote(block=True)\ndef fact(n):\n    return n * fact(n - 1) if n > 1 else 1", names)
    assert names["fact"](5) == 120
    assert unpack(pack(ipp.remote(rc[0])(abs)).join()) is abs


# --- parallel ---


def test_a_parallel_function_gets_pieces_and_its_results_are_joined(rc: ipp.Client, hub: FakeHub) -> None:
    @rc[:].parallel(block=True)
    def product(a: Any, b: Any) -> Any:
        return a * b

    array = np.arange(10.0)
    joined = product(array, array)
    np.testing.assert_array_equal(joined, array * array)
    (submit,) = hub.submits
    assert len(submit.contents) == 4
    assert isinstance(product, ipp.ParallelFunction)
    assert isinstance(product, ipp.RemoteFunction)


@pytest.mark.parametrize("dist", ["b", "r"])
@pytest.mark.parametrize("length", [0, 1, 3, 4, 11])
def test_any_length_and_distribution_gives_the_same(rc: ipp.Client, dist: str, length: int) -> None:
    items = list(range(length))
    for view in (rc[:], rc.load_balanced_view()):
        doubled = ipp.parallel(view, dist=dist, block=True)(lambda piece: [2 * x for x in piece])
        assert doubled(items) == [2 * x for x in items]


def test_results_that_are_no_sequences_are_listed(rc: ipp.Client) -> None:
    assert rc[:].parallel(block=True)(sum)(range(8)) == [1, 5, 9, 13]


def test_a_balanced_parallel_function_makes_tasks_of_chunksize(rc: ipp.Client, hub: FakeHub) -> None:
    view = rc.load_balanced_view()
    assert ipp.ParallelFunction(view, list, chunksize=4, block=True)(range(10)) == list(range(10))
    assert len(hub.submits) == 3
    assert view.parallel(block=True)(list)(range(3)) == [0, 1, 2]
    assert len(hub.submits) == 6
    with pytest.raises(ValueError, match="chunksize is 0"):
        ipp.ParallelFunction(view, list, chunksize=0)([1])


def test_chunksize_is_refused_with_a_warning_where_it_means_nothing(rc: ipp.Client) -> None:
    with pytest.warns(UserWarning, match="for balanced views"):
        ipp.ParallelFunction(rc[:], list, chunksize=4)


def test_a_parallel_function_maps_single_elements(rc: ipp.Client) -> None:
    for view in (rc[:], rc.load_balanced_view()):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            negated = view.parallel()(lambda x, y: x - y)
        assert negated.map([1, 2, 3], [3, 2, 1]).get() == [-2, 0, 2]
        negated.block = True
        assert negated.map([1], [3], return_exceptions=True) == [-2]


def test_wrong_arguments_of_a_parallel_function_are_refused_here(rc: ipp.Client, hub: FakeHub) -> None:
    f = rc[:].parallel()(sum)
    with pytest.raises(TypeError, match="not by name: start"):
        f([1], start=2)
    with pytest.raises(ValueError, match="one length, but have 1, 2"):
        f([1], [1, 2])
    with pytest.raises(TypeError, match="at least one sequence"):
        f()
    with pytest.raises(ValueError, match="distribution 'x'"):
        rc[:].parallel(dist="x")(sum)
    assert not hub.submits


def test_an_array_stays_an_array_also_on_fewer_elements_than_engines(rc: ipp.Client) -> None:
    array = np.arange(2)
    np.testing.assert_array_equal(rc[:].parallel(block=True)(np.negative)(array), -array)
