"""Decorated functions, conditions and references on real engines, each with a namespace of its own."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ippmpi as ipp
from clusters import defined, running
from helpers import eventually

N = 3


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ipp.Cluster, ipp.Client]]:
    with running(tmp_path_factory.mktemp("profile"), N, "local") as both:
        yield both


@pytest.fixture
def cluster(both: tuple[ipp.Cluster, ipp.Client]) -> ipp.Cluster:
    return both[0]


@pytest.fixture
def rc(both: tuple[ipp.Cluster, ipp.Client]) -> ipp.Client:
    client = both[1]
    client[:].clear(block=True)
    client[:].scatter("n", client.ids, flatten=True, block=True)
    return client


# --- references ---


def test_each_engine_uses_its_own_value_of_a_reference(rc: ipp.Client) -> None:
    ranks = rc[:]
    n = ipp.Reference("n")
    assert ranks.apply_sync(lambda x: x + 1, n) == [1, 2, 3]
    assert ranks.apply_sync(lambda d, k: d["a"][0] * k, {"a": [n]}, k=n) == [0, 1, 4]
    ranks["f"] = defined("f = lambda *args: sum(args) + n").f
    assert ranks.apply_sync(ipp.Reference("f"), 10, ipp.Reference("n * 100")) == [10, 111, 212]
    assert ranks.map_sync(ipp.Reference("f"), [1, 1, 1]) == [1, 2, 3]
    ranks.push({"copied": ipp.Reference("n + 0.5")}, block=True)
    assert ranks["copied"] == [0.5, 1.5, 2.5]


def test_a_balanced_task_uses_the_value_of_its_engine(rc: ipp.Client) -> None:
    view = rc.load_balanced_view()
    result = view.apply_async(lambda x: x, ipp.Reference("n"))
    assert result.get(10) == result.engine_id
    assert set(view.map_sync(lambda x, _: x, [ipp.Reference("n")] * 6, range(6))) <= set(rc.ids)


def test_a_reference_to_nothing_is_a_remote_name_error(rc: ipp.Client) -> None:
    with pytest.raises(ipp.RemoteError, match="NameError") as caught:
        rc[1].apply_sync(abs, ipp.Reference("missing"))
    assert caught.value.engine_info["engine_id"] == 1


# --- conditions ---

CONDITIONS = defined("""
    import ippmpi as ipp

    def is_n(wanted):
        return n == wanted

    @ipp.depend(is_n, 2)
    def only_on_two(x):
        return n, x

    @ipp.depend(is_n, 17)
    def nowhere():
        return n

    @ipp.require("no_such_module")
    def needs_more():
        return 1

    @ipp.require("fractions", helper=abs)
    def needs():
        return str(fractions.Fraction(1, 2)), helper(-1)
""")


def test_a_task_runs_only_where_its_condition_holds(rc: ipp.Client) -> None:
    view = rc.load_balanced_view()
    results = [view.apply_async(CONDITIONS.only_on_two, x) for x in range(6)]
    assert [result.get(10) for result in results] == [(2, x) for x in range(6)]
    assert {result.engine_id for result in results} == {2}


@pytest.mark.parametrize("options", [{}, {"chunksize": 2}, {"chunksize": 2, "return_exceptions": True}])
def test_a_map_runs_only_where_its_condition_holds(rc: ipp.Client, options: dict[str, Any]) -> None:
    view = rc.load_balanced_view()
    assert view.map_async(CONDITIONS.only_on_two, range(6), **options).get(10) == [(2, x) for x in range(6)]


@pytest.mark.parametrize("f", [CONDITIONS.nowhere, CONDITIONS.needs_more])
def test_a_task_that_no_engine_can_do_fails_instead_of_waiting_for_ever(rc: ipp.Client, f: Any) -> None:
    with pytest.raises(ipp.ImpossibleDependency, match="refused by engines 0-2"):
        rc.load_balanced_view().apply_async(f).get(10)


def test_a_task_goes_where_its_module_is(rc: ipp.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_on_one.py").write_text("def value(): return 'found'\n")
    monkeypatch.syspath_prepend(tmp_path)
    rc[1].execute(f"import sys; sys.path.append({str(tmp_path)!r})", block=True)
    names = defined("""
        import ippmpi as ipp
        import only_on_one

        @ipp.require(only_on_one)
        def f(x):
            return only_on_one.value(), x
    """)
    view = rc.load_balanced_view()
    results = [view.apply_async(names.f, x) for x in range(6)]
    assert [result.get(10) for result in results] == [("found", x) for x in range(6)]
    assert {result.engine_id for result in results} == {1}
    assert view.map_async(names.f, range(6)).get(10) == [("found", x) for x in range(6)]
    monkeypatch.delitem(sys.modules, "only_on_one")


def test_engines_that_were_named_fail_with_the_condition(rc: ipp.Client) -> None:
    with pytest.raises(ipp.CompositeError) as caught:
        rc[:].apply_async(CONDITIONS.only_on_two, 1).get(10)
    assert [(error.ename, error.engine_info["engine_id"]) for error in caught.value.errors] == [
        ("UnmetDependency", 0),
        ("UnmetDependency", 1),
    ]


def test_required_names_are_there(rc: ipp.Client) -> None:
    assert rc[:].apply_sync(CONDITIONS.needs) == [("1/2", 1)] * N


# --- decorated functions ---


def test_remote_and_parallel_functions_of_main(rc: ipp.Client) -> None:
    names: dict[str, Any] = {"__name__": "__main__", "ranks": rc[:], "ipp": ipp}
    source = """
@ranks.remote(block=True)
def where(x):
    return n + x

@ipp.parallel(ranks, dist="r", block=True)
def with_n(piece):
    return [(x, n) for x in piece]

@ipp.remote(ranks, block=True)
@ipp.require("math")
def rooted(x):
    return math.sqrt(x)
"""
    exec(source, names)
    assert names["where"](10) == [10, 11, 12]
    assert names["with_n"](list(range(5))) == [(0, 0), (1, 1), (2, 2), (3, 0), (4, 1)]
    assert names["rooted"](4) == [2.0] * N


# --- imports ---


def test_imports_happen_on_the_engines_too(rc: ipp.Client) -> None:
    ranks = rc[:]
    names: dict[str, Any] = {"__name__": "__main__", "ranks": ranks}
    source = """
with ranks.sync_imports(quiet=True):
    import fractions as fr, xml.dom
    from decimal import Decimal as D
"""
    exec(source, names)
    assert (
        ranks.pull("str(fr.Fraction(1, 2)), str(D(3)), xml.dom.__name__", block=True) == [("1/2", "3", "xml.dom")] * N
    )
    assert str(names["fr"].Fraction(1, 3)) == "1/3"


# --- what a view knows of its calls ---


def test_values_of_a_view_are_found_by_id_and_by_position(rc: ipp.Client) -> None:
    view = rc[1]
    for value in range(3):
        view.apply_async(abs, -value)
    assert view.wait(timeout=10)
    assert list(view.results) == view.history
    assert [view.results[task] for task in view.history] == [0, 1, 2]
    assert view.get_result(-2).get(10) == 1
    assert view.queue_status()["completed"] >= 3


def test_a_view_has_its_own_results_forgotten(rc: ipp.Client) -> None:
    view, other = rc[1], rc[1]
    tasks = [view.apply_async(abs, -value) for value in range(3)]
    kept = other.apply_async(abs, -7)
    assert rc.wait([*tasks, kept], timeout=10)
    view.purge_results("all")
    with pytest.raises(LookupError):
        view.get_result(0)
    assert other.get_result().get(10) == 7


HELD = defined("""
    def held(file):
        import pathlib, time
        print("started", flush=True)
        while not pathlib.Path(file).exists():
            time.sleep(0.01)
        return 1
""")


def test_a_view_aborts_what_has_not_started(rc: ipp.Client, tmp_path: Path) -> None:
    view, other = rc[0], rc[0]
    running = view.apply_async(HELD.held, str(tmp_path / "go"))
    eventually(lambda: "started" in running.stdout)
    waiting = [view.apply_async(abs, -1) for _ in range(3)]
    kept = other.apply_async(abs, -2)
    view.abort(block=True)
    for result in waiting:
        with pytest.raises(ipp.TaskAborted):
            result.get(10)
    (tmp_path / "go").touch()
    assert (running.get(10), kept.get(10)) == (1, 2)


# --- picklers ---


@pytest.fixture
def dilled(rc: ipp.Client) -> Iterator[ipp.Client]:
    pytest.importorskip("dill", reason="dill is not installed (make install)")
    assert rc[:].use_dill().get(10) == [None] * N
    yield rc
    rc[:].use_pickle().get(10)


LOCKS = defined("""
    import threading

    def lock_of(held):
        lock = threading.Lock()
        if held.locked():
            lock.acquire()
        return lock
""")


def locked() -> Any:
    lock = threading.Lock()
    lock.acquire()
    return lock


def test_dill_pickles_arguments_and_results_of_all_kinds_of_calls(dilled: ipp.Client) -> None:
    ranks, view = dilled[:], dilled.load_balanced_view()
    for lock in (
        *ranks.apply_sync(LOCKS.lock_of, locked()),
        view.apply_sync(LOCKS.lock_of, locked()),
        *ranks.map_sync(LOCKS.lock_of, [locked()] * 3),
        *view.map_sync(LOCKS.lock_of, [locked()] * 50),
        *view.map_sync(LOCKS.lock_of, [locked()] * 5, chunksize=2),
        *view.imap(LOCKS.lock_of, [locked()] * 5),
    ):
        assert lock.locked()
    ranks.push({"lock": locked()}, block=True)
    assert all(lock.locked() for lock in ranks["lock"])
    ranks.scatter("locks", [locked()] * N, block=True)
    assert len(ranks.gather("locks", block=True)) == N
    assert ranks.apply_sync(defined("f = lambda: n").f) == [0, 1, 2]


def test_other_clients_do_not_notice_that_one_uses_dill(dilled: ipp.Client, cluster: ipp.Cluster) -> None:
    with cluster.connect_client_sync() as other:
        assert other.wait_for_engines(N, timeout=10) is None
        with pytest.raises(ipp.RemoteError, match="lock"):
            other[0].apply_sync(threading.Lock)
    assert not dilled[0].apply_sync(threading.Lock).locked()


def test_with_cloudpickle_functions_get_the_globals_of_the_client(rc: ipp.Client) -> None:
    rc[:].push({"x": 1}, block=True)
    f = defined("x = 2\nf = lambda: x").f
    view = rc.load_balanced_view(block=True)
    assert rc[:].apply_sync(f) == [1] * N
    assert view.use_cloudpickle() == [None] * N
    assert rc[:].apply_sync(f) == [2] * N
    assert view.use_pickle() == [None] * N
    assert rc[:].apply_sync(f) == [1] * N


def test_an_engine_without_dill_says_so_and_the_client_goes_on(rc: ipp.Client) -> None:
    pytest.importorskip("dill", reason="dill is not installed (make install)")
    hide = "import sys, ippmpi.wire.picklers as p; p._dill_pickler.cache_clear(); sys.modules['dill'] = None"
    rc[1].execute(hide, block=True)
    try:
        view = rc[:]
        view.block = True
        with pytest.raises(ipp.CompositeError) as caught:
            view.use_dill()
        (error,) = caught.value.errors
        assert error.engine_info["engine_id"] == 1
        assert "dill is not installed here: pip install dill" in error.evalue
        assert view.apply(abs, -1) == [1] * N
    finally:
        rc[1].execute("import sys; del sys.modules['dill']", block=True)
