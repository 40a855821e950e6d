"""Results that are cached: in a real cluster, over sessions and controllers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ippmpi as ipp
from clusters import defined, running
from helpers import eventually

WORK = defined("""
    import os, time

    def noted(x, folder, pause_s=0.0):
        open(os.path.join(folder, f"{x}-{os.getpid()}-{time.monotonic_ns()}"), "w").close()
        time.sleep(pause_s)
        if x < 0:
            raise ValueError(f"{x} is negative")
        return x * 10

    def array(n):
        import numpy
        return numpy.arange(n)

    def total(path):
        return sum(map(float, open(path).read().split()))
""")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("caching")


@pytest.fixture(scope="module")
def cluster(place: Path) -> Iterator[tuple[ipp.Cluster, ipp.Client]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPPMPI_CONTROLLER_CACHE_DIR", str(place))
        with running(place / "profile", 2, "local") as both:
            yield both


@pytest.fixture
def rc(cluster: tuple[ipp.Cluster, ipp.Client]) -> ipp.Client:
    cluster[1].cache.clear()
    return cluster[1]


@pytest.fixture
def view(rc: ipp.Client) -> Any:
    return rc.load_balanced_view(cache=True)


@pytest.fixture
def notes(tmp_path: Path) -> str:
    (tmp_path / "notes").mkdir()
    return str(tmp_path / "notes")


def runs(notes: str) -> int:
    return len(os.listdir(notes))


# --- views ---------------------------------------------------------------------------------------


def test_an_equal_call_is_answered_without_running_it(view: Any, notes: str) -> None:
    first = view.apply_async(WORK.noted, 1, notes)
    assert first.get(10) == 10
    second = view.apply_async(WORK.noted, 1, notes)
    assert second.get(10) == 10
    assert (runs(notes), first.cached, second.cached) == (1, False, True)
    assert second.metadata.cached
    assert second.engine_id is None
    assert second.serial_time == 0
    assert view.apply_sync(WORK.noted, 2, notes) == 20
    assert runs(notes) == 2


def test_a_remote_function_with_a_cache(rc: ipp.Client, notes: str) -> None:
    plain = rc.load_balanced_view()
    cached = plain.remote(block=True, cache=True)(WORK.noted)
    assert [cached(1, notes), cached(1, notes)] == [10, 10]
    assert runs(notes) == 1
    assert plain.apply_sync(WORK.noted, 1, notes) == 10
    assert runs(notes) == 2, "the view itself does not cache"


def test_a_map_runs_only_the_items_that_are_new(rc: ipp.Client, notes: str) -> None:
    view = rc.load_balanced_view()
    assert view.map_sync(WORK.noted, range(5), [notes] * 5, cache=True) == [0, 10, 20, 30, 40]
    longer = view.map(WORK.noted, range(3, 8), [notes] * 5, cache=True)
    assert longer.get(10) == [30, 40, 50, 60, 70]
    assert longer.cached == [True, True, False, False, False]
    assert runs(notes) == 8


def test_chunks_of_a_map_are_cached_as_they_are(rc: ipp.Client, notes: str) -> None:
    view = rc.load_balanced_view()
    for _ in range(2):
        result = view.map(WORK.noted, range(6), [notes] * 6, cache=True, chunksize=3)
        assert result.get(10) == [0, 10, 20, 30, 40, 50]
    assert result.cached == [True, True]
    assert runs(notes) == 6


def test_failures_are_not_cached_and_spare_the_other_items(view: Any, notes: str) -> None:
    for count in (3, 4):
        result = view.map(WORK.noted, [1, -1, 2], [notes] * 3, return_exceptions=True)
        values = result.get(10)
        assert (values[0], values[2]) == (10, 20)
        assert isinstance(values[1], ipp.RemoteError)
        assert runs(notes) == count
    with pytest.raises(ValueError, match="-1 is negative"):
        view.apply_sync(WORK.noted, -1, notes)


def test_imap_and_parallel_functions_and_executors_cache_too(view: Any, notes: str) -> None:
    for _ in range(2):
        assert list(view.imap(WORK.noted, range(3), [notes] * 3)) == [0, 10, 20]
    assert runs(notes) == 3
    for _ in range(2):
        assert view.executor.submit(WORK.noted, 7, notes).result(10) == 70
    assert runs(notes) == 4
    sizes = view.parallel(block=True, chunksize=2)(len)
    assert sizes([1, 2, 3]) == sizes([1, 2, 3]) == [2, 1]
    assert len(view.client.cache.list("builtins.len")) == 2


def test_equal_calls_at_the_same_time_run_once(view: Any, notes: str) -> None:
    results = [view.apply_async(WORK.noted, 3, notes, 0.3) for _ in range(20)]
    assert [result.get(10) for result in results] == [30] * 20
    assert runs(notes) == 1
    assert [result.cached for result in results] == [False] + [True] * 19


def test_large_values_are_cached_whole(view: Any) -> None:
    for cached in (False, True, True):
        result = view.apply_async(WORK.array, 500_000)
        np.testing.assert_array_equal(result.get(20), np.arange(500_000))
        assert result.cached is cached
        result.get()[0] = 1  # it is the caller's own


def test_declared_files_and_versions(rc: ipp.Client, tmp_path: Path) -> None:
    data = tmp_path / "data.txt"
    view = rc.load_balanced_view()

    def cached(**options: Any) -> bool:
        with view.temp_flags(cache=ipp.Cache(files=[data], **options)):
            result = view.apply_async(WORK.total, str(data))
        assert result.get(10) == sum(map(float, data.read_text().split()))
        return bool(result.cached)

    data.write_text("1 2 3")
    assert [cached(), cached()] == [False, True]
    data.write_text("1 2 3 4")
    assert [cached(), cached()] == [False, True]
    assert [cached(version=2), cached(version=2), cached()] == [False, True, True]


def test_a_call_that_has_no_key_is_an_error_at_once(view: Any) -> None:
    with pytest.raises(ipp.UncacheableError, match="argument 0: <Reference 'x'>"):
        view.apply_async(abs, ipp.Reference("x"))
    assert view.client.load_balanced_view().apply_sync(abs, -1) == 1


def test_what_goes_on_around_a_task_cannot_be_cached(rc: ipp.Client, view: Any) -> None:
    with view.temp_flags(after=[view.apply_async(abs, -1)]), pytest.raises(ValueError, match="does not go with after="):
        view.apply_async(abs, -2)
    with pytest.raises(KeyError, match=r"DirectView has no flag 'cache'; .*load_balanced_view only"):
        rc[:].set_flags(cache=True)
    with pytest.raises(TypeError, match="has no option 'cache'"):
        rc[:].map(abs, [1], cache=True)
    with pytest.raises(TypeError, match="cache= must be True"):
        view.map(abs, [1], cache="yes")


def test_a_task_that_is_resubmitted_runs(rc: ipp.Client, view: Any, notes: str) -> None:
    result = view.apply_async(WORK.noted, 1, notes)
    result.get(10)
    again = rc.resubmit(result)
    assert again.get(10) == 10
    assert runs(notes) == 2


# --- looking and dropping ------------------------------------------------------------------------


def test_what_is_cached_can_be_seen_and_dropped(rc: ipp.Client, view: Any, notes: str, place: Path) -> None:
    for x in (1, 2, 2):
        view.apply_sync(WORK.noted, x, notes)
    view.apply_sync(abs, -1)
    first, *rest = rc.cache.list()
    assert (first.name, first.hits, {entry.name for entry in rest}) == ("builtins.abs", 0, {"noted"})
    assert [entry.hits for entry in rc.cache.list(WORK.noted)] == [1, 0]
    assert rc.cache.list("noted", limit=1)[0].used >= first.created - (first.created - rest[0].used)
    counts = rc.cache.counts()
    assert (counts["entries"], counts["most_entries"], counts["folder"]) == (3, 100_000, str(place / "ippmpi-cache"))
    assert len(rc.cache) == 3
    assert rc.cache
    assert rc.cache.drop(WORK.noted) == 2
    assert rc.cache.drop(first, "no such key") == 1
    with pytest.raises(TypeError, match=r"drop\(\) needs keys"):
        rc.cache.drop(1.5)
    assert rc.cache.list() == []
    view.apply_sync(WORK.noted, 1, notes)
    assert rc.cache.clear() == 1
    assert "list()" in repr(rc.cache)


def command(cluster: ipp.Cluster, *argv: str) -> subprocess.CompletedProcess[str]:
    options = ("--profile-dir", str(cluster.profile_dir), "--cluster-id", cluster.cluster_id)
    argv = (sys.executable, "-Pm", "ippmpi.cli", "cluster", "cache", *argv, *options)
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_line_shows_and_drops_what_is_cached(
    cluster: tuple[ipp.Cluster, ipp.Client], view: Any, notes: str
) -> None:
    view.map_sync(WORK.noted, [1, 2], [notes] * 2)
    view.apply_sync(abs, -1)
    shown = command(cluster[0], "list").stdout
    assert shown.startswith("KEY ")
    assert shown.count("noted") == 2
    assert "\n3 results, 0.0 MB in " in shown
    (entry,) = json.loads(command(cluster[0], "list", "builtins.abs", "-o", "json").stdout)
    assert (entry["name"], entry["hits"]) == ("builtins.abs", 0)
    assert command(cluster[0], "drop", entry["key"]).stdout == "dropped: 1\n"
    assert "drop needs the names of functions" in command(cluster[0], "drop").stderr
    assert command(cluster[0], "clear").stdout == "dropped: 2\n"
    assert len(view.client.cache) == 0


# --- sessions ------------------------------------------------------------------------------------

SESSION = """
import sys
import ippmpi as ipp
{moved}
OFFSETS = {{"a", "b", "c", "d"}}

def shift(x):
    return x + len(OFFSETS)

def simulate(x, names=frozenset({{"p", "q", "r"}})):
    return shift(x) * len(names)

with ipp.Client(profile_dir=sys.argv[1], cluster_id=sys.argv[2]) as rc:
    view = rc.load_balanced_view()
    with view.temp_flags(cache=True):
        result = view.apply_async(simulate, 3)
    print(result.get(10), result.cached)
"""


def session(cluster: ipp.Cluster, seed: str, moved: str = "") -> str:
    """Make the call in another process, with other hashes, and the functions further below."""
    argv = [sys.executable, "-Pc", SESSION.format(moved=moved), str(cluster.profile_dir), cluster.cluster_id]
    done = subprocess.run(
        argv, env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_another_session_finds_what_the_first_one_has_computed(
    cluster: tuple[ipp.Cluster, ipp.Client], rc: ipp.Client
) -> None:
    assert session(cluster[0], "1") == "21 False"
    assert session(cluster[0], "2", moved="\n# a line more\n") == "21 True"
    assert [entry.name for entry in rc.cache.list()] == ["simulate"]


def test_results_outlive_the_controller_and_are_found_without_an_engine(
    tmp_path: Path, notes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPPMPI_CONTROLLER_CACHE_DIR", str(tmp_path))
    with running(tmp_path / "one", 1, "local") as (_, rc):
        view = rc.load_balanced_view(cache=True)
        assert view.map_sync(WORK.noted, [1, 2], [notes] * 2) == [10, 20]
        assert view.apply_sync(WORK.array, 100_000).sum() == 4_999_950_000
    with running(tmp_path / "two", 1, "local") as (cluster, rc):
        cluster.stop_engines_sync()
        eventually(lambda: not rc.ids, 10, "the engines have left")
        with rc.load_balanced_view().temp_flags(cache=True) as view:
            assert view.map_sync(WORK.noted, [1, 2], [notes] * 2) == [10, 20]
            assert view.apply_sync(WORK.array, 100_000).sum() == 4_999_950_000
            with pytest.raises(ipp.NoEnginesRegistered, match="no result is cached"):
                view.apply_sync(WORK.noted, 3, notes)
        with pytest.raises(ipp.NoEnginesRegistered):
            rc.load_balanced_view().apply(WORK.noted, 1, notes)
    assert runs(notes) == 2


def test_a_controller_that_is_killed_and_started_again_still_has_them_and_equal_tasks_run_once(
    tmp_path: Path, notes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPPMPI_CONTROLLER_CACHE_DIR", str(tmp_path))
    with running(tmp_path / "profile", 2, "local") as (cluster, rc):
        view = rc.load_balanced_view(cache=True)
        assert view.apply_sync(WORK.noted, 1, notes) == 10
        running_ones = [view.apply_async(WORK.noted, 2, notes, 1.0) for _ in range(5)]
        eventually(lambda: runs(notes) == 2, 10, "one of them runs")
        process = cluster.controller
        assert process is not None
        os.kill(process.identity.pid, signal.SIGKILL)
        eventually(lambda: process.poll() is not None)
        cluster.restore_controller_sync()
        assert [result.get(20) for result in running_ones] == [20] * 5
        again = view.apply_async(WORK.noted, 1, notes)
        assert again.get(20) == 10
        assert again.cached
        assert runs(notes) == 2


def test_a_cached_result_of_another_client_is_fetched_like_any_other(
    cluster: tuple[ipp.Cluster, ipp.Client], view: Any, notes: str
) -> None:
    view.apply_sync(WORK.noted, 1, notes)
    task = view.apply_async(WORK.noted, 1, notes)
    task.get(10)
    with cluster[0].connect_client_sync() as other:
        result = other.get_result(task.msg_ids[0])
        assert result.get(10) == 10
        assert result.cached
