"""Why results are not there yet, on a real cluster: what the controller says is what engines do."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import ippmpi as ipp
from clusters import defined, running
from helpers import eventually
from ippmpi import connection
from ippmpi.cli import dispatch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("profile")


@pytest.fixture(scope="module")
def rc(folder: Path) -> Iterator[ipp.Client]:
    with running(folder, 2, "local") as (_, rc):
        yield rc


MAIN = defined("""
    def wait(path):
        import os, time
        while not os.path.exists(path):
            time.sleep(0.01)

    def hold_the_gil(seconds, begun):
        import ctypes
        open(begun, "w").close()
        ctypes.PyDLL(None).usleep(int(seconds * 1e6))

    def fail():
        raise ValueError("no")
""")


def test_what_runs_and_what_is_behind_it_on_which_rank(rc: ipp.Client, tmp_path: Path) -> None:
    end = tmp_path / "end"
    slow = rc.direct_view([0], label="slow").apply_async(MAIN.wait, str(end))
    later = rc[:].apply_async(MAIN.wait, str(end))
    try:
        (runs,) = slow.explain()
        assert (runs.state, runs.engines, runs.label, runs.function) == ("running", [0], "slow", "wait")
        queued, beside = sorted(later.explain(), key=lambda why: why.engines)
        assert (queued.state, queued.engines) == ("queued", [0])
        assert f"is behind wait() 'slow' ({slow.msg_ids[0]}), which has run for " in queued.text
        assert (beside.state, beside.engines) == ("running", [1])
    finally:
        end.touch()
    later.get(10)
    assert [why.state for why in later.explain()] == ["done"]


def test_tasks_wait_for_others_for_engines_and_behind_each_other(rc: ipp.Client, tmp_path: Path) -> None:
    end = tmp_path / "end"
    lbv = rc.load_balanced_view()
    lbv.map_sync(time.sleep, [0.03] * 8, chunksize=1)  # to engines whose tasks are short, some would be handed ahead
    first = [lbv.apply_async(MAIN.wait, str(end)) for _ in range(2)]
    second, third = lbv.apply_async(abs, 1), lbv.apply_async(abs, 2)
    with lbv.temp_flags(after=first[0]):
        dependent = lbv.apply_async(abs, 3)
    try:
        (why,) = third.explain()
        assert why.why == "engines busy"
        assert "all engines are busy with wait() (" in why.text
        assert "1 task before it" in why.text
        assert why.details is not None
        assert why.details.count == 2
        (why,) = dependent.explain()
        assert f"waits for wait() ({first[0].msg_ids[0]}), which has run for " in why.text
        with ipp.Client(connection.path(Path(rc.cluster.profile_dir), "client")) as other:  # type: ignore[union-attr]
            everything = other.explain()
            assert {why.task for why in everything} == {ar.msg_ids[0] for ar in (*first, second, third, dependent)}
            assert [why.state for why in everything] == ["waiting"] * 3 + ["running"] * 2
    finally:
        end.touch()
    assert [ar.get(10) for ar in (second, third, dependent)] == [1, 2, 3]


def test_the_answer_comes_while_all_ranks_hold_the_gil(rc: ipp.Client, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    ar = rc[:].apply_async(MAIN.hold_the_gil, 2.0, str(begun))
    eventually(begun.exists)
    time_of_answer = time.monotonic()
    (why,) = ar.explain()
    assert time.monotonic() - time_of_answer < 1
    assert (why.state, why.engines) == ("running", [0, 1])
    ar.get(10)


def test_a_dependency_that_failed_names_the_rank(rc: ipp.Client, tmp_path: Path) -> None:
    end = tmp_path / "end"
    lbv = rc.load_balanced_view([1])
    gate, bad = lbv.apply_async(MAIN.wait, str(end)), lbv.apply_async(MAIN.fail)
    with lbv.temp_flags(after=bad):
        never = lbv.apply_async(abs, 1)
    end.touch()
    gate.get(10)
    with pytest.raises(ipp.ImpossibleDependency, match=rf"task {bad.msg_ids[0]} failed on engine 1 \(rank 1 of "):
        never.get(10)
    (why,) = never.explain()
    assert "failed on engine 1" in why.text


def test_the_status_command_says_why(
    rc: ipp.Client, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    end = tmp_path / "end"
    options = ["status", "--profile-dir", str(folder)]
    assert dispatch.run("ipcluster", ("cluster",), [*options, "--why"]) == 0
    assert capsys.readouterr().out.endswith("nothing is pending\n")
    slow = rc.direct_view(0, label="slow").apply_async(MAIN.wait, str(end))
    try:
        assert dispatch.run("ipcluster", ("cluster",), [*options, "--why"]) == 0
        assert f"running  'slow' ({slow.msg_ids[0]}) has run for " in capsys.readouterr().out
        assert dispatch.run("ipcluster", ("cluster",), [*options, "--why", "-o", "json"]) == 0
        (why,) = json.loads(capsys.readouterr().out)["why"]
        assert (why["task"], why["why"], why["label"], why["engines"]) == (slow.msg_ids[0], "runs", "slow", [[0, 0]])
    finally:
        end.touch()
    slow.get(10)
