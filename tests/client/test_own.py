from __future__ import annotations

import operator
from concurrent.futures import Future
from typing import Any

import pytest

import ippmpi as ipp
from client.conftest import Pair
from client.fakes import FakeHub
from helpers import eventually
from ippmpi.client import growing, own
from ippmpi.wire import messages as m
from ippmpi.wire.pickling import pack


def asked(hub: FakeHub, kind: type) -> Any:
    """Return the last message of a kind that the hub got."""
    return [message for message in hub.messages if isinstance(message, kind)][-1]


# --- what a view remembers ---


def test_every_call_of_a_view_is_in_its_history_in_order(rc: ipp.Client) -> None:
    view, other = rc[:], rc[:]
    calls = [
        view.apply_async(abs, 1),
        view.push({"x": 1}),
        view.scatter("y", range(8)),
        view.gather("y"),
        view.execute("z = 1"),
        view.map_async(abs, range(9)),
        view.on_start(abs, 1),
        view.parallel()(sum)([1, 2]),
        view.remote()(abs)(2),
    ]
    other.apply_sync(abs, 1)
    assert view.history == [result.msg_ids[0] for result in calls]
    assert len(other.history) == 1
    view.wait()
    assert view.outstanding == set()


def test_an_empty_call_adds_nothing_to_the_history(rc: ipp.Client) -> None:
    view = rc[:]
    view.map_sync(abs, [])
    rc.load_balanced_view().map_sync(abs, [])
    assert view.history == []


@pytest.mark.parametrize("options", [{}, {"chunksize": 3}])
def test_all_tasks_of_a_balanced_map_are_in_the_history(rc: ipp.Client, options: dict[str, Any]) -> None:
    view = rc.load_balanced_view()
    result = view.map_async(abs, range(300), **options)
    result.get()
    assert view.history == result.msg_ids
    assert list(view.imap(abs, range(3))) == [0, 1, 2]
    assert len(view.history) == len(result.msg_ids) + 3


def test_the_history_is_bounded(rc: ipp.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "HISTORY", 5)
    view = rc[0]
    results = [view.apply_async(abs, i) for i in range(23)]
    assert 5 <= len(view.history) <= 10
    assert view.history == [result.msg_ids[0] for result in results][-len(view.history) :]


def test_what_is_outstanding_is_that_of_the_view(manual: Pair) -> None:
    rc, hub = manual
    view, other = rc[:], rc.load_balanced_view()
    mine, others = view.apply_async(abs, 1), other.apply_async(abs, 1)
    assert view.outstanding == set(mine.msg_ids)
    assert other.outstanding == set(others.msg_ids)
    assert rc.outstanding == view.outstanding | other.outstanding
    hub.call_soon(lambda: [hub.reply(mine.msg_ids[0], engine, 1) for engine in rc.ids])
    eventually(lambda: not view.outstanding)
    assert other.outstanding


def test_results_are_values_by_id(rc: ipp.Client, hub: FakeHub) -> None:
    view = rc[1]
    good, bad = view.apply_async(abs, -3), view.apply_async(operator.truediv, 1, 0)
    view.wait()
    for result, value in ((good, 3), (bad, None)):
        (task,) = result.msg_ids
        where = {"engine": 1, "rank": 1, "world": "world", "host": "host", "pid": 1}
        hub.store(task, [1], client=rc.id, state="ok" if value else "failed")
        failure = None if value else m.Failure("ZeroDivisionError", "division by zero", **where)
        content = m.Content(inline=pack(value).join())
        hub.replays[task].append(m.Reply(task, 1, content, failure, 1.0, 2.0))
    assert list(view.results) == view.history
    assert view.results[good.msg_ids[0]] == 3
    with pytest.raises(ipp.RemoteError, match="division"):
        view.results[bad.msg_ids[0]]
    with pytest.raises(KeyError, match="no task of this view"):
        view.results["nobody-1"]
    assert repr(view.results) == "<values of 2 tasks, by id>"


def test_a_result_of_the_history_is_found_by_its_position(rc: ipp.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    view = rc[1]
    for value in range(3):
        view.apply_sync(abs, value)
    found: list[Any] = []
    monkeypatch.setattr(rc, "get_result", lambda *arguments: found.append(arguments))
    view.get_result()
    view.get_result([0, -2, "other-1"], block=True)
    assert found == [
        (view.history[2], False, True),
        ([view.history[0], view.history[1], "other-1"], True, True),
    ]
    with pytest.raises(IndexError, match="has 3 tasks, and none at 7"):
        view.get_result(7)


# --- waiting ---


def test_a_view_waits_for_its_own_calls(manual: Pair) -> None:
    rc, hub = manual
    view, other = rc[0], rc[1]
    mine = view.apply_async(abs, 1)
    other.apply_async(abs, 1)
    assert view.wait(timeout=0.01) is False
    hub.call_soon(lambda: hub.reply(mine.msg_ids[0], 0, 1))
    assert view.wait(timeout=10) is True
    assert view.wait() is True
    assert other.wait(mine, timeout=10) is True
    assert other.wait(timeout=0.01) is False
    assert view.wait_interactive(timeout=10) is True
    assert view.wait(-1, timeout=10) is True
    assert other.wait([mine, 0], timeout=0.01) is False
    assert other.wait_interactive(0, timeout=0.01) is False
    with pytest.raises(IndexError, match="has 1 tasks, and none at 5"):
        view.wait(5)
    view.spin()


def test_waiting_for_a_map_waits_for_items_that_have_not_been_sent(
    manual: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    rc, hub = manual
    monkeypatch.setattr(growing, "HOLD_S", 100)
    monkeypatch.setattr(growing.Growing, "_has_room", lambda self: self.whole)  # so nothing is sent after the first
    view = rc.load_balanced_view()
    result = view.map_async(abs, range(40))
    eventually(lambda: len(hub.submits) == 8)
    for submit in hub.submits:
        hub.call_soon(lambda task=submit.task: hub.reply(task, 0, [1]))  # type: ignore[misc]
    eventually(lambda: not rc.outstanding)
    assert view.wait(timeout=0.01) is False
    assert rc.wait(timeout=0.01) is False
    assert view.wait_interactive(timeout=0.01) is False
    view.abort()
    assert view.wait(timeout=10) is True
    assert result.progress == 40
    with pytest.raises(ipp.CompositeError, match="32 of 40 results"):
        result.get(10)


def test_a_client_waits_for_all_views_with_a_bar(manual: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    rc, hub = manual
    results = [rc[engine].apply_async(abs, 1) for engine in rc.ids]
    assert rc.wait_interactive(interval=0.01, timeout=0.01) is False
    for engine, result in enumerate(results):
        (task,) = result.msg_ids
        hub.call_soon(lambda task=task, engine=engine: hub.reply(task, engine, 1))  # type: ignore[misc]
    assert rc.wait_interactive(timeout=10) is True
    assert "/4" in capsys.readouterr().err


def test_a_bar_counts_results(rc: ipp.Client, capsys: pytest.CaptureFixture[str]) -> None:
    view = rc[:]
    done: Future[int] = Future()
    done.set_result(1)
    jobs = [view.apply_async(abs, 1), rc.load_balanced_view().map_async(abs, range(30)), done]
    assert view.wait_interactive(jobs) is True
    assert "35/35" in capsys.readouterr().err


# --- control ---


def test_aborting_without_jobs_means_what_is_outstanding_of_the_view(manual: Pair) -> None:
    rc, hub = manual
    view, other = rc[:], rc[:]
    mine = view.apply_async(abs, 1)
    other.apply_async(abs, 1)
    view.abort(block=True)
    assert asked(hub, m.Abort).tasks == mine.msg_ids
    other.abort(mine, targets=[1], block=True)
    assert asked(hub, m.Abort).tasks == mine.msg_ids
    assert asked(hub, m.Abort).targets == [1]


def test_aborting_without_jobs_and_without_outstanding_ones_aborts_nothing(rc: ipp.Client, hub: FakeHub) -> None:
    other = rc[1].apply_async(abs, 1)
    rc[:].abort(block=True)
    assert asked(hub, m.Abort).tasks == []
    assert other.get() == 1


def test_a_view_purges_what_is_named_or_all_that_has_ended_of_it(
    rc: ipp.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = rc[1]
    view.apply_sync(abs, 1)
    rc[2].apply_sync(abs, 1)
    purged: list[Any] = []
    monkeypatch.setattr(rc, "purge_results", lambda *arguments: purged.append(arguments))
    view.purge_results("all")
    view.purge_results(["other-1"], targets=[2])
    rc[:].purge_results("all")
    assert purged == [(view.history, ()), (["other-1"], [2])]


def test_a_view_asks_for_its_own_engines(rc: ipp.Client, hub: FakeHub) -> None:
    assert set(rc[1].queue_status()) == {"queue", "tasks", "completed"}
    assert set(rc.load_balanced_view().queue_status()) == {*rc.ids, "unassigned"}
    rc[[1, 2]].shutdown(block=True)
    assert asked(hub, m.Shutdown).targets == [1, 2]
    rc[[1, 2]].shutdown(targets=0, block=True)
    assert asked(hub, m.Shutdown).targets == [0]
    with pytest.raises(NotImplementedError, match=r"worlds\[name\]\.restart"):
        rc[0].shutdown(restart=True)


def test_an_executor_says_how_many_workers_it_has(rc: ipp.Client) -> None:
    executor = rc[[1, 2]].executor
    assert isinstance(executor, ipp.ViewExecutor)
    assert executor._max_workers == 2
