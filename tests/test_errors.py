from __future__ import annotations

import pickle
import traceback
from datetime import UTC, datetime, timedelta

import pytest

import ippmpi as ipp
import ippmpi.error
from ippmpi import util

INFO: dict[str, object] = {"engine_id": 3, "rank": 1, "host": "c1"}


def remote(name: str = "ValueError", engine: int = 0) -> ipp.RemoteError:
    text = f"Traceback (most recent call last):\n  in f\n{name}: no"
    return ipp.RemoteError(name, "no", text, {"engine_id": engine, "rank": engine, "host": "c1"})


def test_an_error_says_where_it_happened() -> None:
    error = ipp.RemoteError("ValueError", "no", "Traceback ...", INFO)
    assert str(error) == "[engine 3 (rank 1 on c1)] ValueError: no"
    assert (error.rank, error.host) == (1, "c1")
    lost = ipp.RemoteError("EngineError", "gone")
    assert (lost.rank, lost.host, str(lost)) == (None, "", "[controller] EngineError: gone")


def test_the_remote_traceback_is_shown_once_by_python() -> None:
    shown = "".join(traceback.format_exception(remote()))
    assert shown.count("in f") == 1
    assert "--- on engine 0 (rank 0 on c1) ---\nTraceback (most recent call last):\n  in f" in shown


def test_the_remote_traceback_is_printed_on_demand(capsys: pytest.CaptureFixture[str]) -> None:
    remote().print_traceback()
    assert capsys.readouterr().out.splitlines()[:2] == [
        "[engine 0 (rank 0 on c1)]",
        "Traceback (most recent call last):",
    ]


def test_a_composite_is_a_group_of_flat_errors() -> None:
    inner = ipp.CompositeError("inner", [remote("KeyError", 1), remote("ValueError", 2)])
    error = ipp.CompositeError("3 of 4", [remote(), inner])
    assert isinstance(error, ExceptionGroup)
    assert [e.ename for e in error.errors] == ["ValueError", "KeyError", "ValueError"]
    assert error.elist[1] == ("KeyError", "no", inner.errors[0].traceback, inner.errors[0].engine_info)
    assert str(error).splitlines()[0] == "3 of 4"
    assert error.ename == "CompositeError"
    with pytest.raises(ipp.RemoteError, match=r"engine 1 .*KeyError: no"):
        raise error


def test_parts_of_a_composite_are_composites() -> None:
    error = ipp.CompositeError("3 of 4", [remote("A", 0), remote("B", 1), remote("A", 2)])
    some, others = error.split(lambda e: isinstance(e, ipp.RemoteError) and e.ename == "A")
    assert isinstance(some, ipp.CompositeError)
    assert [e.engine_info["engine_id"] for e in some.errors] == [0, 2]
    assert isinstance(others, ipp.CompositeError)
    assert len(others.errors) == 1


def test_one_failure_of_a_composite_is_raised_or_shown(capsys: pytest.CaptureFixture[str]) -> None:
    error = ipp.CompositeError("2 of 4", [remote("A", 0), remote("B", 1)])
    with pytest.raises(ipp.RemoteError, match=r"engine 1.*B: no"):
        error.raise_exception(1)
    with pytest.raises(ipp.RemoteError, match=r"engine 0.*A: no"):
        error.raise_exception()
    with pytest.raises(IndexError, match="no failure 2; there are 2"):
        error.raise_exception(2)
    assert error.render_traceback(1) == error.errors[1].render_traceback()
    error.print_traceback(0)
    assert capsys.readouterr().out.startswith("[engine 0 (rank 0 on c1)]\nTraceback")
    assert len([line for line in error.render_traceback() if line.startswith("[engine")]) == 2


def test_a_large_composite_shows_the_first_failures_and_counts_the_rest() -> None:
    error = ipp.CompositeError("10 of 10", [remote(engine=i) for i in range(10)])
    assert str(error).count("ValueError") == error.tb_limit == 4
    assert str(error).endswith("... and 6 more")
    assert error.render_traceback()[-1] == "... and 6 more"


def test_errors_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(remote()))
    assert (error.ename, error.traceback, error.engine_info) == (
        "ValueError",
        remote().traceback,
        remote().engine_info,
    )
    assert error.__notes__ == remote().__notes__
    group = pickle.loads(pickle.dumps(ipp.CompositeError("2 of 4", [remote(), remote()])))
    assert isinstance(group, ipp.CompositeError)
    assert group.evalue == "2 of 4"
    assert len(group.errors) == 2


def test_the_names_that_users_of_ipyparallel_know_mean_what_they_meant() -> None:
    assert issubclass(ipp.RemoteError, ipp.KernelError)
    assert issubclass(ipp.EngineError, ipp.IPythonError)
    assert issubclass(ipp.TaskTimeout, ipp.DependencyTimeout)
    assert issubclass(ipp.TaskRejectError, ipp.UnmetDependency)
    for name in ippmpi.error.__all__:
        assert getattr(ippmpi.error, name) is getattr(ipp, name)


def test_errors_among_results_are_collected() -> None:
    assert ipp.collect_exceptions([1, 2]) == [1, 2]
    assert ipp.collect_exceptions({0: "a"}) == {0: "a"}
    with pytest.raises(ipp.CompositeError, match="1 of 2 results of apply are errors") as raised:
        ipp.collect_exceptions({0: 1, 1: remote()}, "apply")
    assert [e.ename for e in raised.value.errors] == ["ValueError"]
    nested = ipp.CompositeError("two", [remote(), remote("KeyError")])
    with pytest.raises(ipp.CompositeError) as raised:
        ipp.collect_exceptions([nested, remote()])
    assert len(raised.value.elist) == 3


def test_an_exception_is_wrapped_and_unwrapped() -> None:
    try:
        raise KeyError("a")
    except KeyError:
        content = ipp.wrap_exception(INFO)
    assert content["status"] == "error"
    error = ipp.unwrap_exception(content)
    assert (error.ename, error.evalue, error.engine_info) == ("KeyError", "'a'", INFO)
    assert error.traceback.startswith("Traceback (most recent call last):")
    with pytest.raises(RuntimeError, match="except block"):
        ipp.wrap_exception()


def test_the_version_is_also_a_tuple() -> None:
    assert ".".join(map(str, ipp.version_info)) == ipp.__version__


def test_util_has_what_people_import_from_it() -> None:
    assert util.interactive is ipp.interactive
    now = util.utcnow()
    assert now.utcoffset() == timedelta(0)
    assert abs(now - datetime.now(UTC)) < timedelta(seconds=5)
