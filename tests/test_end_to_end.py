"""What a user does with four MPI ranks: calls, state, names, output. One real cluster for all of it."""

from __future__ import annotations

import concurrent.futures
import os
import re
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ippmpi as ipp
from clusters import defined, running
from helpers import eventually

pytestmark = pytest.mark.mpi

N = 4


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ipp.Cluster]:
    with running(tmp_path_factory.mktemp("profile"), N) as (cluster, _):
        yield cluster


@pytest.fixture
def rc(cluster: ipp.Cluster) -> Iterator[ipp.Client]:
    client = cluster.connect_client_sync()
    client.wait_for_engines(N, timeout=10)
    client[:].clear(block=True)
    yield client
    client.close()


MPI = defined("""
    def rank():
        from mpi4py import MPI
        return MPI.COMM_WORLD.rank

    def allreduce(value):
        from mpi4py import MPI
        return MPI.COMM_WORLD.allreduce(value)

    def neighbours_rank():
        from mpi4py import MPI
        comm = MPI.COMM_WORLD
        return comm.sendrecv(comm.rank, (comm.rank + 1) % comm.size, source=(comm.rank - 1) % comm.size)
""")


# --- calls ---


def test_engine_ids_are_ranks(rc: ipp.Client) -> None:
    assert rc.ids == list(range(N))
    assert rc[:].apply_sync(MPI.rank) == list(range(N))


def test_an_int_gives_a_value_and_a_list_or_slice_gives_a_list(rc: ipp.Client) -> None:
    assert rc[2].apply_sync(MPI.rank) == 2
    assert rc[-1].apply_sync(MPI.rank) == N - 1
    assert rc[[3, 1]].apply_sync(MPI.rank) == [3, 1]
    assert rc[1:2].apply_sync(MPI.rank) == [1]
    assert [view.apply_sync(MPI.rank) for view in rc] == list(range(N))


def test_arguments_and_keywords_arrive(rc: ipp.Client) -> None:
    assert rc[:].apply_sync(lambda a, *, b: a - b, 5, b=3) == [2] * N


def test_ranks_message_each_other(rc: ipp.Client) -> None:
    assert rc[:].apply_sync(MPI.neighbours_rank) == [(rank - 1) % N for rank in range(N)]
    assert rc[:].apply_sync(MPI.allreduce, 2) == [2 * N] * N


def test_maps_keep_the_order_of_their_input(rc: ipp.Client) -> None:
    squares = [x * x for x in range(23)]
    assert rc[:].map_sync(lambda x: x * x, range(23)) == squares
    balanced = rc.load_balanced_view()
    assert balanced.map_sync(lambda x: x * x, range(23)) == squares
    assert balanced.map_sync(lambda x: x * x, range(23), chunksize=5) == squares
    assert list(balanced.imap(lambda x: x * x, iter(range(23)))) == squares


def test_a_map_sends_many_short_items_together_and_long_ones_alone(rc: ipp.Client) -> None:
    balanced = rc.load_balanced_view()
    result = balanced.map_async(lambda x: -x, range(20_000))
    assert result.get(30) == [-i for i in range(20_000)]
    assert len(result.msg_ids) < 2000
    balanced.map_sync(lambda _: __import__("time").sleep(0.01), range(4))
    slow = balanced.map_async(lambda _: __import__("time").sleep(0.03), range(40))
    assert slow.get(30) == [None] * 40
    assert len(slow.msg_ids) == 40


def test_the_item_of_a_map_that_failed_is_named_and_the_others_are_there(rc: ipp.Client) -> None:
    result = rc.load_balanced_view().map_async(lambda x: 1 // (x - 1234), range(3000))
    with pytest.raises(ipp.CompositeError, match="1 of 3000 results of map") as caught:
        result.get(30)
    assert re.search(r"rank \d on \S+\), item 1234\] ZeroDivisionError", str(caught.value.errors[0]))
    assert "1 // (x - 1234)" in caught.value.errors[0].traceback or "<lambda>" in caught.value.errors[0].traceback
    assert sum(isinstance(value, int) for value in result.get(return_exceptions=True)) == 2999


def test_a_map_that_is_cancelled_ends_soon(rc: ipp.Client) -> None:
    result = rc.load_balanced_view().map_async(lambda _: __import__("time").sleep(5), range(100))
    assert result.cancel()
    assert result.wait(4)
    assert len(result.get(return_exceptions=True)) == 100


def test_a_result_is_a_future(rc: ipp.Client) -> None:
    results = [rc[rank].apply_async(MPI.rank) for rank in range(N)]
    done, pending = concurrent.futures.wait(results, timeout=10)
    assert (len(done), len(pending)) == (N, 0)
    assert sorted(result.result() for result in done) == list(range(N))


def test_a_task_waits_for_those_it_depends_on(rc: ipp.Client) -> None:
    balanced = rc.load_balanced_view()
    first = balanced.apply_async(os.getpid)
    with balanced.temp_flags(after=first, follow=first):
        second = balanced.apply_async(os.getpid)
    assert second.get(timeout=10) == first.get(timeout=10)


# --- state ---


def test_what_is_pushed_stays_and_can_be_pulled(rc: ipp.Client) -> None:
    ranks = rc[:]
    ranks.push({"a": 1, "b": "two"}, block=True)
    assert ranks.pull(["a", "b"], block=True) == [[1, "two"]] * N
    assert rc[1].pull("a + 10", block=True) == 11
    ranks["c"] = 3
    assert ranks["c"] == [3] * N
    assert ranks.apply_sync(defined("f = lambda: a + 1").f) == [2] * N


def test_a_scattered_array_is_gathered_unchanged(rc: ipp.Client) -> None:
    array = np.arange(103.0)
    rc[:].scatter("part", array, block=True)
    assert rc[:].pull("len(part)", block=True) == [26, 26, 26, 25]
    rc[:].execute(
        "from mpi4py import MPI; import numpy as np\n"
        "total = np.zeros(1); MPI.COMM_WORLD.Allreduce(np.array([part.sum()]), total)",
        block=True,
    )
    assert [float(total[0]) for total in rc[:]["total"]] == [array.sum()] * N
    np.testing.assert_array_equal(rc[:].gather("part", block=True), array)


def test_executed_code_and_files_share_the_namespace(rc: ipp.Client, tmp_path: Path) -> None:
    rc[:].execute("x = 20", block=True)
    (tmp_path / "more.py").write_text("y = x + 1\n", encoding="utf-8")
    rc[:].run(str(tmp_path / "more.py"), block=True)
    assert rc[:]["y"] == [21] * N
    with pytest.raises(ipp.RemoteError, match="NameError"):
        rc[0].execute("no_such_name", block=True)


def test_a_64_mb_array_arrives_whole_and_writable(rc: ipp.Client) -> None:
    array = np.random.default_rng(seed=3).integers(0, 256, 64 * 1024 * 1024, dtype=np.uint8)
    checksum = zlib.crc32(array)
    rc[:].push({"big": array}, block=True)
    there = rc[:].pull("(__import__('zlib').crc32(big), big.flags.writeable)", block=True)
    assert there == [(checksum, True)] * N
    rc[0].execute("big[0] += 1", block=True)
    assert rc[1].pull("__import__('zlib').crc32(big)", block=True) == checksum, "one rank's change reached another"
    back = rc[1]["big"]
    assert back.flags.writeable
    assert zlib.crc32(back) == checksum


# --- functions see the right names ---

EDITED = """
    def helper():
        return {number}

    def call():
        return helper()
"""


def test_an_edited_helper_is_never_stale(rc: ipp.Client) -> None:
    assert rc[:].apply_sync(defined(EDITED.format(number=1)).call) == [1] * N
    assert rc[:].apply_sync(defined(EDITED.format(number=2)).call) == [2] * N


def test_a_pushed_name_is_never_replaced_by_one_that_travels(rc: ipp.Client) -> None:
    scaled = defined("factor = 2\ndef scaled(x):\n    return factor * x").scaled
    rc[:2].push({"factor": 10}, block=True)
    rc[2].execute("factor = 100", block=True)
    assert rc[:].apply_sync(scaled, 1) == [10, 10, 100, 2]
    assert rc[:]["factor"] == [10, 10, 100, 2]


def test_instances_of_main_classes_are_arguments_and_results(rc: ipp.Client) -> None:
    names = defined("""
        class Point:
            def __init__(self, x): self.x = x
            def moved(self, by): return Point(self.x + by)

        def move(point, by):
            return point.moved(by)
    """)
    moved = rc[0].apply_sync(names.move, names.Point(1), by=2)
    assert moved.x == 3
    assert type(moved).__name__ == "Point"


def test_a_missing_module_is_named(rc: ipp.Client) -> None:
    with pytest.raises(ipp.RemoteError, match=__name__.rpartition(".")[2]):
        rc[0].apply_sync(of_this_module)


def of_this_module() -> None:
    """Go by reference: the engines can't import this file."""


# --- output ---

PRINTING = defined("""
    def printing(folder):
        import ctypes, pathlib, sys, time
        libc = ctypes.CDLL(None)
        print("from Python")
        print("an error", file=sys.stderr)
        libc.printf(b"from C %d\\n", 42)
        libc.fflush(None)
        while not pathlib.Path(folder, "go").exists():
            time.sleep(0.01)
        libc.printf(b"late and unflushed\\n")
""")


def test_output_of_python_and_c_arrives_while_the_code_runs(rc: ipp.Client, tmp_path: Path) -> None:
    result = rc[1].apply_async(PRINTING.printing, str(tmp_path))
    eventually(lambda: "from Python" in result.stdout and "from C 42" in result.stdout, what="stdout of running code")
    eventually(lambda: "an error" in result.stderr, what="stderr of running code")
    assert not result.ready()
    (tmp_path / "go").touch()
    result.get(timeout=10)
    result.wait_for_output(timeout=10)
    assert "late and unflushed" in result.stdout


# --- errors that an engine survives ---


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import sys; sys.exit(3)", "SystemExit"),
        ("raise KeyboardInterrupt", "Keyboard"),
    ],
)
def test_code_that_raises_fails_with_rank_and_host_and_hurts_nobody(rc: ipp.Client, code: str, name: str) -> None:
    pids = rc[:].apply_sync(os.getpid)
    failing = defined(f"def failing():\n    {code}").failing
    with pytest.raises(ipp.RemoteError) as caught:
        rc[2].apply_async(failing).get(timeout=10)
    assert caught.value.ename.startswith(name)
    assert caught.value.engine_info["rank"] == 2
    assert caught.value.engine_info["host"] == os.uname().nodename
    assert "failing" in caught.value.traceback
    assert rc[:].apply_sync(os.getpid) == pids


def test_failures_of_several_ranks_come_together(rc: ipp.Client) -> None:
    odd = defined(
        "def odd():\n    from mpi4py import MPI\n    if MPI.COMM_WORLD.rank % 2: raise ValueError(MPI.COMM_WORLD.rank)"
    ).odd
    with pytest.raises(ipp.CompositeError) as caught:
        rc[:].apply_async(odd).get(timeout=10)
    assert [(error.ename, error.evalue) for error in caught.value.errors] == [("ValueError", "1"), ("ValueError", "3")]


# --- several clients ---


def test_collectives_of_two_clients_never_begin_in_different_orders(cluster: ipp.Cluster) -> None:
    rounds, barrier, seen = 200, threading.Barrier(2), {}

    def work(value: int) -> None:
        client = cluster.connect_client_sync()
        client.wait_for_engines(N, timeout=10)
        barrier.wait(timeout=10)
        results: list[Any] = [client[:].apply_async(MPI.allreduce, value) for _ in range(rounds)]
        seen[value] = [result.get(timeout=60) for result in results]
        client.close()

    threads = [threading.Thread(target=work, args=(value,)) for value in (1, 1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=90)
    # mixed up, they would give sums of ones and thousands, or wait for ever
    assert seen == {1: [[N] * N] * rounds, 1000: [[1000 * N] * N] * rounds}
