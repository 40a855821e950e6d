"""Values that stay where they were made: handles, who gets the value for them, and when it goes."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ippmpi as ipp
from chaos.harm import agents
from clusters import defined, running
from helpers import eventually
from ippmpi.wire.handles import Handle

WORK = defined("""
    def made(size, delay_s=0.0):
        import sys, time, weakref
        import numpy
        time.sleep(delay_s)
        array = numpy.arange(size, dtype=float)
        sys.__dict__.setdefault("made_here", []).append((weakref.ref(array), id(array)))
        return array

    def left():
        import sys
        return sum(there() is not None for there, _ in sys.__dict__.get("made_here", ()))

    def ids():
        import sys
        return [number for there, number in sys.__dict__.get("made_here", ()) if there() is not None]

    def which(value):
        return id(value)

    def doubled(value):
        value *= 2
        return value.sum()

    def total(*values):
        return float(sum(value.sum() for value in values))

    def nested(values, *, named):
        return float(sum(value.sum() for value in values) + named["x"].sum())

    def twice(n):
        return 2 * n

    def failing():
        raise ZeroDivisionError("no")

    def with_keep(value, keep="first"):
        return value, keep

    def where(value):
        import os
        return os.getpid(), value.sum()

    def nap(seconds):
        import time
        time.sleep(seconds)

    def unsendable():
        import threading
        return threading.Lock()
""")

LARGE = 1_000_000
"""Numbers of an array that is a large content: 8 MB."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ipp.Cluster, ipp.Client]]:
    """Two worlds: engines 0 and 1 have one agent, engine 2 has another one."""
    with running(tmp_path_factory.mktemp("handles"), 2, "local") as (cluster, rc):
        cluster.start_engines_sync(1, engines="local")
        rc.wait_for_engines(3, timeout=30)
        yield cluster, rc


@pytest.fixture
def rc(cluster: tuple[ipp.Cluster, ipp.Client]) -> Iterator[ipp.Client]:
    _, rc = cluster
    yield rc
    gone(rc)


def gone(rc: ipp.Client, most: int = 0) -> None:
    """Wait until ranks have no more than *most* values each."""
    gc.collect()
    eventually(lambda: max(rc[:].apply_sync(WORK.left)) <= most, what=f"{rc[:].apply_sync(WORK.left)} values are left")


# --- who gets the value --------------------------------------------------------------------------


def test_on_its_own_rank_a_handle_is_the_very_object(rc: ipp.Client) -> None:
    handle = rc[1].apply_sync(WORK.made, 10, keep=True)
    assert rc[1].apply_sync(WORK.which, handle) == rc[1].apply_sync(WORK.ids)[0]
    assert rc[1].apply_sync(WORK.doubled, handle) == rc[1].apply_sync(WORK.total, handle) == 90.0


def test_each_of_several_targets_has_a_handle_of_its_own(rc: ipp.Client) -> None:
    handles = rc[:].apply_sync(WORK.made, 10, keep=True)
    assert [handle.engine for handle in handles] == rc.ids
    assert rc[0].apply_sync(WORK.total, *handles) == 3 * 45.0
    assert len(rc[:].apply_async(WORK.made, 10, keep=True).get_dict()) == 3


@pytest.mark.parametrize("size", [10, 20_000, LARGE], ids=["small", "memory file", "large"])
@pytest.mark.parametrize("other", [0, 2], ids=["same node", "through the controller"])
def test_another_rank_gets_a_copy_of_its_own(rc: ipp.Client, size: int, other: int) -> None:
    handle = rc[1].apply_sync(WORK.made, size, keep=True)
    expected = np.arange(size, dtype=float).sum()
    assert rc[other].apply_sync(WORK.doubled, handle) == 2 * expected
    assert rc[1].apply_sync(WORK.total, handle) == expected


def test_a_handle_is_found_anywhere_in_a_call_and_in_what_is_pushed(rc: ipp.Client) -> None:
    first, second, third = rc[:].apply_sync(WORK.made, 10, keep=True)
    assert rc[:].apply_sync(WORK.nested, [first, second], named={"x": third}) == [135.0] * 3
    rc[:].push({"from_a_handle": second}, block=True)
    assert rc[:]["from_a_handle"][2].sum() == 45.0
    rc[:].execute("del from_a_handle", block=True)


def test_a_balanced_pipeline_keeps_its_values_on_the_ranks(rc: ipp.Client) -> None:
    lbv = rc.load_balanced_view()
    arrays = lbv.map(WORK.made, [10, 20, 30, 40], keep=True, block=True)
    assert [type(handle) for handle in arrays] == [Handle] * 4
    assert lbv.map_sync(WORK.total, arrays) == [45.0, 190.0, 435.0, 780.0]
    assert list(lbv.imap(WORK.total, arrays)) == [45.0, 190.0, 435.0, 780.0]
    sums = [lbv.apply(WORK.total, handle, keep=True) for handle in arrays]
    assert lbv.apply_sync(sum, [ar.get() for ar in sums]) == 1450.0
    assert rc[:].map_sync(WORK.total, arrays) == [45.0, 190.0, 435.0, 780.0]


def test_get_brings_a_copy_here_and_a_handle_shows_what_it_stands_for(rc: ipp.Client) -> None:
    handle = rc[2].apply_sync(WORK.made, LARGE, keep=True)
    assert handle.get(10).sum() == np.arange(LARGE, dtype=float).sum()
    assert (handle.engine, handle.type, handle.size) == (2, "numpy.ndarray", 8 * LARGE)
    record = rc.requests.engines.records[2]
    assert (handle.rank, handle.world, handle.host, handle.pid) == (0, record.world, record.host, record.pid)
    assert repr(handle).startswith("<Handle of numpy.ndarray, 8 MB, on engine 2 (rank 0 of ")
    nap = rc[2].apply_async(WORK.nap, 60)
    with pytest.raises(ipp.TimeoutError):
        handle.get(0.1)
    nap.cancel()


def test_balanced_tasks_go_where_their_data_are_if_that_rank_is_idle(rc: ipp.Client) -> None:
    lbv = rc.load_balanced_view()
    handles = rc[:].apply_sync(WORK.made, 1000, keep=True)
    for handle in (*handles, *handles[::-1]):
        assert lbv.apply_sync(WORK.where, handle)[0] == handle.pid
    small = rc[0].apply_sync(WORK.made, 10, keep=True)
    assert lbv.apply_sync(WORK.total, small, handles[1]) == 45.0 + 499500.0
    ar = lbv.apply_async(WORK.total, small, handles[1])
    ar.get(10)
    assert ar.engine_id == 1  # that has most of them


def test_balanced_tasks_do_not_wait_for_the_rank_that_has_their_data(rc: ipp.Client) -> None:
    handle = rc[1].apply_sync(WORK.made, 10, keep=True)
    nap = rc[1].apply_async(WORK.nap, 60)
    ar = rc.load_balanced_view().apply_async(WORK.total, handle)
    assert ar.get(10) == 45.0
    assert ar.engine_id != 1
    nap.cancel()


# --- when it goes --------------------------------------------------------------------------------


def test_a_value_goes_with_its_last_handle(rc: ipp.Client) -> None:
    handle = rc[0].apply_sync(WORK.made, 10, keep=True)
    other = pickle.loads(pickle.dumps(handle))
    assert other is handle
    del handle
    gc.collect()
    assert rc[0].apply_sync(WORK.total, other) == 45.0
    del other
    gone(rc)


def test_a_value_goes_if_nobody_ever_takes_the_handle(rc: ipp.Client) -> None:
    rc[:].apply_async(WORK.made, 10, 0.05, keep=True)
    rc.load_balanced_view().map_async(WORK.made, [10] * 5, keep=True)
    assert rc.wait(timeout=10)
    gone(rc)


def test_a_value_stays_as_long_as_a_call_that_was_given_it(rc: ipp.Client) -> None:
    nap = [rc[n].apply_async(WORK.nap, 60) for n in rc.ids]
    handle = rc[0].apply_async(WORK.made, 10, keep=True)
    nap[0].cancel()
    waiting = rc[2].apply_async(WORK.total, handle.get(10))
    del handle
    gc.collect()
    assert rc[0].apply_sync(WORK.left) == 1
    nap[1].cancel()
    nap[2].cancel()
    assert waiting.get(10) == 45.0
    del waiting
    gone(rc)


def test_a_value_of_a_task_that_failed_or_was_cancelled_does_not_stay(rc: ipp.Client) -> None:
    with pytest.raises(ZeroDivisionError):
        rc[0].apply_sync(WORK.failing, keep=True)
    ar = rc[0].apply_async(WORK.made, 10, 60, keep=True)
    eventually(lambda: rc.queue_status(0)["queue"])
    ar.cancel()
    with pytest.raises(ipp.RemoteError):
        ar.get(10)
    gone(rc)


def test_clear_and_purge_free_values_and_their_handles_say_so(rc: ipp.Client) -> None:
    cleared = rc[0].apply_sync(WORK.made, 10, keep=True)
    rc[0].clear(block=True)
    with pytest.raises(ipp.HandleError, match=r"engine 0 \(rank 0 .* has no value of task .*clear\(\)"):
        rc[1].apply_sync(WORK.total, cleared)
    with pytest.raises(ipp.HandleError, match="has no value of task"):
        cleared.get()
    ar = rc[1].apply_async(WORK.made, 10, keep=True)
    purged = ar.get(10)
    rc.purge_results(ar)
    gone(rc)
    with pytest.raises(ipp.HandleError, match=r"purge_results\(\)"):
        rc[0].apply_sync(WORK.total, purged)


def test_what_a_client_has_left_goes_when_it_leaves_also_what_still_runs(
    cluster: tuple[ipp.Cluster, ipp.Client], rc: ipp.Client
) -> None:
    other = cluster[0].connect_client_sync()
    handles = other[:].apply_sync(WORK.made, 10, keep=True)
    assert rc[:].apply_sync(WORK.left) == [1, 1, 1]
    running = other[1].apply_async(WORK.made, 10, 0.3, keep=True)
    eventually(lambda: rc.queue_status(1)["queue"])
    other.close()
    gone(rc)
    assert rc[1].apply_sync(WORK.left) == 0  # behind the one that ran
    with pytest.raises(ipp.HandleError, match="its client left"):
        rc[0].apply_sync(WORK.total, handles[0])
    with pytest.raises(ConnectionError):
        running.get()
    with pytest.raises(ConnectionError):
        handles[0].get()


# --- other places --------------------------------------------------------------------------------


def test_a_handle_may_be_used_by_another_client_and_keeps_nothing_alive_there(
    cluster: tuple[ipp.Cluster, ipp.Client], rc: ipp.Client
) -> None:
    ar = rc[1].apply_async(WORK.made, 10, keep=True)
    handle = ar.get(10)
    with cluster[0].connect_client_sync() as other:
        elsewhere = Handle(pickle.loads(pickle.dumps(handle)).kept)  # as in another process
        assert other[2].apply_sync(WORK.total, elsewhere) == 45.0
        with pytest.raises(ipp.HandleError, match=r"belongs to no client here.*client\[1\]"):
            elsewhere.get()
        assert other.get_result(ar.msg_ids[0]).get(10).get(10).sum() == 45.0
        del ar, handle
        gone(rc)
        with pytest.raises(ipp.HandleError, match="has no value of task"):
            other[2].apply_sync(WORK.total, elsewhere)


def test_a_task_done_again_leaves_another_value(rc: ipp.Client) -> None:
    ar = rc[1].apply_async(WORK.made, 10, keep=True)
    first = ar.get(10)
    again = rc.resubmit(ar)
    second = again.get(10)
    assert second.task != first.task
    assert rc[0].apply_sync(WORK.total, first, second) == 90.0
    del first, ar
    gone(rc, most=1)
    assert second.get(10).sum() == 45.0


def test_a_handle_of_another_cluster_is_refused(rc: ipp.Client) -> None:
    handle = rc[1].apply_sync(WORK.made, 10, keep=True)
    for engine in (0, 1):
        foreign = Handle(handle.kept._replace(cluster="other", engine=engine))
        with pytest.raises(ipp.HandleError, match="is of another cluster than this one"):
            rc[1].apply_sync(WORK.total, foreign)


def test_a_value_that_cannot_be_pickled_is_of_use_on_its_own_rank_only(rc: ipp.Client) -> None:
    handle = rc[1].apply_sync(WORK.unsendable, keep=True)
    assert isinstance(rc[1].apply_sync(WORK.which, handle), int)
    for other in (0, 2):
        with pytest.raises(ipp.HandleError, match=r"cannot be sent from engine 1 .*TypeError: cannot pickle"):
            rc[other].apply_sync(WORK.which, handle)


# --- how to ask for it ---------------------------------------------------------------------------


def test_keep_belongs_to_the_function_if_it_has_a_parameter_of_that_name(rc: ipp.Client) -> None:
    assert rc[0].apply_sync(WORK.with_keep, 1, keep=True) == (1, True)
    with rc[0].temp_flags() as view, view.temp_flags(keep=True):
        handle = view.apply_sync(WORK.with_keep, 1, keep="last")
        assert view.apply_sync(WORK.twice, 1).type == "int"
        assert view.apply_sync(WORK.twice, 1, keep=False) == 2
    assert handle.get(10) == (1, "last")
    with pytest.raises(TypeError, match="keep='last' is no parameter"):
        rc[0].apply_sync(WORK.twice, 1, keep="last")


def test_keep_is_a_flag_of_views_and_of_remote_functions(rc: ipp.Client) -> None:
    lbv = rc.load_balanced_view(keep=True)
    assert [handle.get(10) for handle in lbv.map_sync(WORK.twice, range(3))] == [0, 2, 4]
    assert lbv.remote(block=True)(WORK.twice)(4).get(10) == 8
    assert rc[1].remote(block=True, keep=True)(WORK.twice)(4).get(10) == 8
    lbv.use_pickle().get(10)
    rc.direct_view(keep=True).use_pickle().get(10)


def test_where_there_can_be_no_handles_it_is_said(rc: ipp.Client) -> None:
    with pytest.raises(TypeError, match="balanced view"):
        rc[:].map(WORK.twice, range(3), keep=True)
    with pytest.raises(ValueError, match="chunksize is 2"):
        rc.load_balanced_view().map(WORK.twice, range(3), keep=True, chunksize=2)


def test_failures_of_a_kept_map_are_those_of_its_items(rc: ipp.Client) -> None:
    lbv = rc.load_balanced_view()
    found = lbv.map_sync(WORK.twice, [1, None, 3], keep=True, return_exceptions=True)
    assert isinstance(found[1], TypeError)
    assert [found[0].get(10), found[2].get(10)] == [2, 6]
    with pytest.raises(ipp.CompositeError, match="1 of 3"):
        lbv.map_sync(WORK.twice, [1, None, 3], keep=True)


# --- harm ----------------------------------------------------------------------------------------


def test_a_task_that_waits_for_a_value_can_be_cancelled(rc: ipp.Client) -> None:
    for other in (0, 2):
        handle = rc[1].apply_sync(WORK.made, 10, keep=True)
        os.kill(handle.pid, signal.SIGSTOP)
        try:
            ar = rc[other].apply_async(WORK.total, handle)
            eventually(lambda: rc.queue_status(other)["queue"])  # noqa: B023
            began = time.monotonic()
            eventually(lambda: ar.cancel() and ar.wait(0.2))  # noqa: B023 - it may not have begun
            with pytest.raises(ipp.RemoteError) as caught:
                ar.get()
            assert caught.value.ename in ("KeyboardInterrupt", "TaskAborted")
            assert time.monotonic() - began < 2
        finally:
            os.kill(handle.pid, signal.SIGCONT)
        assert rc[other].apply_sync(WORK.total, handle) == 45.0


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[ipp.Cluster, ipp.Client]]:
    """A cluster to be harmed."""
    with running(tmp_path / "profile", 2, "local") as (cluster, rc):
        cluster.start_engines_sync(1, engines="local")
        rc.wait_for_engines(3, timeout=30)
        yield cluster, rc


def test_the_values_of_a_dead_rank_are_lost_and_the_error_names_rank_and_value(own: Any) -> None:
    _, rc = own
    handle = rc[2].apply_sync(WORK.made, 10, keep=True)
    os.kill(handle.pid, signal.SIGSTOP)
    waiting = rc[1].apply_async(WORK.total, handle)
    os.kill(handle.pid, signal.SIGKILL)
    text = rf"the numpy.ndarray that {handle.task} has left on engine 2 \(rank 0 .*was lost: .*SIGKILL"
    with pytest.raises(ipp.HandleError, match=text):
        waiting.get(20)
    with pytest.raises(ipp.HandleError, match=text):
        rc[1].apply_sync(WORK.total, handle)
    with pytest.raises(ipp.HandleError, match=r"Handle of numpy.ndarray.*rank 0.*its rank is gone: .*SIGKILL"):
        handle.get()


def test_of_two_ranks_of_one_node_one_may_die_while_the_other_waits_for_its_value(tmp_path: Path) -> None:
    with running(tmp_path, 2, "local") as (_, rc):
        handle = rc[1].apply_sync(WORK.made, 10, keep=True)
        os.kill(handle.pid, signal.SIGSTOP)
        waiting = rc[0].apply_async(WORK.total, handle)
        eventually(lambda: rc.queue_status(0)["queue"])
        os.kill(handle.pid, signal.SIGKILL)
        with pytest.raises(ipp.RemoteError, match=r"engine 1|rank 1"):
            waiting.get(20)


def test_a_value_goes_from_host_to_host_by_the_wire(tmp_path: Path) -> None:
    with running(tmp_path, 1, "local", environment={"IPPMPI_AGENT_TRANSPORT": "tcp"}) as (cluster, rc):
        cluster.start_engines_sync(1, engines="local")
        rc.wait_for_engines(2, timeout=30)
        for size in (10, LARGE):
            handle = rc[1].apply_sync(WORK.made, size, keep=True)
            assert rc[0].apply_sync(WORK.total, handle) == np.arange(size, dtype=float).sum()


@pytest.mark.parametrize("size", [10, LARGE], ids=["small", "large"])
def test_values_outlive_the_controller(own: Any, size: int) -> None:
    cluster, rc = own
    expected = np.arange(size, dtype=float).sum()
    handle = rc[2].apply_sync(WORK.made, size, keep=True)
    os.kill(handle.pid, signal.SIGSTOP)
    waiting = rc[0].apply_async(WORK.total, handle)
    eventually(lambda: rc.queue_status(0)["queue"])
    process = cluster.controller
    os.kill(process.identity.pid, signal.SIGKILL)
    eventually(lambda: process.poll() is not None)
    os.kill(handle.pid, signal.SIGCONT)
    cluster.restore_controller_sync()
    assert waiting.get(30) == expected
    assert rc[1].apply_sync(WORK.total, handle) == expected
    assert handle.get(10).sum() == expected
    del handle, waiting
    gone(rc)
    handles = rc[:].apply_sync(WORK.made, 10, keep=True)
    process = cluster.controller
    os.kill(process.identity.pid, signal.SIGKILL)
    eventually(lambda: process.poll() is not None)
    cluster.restore_controller_sync()
    with cluster.connect_client_sync() as other:
        assert other[:].apply_sync(WORK.total, *handles) == [135.0] * 3
        rc.queue_status()  # it has found the new controller, and can take leave of it
        rc.close()  # of which this controller does not know that it has left values
        gone(other)


def test_an_agent_that_is_killed_while_a_value_is_waited_for_is_replaced(tmp_path: Path) -> None:
    from test_agent_deaths import kill_agent, replaced

    profile = tmp_path / "profile"
    with running(profile, 2, "local") as (_, rc):
        handle = rc[1].apply_sync(WORK.made, LARGE, keep=True)
        nap = rc[1].apply_async(WORK.nap, 0.1)
        os.kill(handle.pid, signal.SIGSTOP)
        waiting = rc[0].apply_async(WORK.total, handle)
        eventually(lambda: rc.queue_status(0)["queue"])
        dead = kill_agent(profile)
        os.kill(handle.pid, signal.SIGCONT)
        replaced(profile, dead)
        assert waiting.get(30) == np.arange(LARGE, dtype=float).sum()
        nap.get(10)
        del handle, waiting
        gone(rc)


def test_pipelines_go_on_while_agents_and_the_controller_are_killed(tmp_path: Path) -> None:
    profile = tmp_path / "profile"
    sizes = [10, 20_000, LARGE, 30]
    expected = float(sum(np.arange(size, dtype=float).sum() for size in sizes))
    with running(profile, 2, "local") as (cluster, rc):
        cluster.start_engines_sync(1, engines="local")
        rc.wait_for_engines(3, timeout=30)
        lbv = rc.load_balanced_view()
        for round_ in range(4):
            handles = lbv.map_async(WORK.made, sizes, keep=True).get(30)
            sums = [rc[n % 3].apply_async(WORK.total, *handles) for n in range(6)]
            sums += [lbv.apply_async(WORK.total, *handles) for _ in range(6)]
            if round_ % 2:
                process = cluster.controller
                os.kill(process.identity.pid, signal.SIGKILL)
                eventually(lambda: process.poll() is not None)  # noqa: B023
            if round_ != 1:
                os.kill(eventually(lambda: agents(profile))[0], signal.SIGKILL)
            if round_ % 2:
                cluster.restore_controller_sync()
            assert [result.get(60) for result in sums] == [expected] * 12
            del handles, sums
        gone(rc)
