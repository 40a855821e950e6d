from __future__ import annotations

import threading
import time

import numpy as np
import pytest

import ippmpi as ipp
from client.fakes import FakeHub, connected
from helpers import eventually
from ippmpi.client.engines import Engines
from ippmpi.wire.messages import EngineRecord, EnginesChanged


def test_ids_are_sorted_and_fresh(rc: ipp.Client) -> None:
    assert rc.ids == [0, 1, 2, 3]
    rc.ids.append(99)
    assert rc.ids == [0, 1, 2, 3]
    assert len(rc) == 4


def test_an_int_names_an_engine_and_a_negative_one_counts_from_the_end(rc: ipp.Client) -> None:
    assert rc[1].targets == 1
    assert rc[-1].targets == 3


def test_slices_lists_tuples_and_arrays_name_several_engines(rc: ipp.Client) -> None:
    assert rc[::2].targets == [0, 2]
    assert rc[[3, 1]].targets == [3, 1]
    assert rc[0, -1].targets == [0, 3]
    assert rc[range(2)].targets == [0, 1]
    assert rc[np.array([1, 2])].targets == [1, 2]


def test_a_numpy_integer_is_an_int(rc: ipp.Client) -> None:
    view = rc[np.int64(2)]
    assert view.targets == 2
    assert type(view.targets) is int


@pytest.mark.parametrize("key", ["all", "a", None, 1.5, {}.keys])
def test_other_keys_are_refused(rc: ipp.Client, key: object) -> None:
    with pytest.raises(TypeError):
        rc[key]  # type: ignore[index]


def test_of_all_words_only_all_names_engines(rc: ipp.Client) -> None:
    assert len(rc.direct_view("all")) == 4
    for view in (rc.direct_view, rc.broadcast_view, rc.load_balanced_view):
        with pytest.raises(TypeError, match="a list of ints or 'all', not by 'every'"):
            view("every")


def test_an_engine_that_never_was_is_an_index_error_with_its_number(rc: ipp.Client) -> None:
    with pytest.raises(IndexError, match=r"^No such engine: 99$"):
        rc[99]
    with pytest.raises(IndexError):
        rc[-99]


def test_the_same_engine_twice_is_refused(rc: ipp.Client) -> None:
    with pytest.raises(ValueError, match="named twice"):
        rc[[1, 1]]


def test_without_engines_every_view_says_what_to_do() -> None:
    with connected(0) as (rc, _):
        assert rc.ids == []
        with pytest.raises(ipp.NoEnginesRegistered, match="wait_for_engines"):
            rc[:]
        with pytest.raises(ipp.NoEnginesRegistered):
            rc.direct_view("all").apply_async(abs, 1)
        with pytest.raises(ipp.NoEnginesRegistered):
            rc.load_balanced_view().apply_async(abs, 1)


def test_an_empty_selection_fails_clearly_when_it_is_used(rc: ipp.Client) -> None:
    with pytest.raises(ValueError, match="names no engine"):
        rc[9:].apply_sync(abs, 1)


def test_a_slice_is_frozen_and_all_is_live(rc: ipp.Client, hub: FakeHub) -> None:
    frozen, live = rc[:], rc.direct_view("all")
    hub.join(4)
    eventually(lambda: len(rc) == 5)
    assert len(frozen) == 4
    assert len(live) == 5
    assert len(live.apply_sync(abs, -1)) == 5


def test_a_frozen_view_says_why_its_engine_is_gone(rc: ipp.Client, hub: FakeHub) -> None:
    view = rc[:]
    hub.lose(2, "killed by SIGKILL")
    eventually(lambda: len(rc) == 3)
    with pytest.raises(ipp.EngineError, match=r"No such engine: 2 \(it left: killed by SIGKILL\)"):
        view.apply_async(abs, 1)
    with pytest.raises(IndexError, match="it left"):
        rc[2]
    assert rc[:].targets == [0, 1, 3]


def test_iterating_a_client_gives_views_of_single_engines(rc: ipp.Client) -> None:
    assert [view.apply_sync(int, 5) for view in rc] == [5] * 4
    assert [view.targets for view in rc[1:]] == [1, 2, 3]


# --- waiting for them ---


def test_waiting_for_engines_ends_when_enough_have_come(rc: ipp.Client, hub: FakeHub) -> None:
    rc.wait_for_engines(3)
    future = rc.wait_for_engines(6, block=False)
    assert future is not None
    assert not future.done()
    hub.join(4)
    hub.join(5)
    assert future.result(5) is None


def test_waiting_for_engines_names_both_counts_when_it_gives_up(rc: ipp.Client) -> None:
    with pytest.raises(TimeoutError, match=r"4 of 5 engines came within 0\.05 s"):
        rc.wait_for_engines(5, timeout=0.05)


def test_waiting_for_engines_ends_when_one_is_lost(rc: ipp.Client, hub: FakeHub) -> None:
    threading.Timer(0.02, hub.lose, [1, "out of memory"]).start()
    with pytest.raises(ipp.EngineError, match="engine 1, out of memory"):
        rc.wait_for_engines(5, timeout=5)


def test_waiting_for_engines_can_show_a_bar(rc: ipp.Client, hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    threading.Timer(0.02, hub.join, [4]).start()
    rc.wait_for_engines(5, timeout=5, interactive=True)
    assert "5/5" in capsys.readouterr().err


def test_in_ipython_a_bar_is_shown_unless_the_environment_says_no(
    rc: ipp.Client, hub: FakeHub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ippmpi.client.client.running_shell", object)
    threading.Timer(0.02, hub.join, [4]).start()
    rc.wait_for_engines(5, timeout=5)
    assert "5/5" in capsys.readouterr().err
    monkeypatch.setenv("IPP_NONINTERACTIVE", "1")
    threading.Timer(0.02, hub.join, [5]).start()
    rc.wait_for_engines(6, timeout=5)
    assert capsys.readouterr().err == ""


def test_waiting_for_engines_needs_a_number_unless_there_is_a_cluster(rc: ipp.Client) -> None:
    with pytest.raises(TypeError, match="needs a number"):
        rc.wait_for_engines()


def test_who_waits_on_a_closed_client_is_told_at_once(rc: ipp.Client) -> None:
    waiting = rc.wait_for_engines(6, block=False)
    assert waiting is not None
    rc.close()
    with pytest.raises(ConnectionError, match="closed"):
        waiting.result(5)
    with pytest.raises(ConnectionError, match="closed"):
        rc.wait_for_engines(6)


def cpu_s_of_the_end_of_a_world(size: int) -> float:
    """Return what it takes to hear that the ranks of a world end, one by one."""
    engines = Engines()
    engines.change(
        EnginesChanged([EngineRecord(i, i, "w", "h", 100 + i, size) for i in range(size)], [], []), whole=True
    )
    began = time.thread_time()
    for i in range(size):
        engines.change(EnginesChanged([], [i], ["its process ended"]), whole=False)
    took = time.thread_time() - began
    assert (len(engines), engines.ids, engines.losses) == (0, (), size)
    return took


def test_the_end_of_a_large_world_takes_time_by_the_number_of_its_ranks_not_by_its_square() -> None:
    small, large = (min(cpu_s_of_the_end_of_a_world(size) for _ in range(3)) for size in (2_000, 8_000))
    assert large < 9 * small  # the square would be 16


def test_what_was_read_is_not_changed_by_later_news() -> None:
    engines = Engines()
    engines.change(EnginesChanged([EngineRecord(0, 0, "w", "h", 100)], [], []), whole=True)
    records, worlds = engines.records, engines.worlds
    engines.change(EnginesChanged([EngineRecord(1, 0, "v", "h", 101)], [0], ["gone"]), whole=False)
    assert (list(records), list(worlds)) == ([0], ["w"])
    assert (list(engines.records), list(engines.worlds)) == ([1], ["w", "v"])


def test_a_new_session_brings_the_whole_list_again(rc: ipp.Client, hub: FakeHub) -> None:
    hub.call_soon(lambda: hub.receiver.connected(fresh=True))
    del hub.names[0]
    hub.tell(EnginesChanged([hub.record(i) for i in hub.names], [], []))
    eventually(lambda: rc.ids == [1, 2, 3])
