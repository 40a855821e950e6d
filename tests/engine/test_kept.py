from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

from ippmpi.engine import kept as module
from ippmpi.engine.kept import Keeping, size_of
from ippmpi.engine.mpi import WorldFacts
from ippmpi.errors import HandleError
from ippmpi.wire import pickling
from ippmpi.wire.pickling import pack


class Thing:
    """Something that can be watched."""


@pytest.fixture
def keeping() -> Keeping:
    keeping = Keeping("w", WorldFacts(1, 2, 2, "node"), 4711, "c")
    keeping.engine = 3
    return keeping


def test_what_is_kept_is_found_by_its_task_and_described(keeping: Keeping) -> None:
    value = np.zeros(1000)
    kept = keeping.keep("a-1", value)
    assert keeping.entry("a-1").value is value
    assert kept == ("c", "a-1", 3, 1, "w", "node", 4711, "numpy.ndarray", 8000)
    assert keeping.keep("a-2", 7).kind == "int"
    assert keeping.is_here(kept)


def test_a_value_is_freed_with_its_task_and_nothing_holds_it(keeping: Keeping) -> None:
    thing = Thing()
    gone = weakref.ref(thing)
    keeping.keep("a-1", thing)
    del thing
    keeping.free(["a-2", "a-1"])
    gc.collect()
    assert (gone(), len(keeping)) == (None, 0)
    with pytest.raises(HandleError, match=r"engine 3 \(rank 1 of w on node, pid 4711\) has no value of task a-1: "):
        keeping.entry("a-1")


def test_all_that_a_client_has_left_is_freed_and_it_leaves_nothing_more(keeping: Keeping) -> None:
    for task in ("a-1", "a-2", "b-1"):
        keeping.keep(task, task)
    keeping.free([], "a")
    assert (len(keeping), keeping.entry("b-1").value) == (1, "b-1")
    keeping.keep("a-3", "late")
    assert len(keeping) == 1
    keeping.clear()
    assert len(keeping) == 0


def test_only_so_many_clients_that_are_gone_are_remembered(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GONE_CLIENTS", 2)
    for client in "abc":
        keeping.free([], client)
    for client in "abc":
        keeping.keep(f"{client}-1", 1)
    assert len(keeping) == 1


def test_too_many_values_are_refused(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_KEPT", 2)
    keeping.keep("a-1", 1)
    keeping.keep("a-2", 1)
    with pytest.raises(HandleError, match=r"engine 3 keeps 2 values and takes no more"):
        keeping.keep("a-3", 1)


def test_a_handle_says_where_it_can_be_resolved(keeping: Keeping) -> None:
    kept = keeping.keep("a-1", 1)
    assert not keeping.is_here(kept._replace(engine=4))
    with pytest.raises(HandleError, match="was started again since"):
        keeping.is_here(kept._replace(pid=1))
    with pytest.raises(HandleError, match="of another cluster"):
        keeping.is_here(kept._replace(cluster="d"))


def test_a_value_goes_out_with_the_pickler_of_its_call(keeping: Keeping) -> None:
    pickling.use(pack(1, "cloudpickle").join())
    try:
        keeping.keep("a-1", 1)
    finally:
        pickling.use(None)
    assert keeping.entry("a-1").pickler == "cloudpickle"


class Rude:
    """An object that does not say how large it is."""

    nbytes = "many"

    def __sizeof__(self) -> int:
        raise ValueError("private")


def test_sizes_are_about_right() -> None:
    array = np.zeros(1000)
    assert size_of(array) == 8000
    assert 16000 <= size_of([array, {"x": np.zeros(1000)}, array]) < 17000
    assert size_of(Rude()) == 0
    assert size_of(tuple(range(100_000))) < 1_000_000
    loop: list[Any] = []
    loop.append(loop)
    assert 0 < size_of(loop) < 200


def test_the_runner_keeps_and_clears(bench: Any, main: Any) -> None:
    kept = bench.do("keep", (main("def f(n): return [n]")["f"], (3,), {}))
    assert (kept.engine, kept.kind, kept.task) == (3, "list", "aaa-1")
    assert bench.runner.kept.entry("aaa-1").value == [3]
    bench.do("clear", None)
    assert len(bench.runner.kept) == 0
    assert bench.reply("keep", (divmod, (1, 0), {})).failure.ename == "ZeroDivisionError"
    assert len(bench.runner.kept) == 0
