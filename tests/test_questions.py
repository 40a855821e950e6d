"""What a client asks about work that was done, on a real cluster with a real store."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import ippmpi as ipp
from clusters import defined, running
from helpers import eventually
from ippmpi import connection


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("profile")


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[ipp.Client]:
    with running(folder, 3, "local") as (_, rc):
        yield rc


@pytest.fixture
def rc(cluster: ipp.Client, folder: Path) -> Iterator[ipp.Client]:
    assert len(cluster) == 3
    with ipp.Client(connection.path(folder, "client")) as rc:
        rc.purge_everything()
        yield rc


MAIN = defined("""
    def say(text):
        import sys
        print(text)
        print("on stderr", file=sys.stderr)
        return text

    def wait(path):
        import os, time
        while not os.path.exists(path):
            time.sleep(0.01)

    def count():
        global counter
        counter = globals().get("counter", 0) + 1
        return counter
""")


def labelled(rc: ipp.Client, label: str, targets: Any = "all") -> Any:
    return rc.direct_view(targets, label=label)


# --- history and states ---


def test_the_history_is_of_all_clients_in_order(rc: ipp.Client, folder: Path) -> None:
    first = rc[:].apply_async(abs, 1)
    first.get(10)
    with ipp.Client(connection.path(folder, "client")) as other:
        second = other.load_balanced_view().apply_async(abs, 2)
        second.get(10)
        third = rc[0].apply_async(abs, 3)
        third.get(10)
        ids = [result.msg_ids[0] for result in (first, second, third)]
        assert rc.hub_history() == other.hub_history() == ids
        assert rc.history == [ids[0], ids[2]]


def test_states_and_values_of_tasks(rc: ipp.Client, folder: Path, tmp_path: Path) -> None:
    done = rc[0].apply_async(abs, -7)
    done.get(10)
    waiting = rc[0].apply_async(MAIN.wait, str(tmp_path / "end"))
    ids = [done.msg_ids[0], waiting.msg_ids[0]]
    with ipp.Client(connection.path(folder, "client")) as other:
        for client in (rc, other):
            assert client.result_status(ids) == {"pending": [ids[1]], "completed": [ids[0]], "status": "ok"}
            assert client.result_status(ids, status_only=False)[ids[0]] == 7
        (tmp_path / "end").touch()
        waiting.get(10)
        eventually(lambda: other.result_status(ids)["completed"] == ids)
    assert rc.result_status() == {"pending": [], "completed": [ids[1]], "status": "ok"}
    assert rc.result_status([0, -1])["completed"] == ids
    with pytest.raises(LookupError, match="no task 'x-1'"):
        rc.result_status("x-1")
    failed = rc[0].apply_async(operator.truediv, 1, 0)
    failed.wait(10)
    with pytest.raises(ZeroDivisionError):
        rc.result_status(failed, status_only=False)


# --- records ---


def test_records_have_what_is_known_of_a_task(rc: ipp.Client) -> None:
    before = datetime.now(UTC) - timedelta(seconds=5)
    labelled(rc, "said", [0, 2]).apply_sync(MAIN.say, "hello")
    (record,) = rc.db_query({"label": "said"})
    task = record["msg_id"]
    assert task == rc.history[-1]
    assert (record["client_uuid"], record["op"], record["queue"]) == (rc.id, "apply", "mux")
    assert (record["state"], record["engines"], record["error"]) == ("ok", [0, 2], None)
    assert record["stdout"] == "hello\nhello\n"
    assert record["stderr"] == "on stderr\n" * 2
    assert before < record["submitted"] <= record["received"]
    assert record["started"] <= record["completed"]
    assert rc.db_query({"msg_id": task}, keys=["label"]) == [{"msg_id": task, "label": "said"}]
    assert rc.db_query({"msg_id": task}, keys="queue") == [{"msg_id": task, "queue": "mux"}]


def test_calls_of_broadcast_views_are_recorded_too(rc: ipp.Client) -> None:
    result = rc.broadcast_view(label="cast").apply_async(abs, 1)
    assert result.get(10) == [1, 1, 1]
    (record,) = rc.db_query({"label": "cast"}, keys=["engines", "queue"])
    assert record == {"msg_id": result.msg_ids[0], "engines": [0, 1, 2], "queue": "mux"}
    assert rc.hub_history() == result.msg_ids


def test_conditions_choose_records(rc: ipp.Client) -> None:
    view = rc.load_balanced_view()
    for number in range(3):
        view.label = f"n{number}"
        view.apply_async(operator.truediv, 1, number).wait(10)
    labelled(rc, "direct", 1).apply_sync(abs, 1)

    def labels(**query: Any) -> list[str]:
        return [record["label"] for record in rc.db_query(query, keys=["label"])]

    assert labels() == ["n0", "n1", "n2", "direct"]
    assert labels(queue="task", state="ok") == ["n1", "n2"]
    assert labels(label={"$glob": "n*"}, error={"$exists": True}) == ["n0"]
    assert labels(label={"$in": ["n1", "direct"]}, client_uuid=rc.id) == ["n1", "direct"]
    assert labels(engines={"$all": [1]}, queue="mux") == ["direct"]
    times = [record["submitted"] for record in rc.db_query({}, keys=["submitted"])]
    assert labels(submitted={"$gt": times[1]}) == ["n2", "direct"]
    assert labels(submitted={"$lte": times[1].timestamp()}) == ["n0", "n1"]
    (failed,) = rc.db_query({"label": "n0"})
    assert failed["error"] == "ZeroDivisionError: division by zero"
    with pytest.raises(ValueError, match="no key 'nonsense'; have msg_id"):
        rc.db_query({"nonsense": 1})
    with pytest.raises(ValueError, match=r"no operator '\$le'"):
        rc.db_query({"label": {"$le": 1}})
    with pytest.raises(ValueError, match="no key 'header'"):
        rc.db_query({}, keys=["header"])


# --- forgetting ---


def test_results_are_purged_and_nobody_finds_them_again(rc: ipp.Client) -> None:
    results = [rc[i].apply_async(abs, i) for i in range(3)]
    large = rc[0].apply_async(bytes, 5_000_000)
    for result in (*results, large):
        result.get(10)
    ids = [result.msg_ids[0] for result in results]
    rc.purge_results(results[0])
    assert rc.hub_history() == [*ids[1:], *large.msg_ids]
    with pytest.raises(LookupError, match="no task"):
        rc.get_result(ids[0])
    assert results[0].get() == 0  # who holds it has it
    rc.purge_hub_results(targets=2)
    assert rc.hub_history() == [ids[1], *large.msg_ids]
    rc.purge_results([ids[1]])
    rc.purge_results("all")
    assert rc.hub_history() == []
    assert rc.history != []
    rc.purge_everything()
    assert rc.history == []


def test_what_has_not_ended_cannot_be_purged(rc: ipp.Client, folder: Path, tmp_path: Path) -> None:
    waiting = rc[0].apply_async(MAIN.wait, str(tmp_path / "end"))
    with pytest.raises(RuntimeError, match="has not ended"):
        rc.purge_results(waiting)
    with ipp.Client(connection.path(folder, "client")) as other:
        with pytest.raises(RuntimeError, match="has not ended"):
            other.purge_results(waiting.msg_ids)
        other.purge_everything()
        assert other.hub_history() == waiting.msg_ids
    (tmp_path / "end").touch()
    waiting.get(10)
    with pytest.raises(ValueError, match=r"jobs .*or targets"):
        rc.purge_results()
    with pytest.raises(RuntimeError, match="no task 'x-1' is stored"):
        rc.purge_results("x-1")


def test_a_view_purges_results_too(rc: ipp.Client) -> None:
    view = rc[:]
    result = view.apply_async(abs, 1)
    result.get(10)
    view.purge_results(result)
    assert rc.hub_history() == []
    with pytest.raises(ValueError, match=r"jobs .*or targets"):
        view.purge_results()


# --- again ---


def test_tasks_are_done_again_where_they_were_done(rc: ipp.Client, folder: Path) -> None:
    rc[:].clear(block=True)
    direct = rc[[1, 2]].apply_async(MAIN.count)
    assert direct.get(10) == [1, 1]
    again = rc.resubmit(direct)
    assert again.get(10) == [2, 2]
    assert again.engine_id == [1, 2]
    assert again.msg_ids != direct.msg_ids
    with ipp.Client(connection.path(folder, "client")) as other:
        assert other.resubmit(direct.msg_ids[0], block=True) == [3, 3]
    balanced = rc.load_balanced_view([0]).apply_async(abs, -5)
    balanced.get(10)
    assert rc.resubmit(block=True) == 5
    both = rc.resubmit([direct, balanced])
    assert both.get(10) == [4, 4, 5]
    executed = rc[0].execute("3 + 4", silent=False)
    executed.get(10)
    assert rc.resubmit(executed).get(10).data == {"text/plain": "7"}
    assert rc.resubmit([-1]).get(10)[0].data == {"text/plain": "7"}


def test_what_cannot_be_done_again_is_said(rc: ipp.Client) -> None:
    large = rc[0].apply_async(len, bytes(100_000))
    assert large.get(10) == 100_000
    with pytest.raises(LookupError, match="too large"):
        rc.resubmit(large)
    with pytest.raises(LookupError, match="no task 'x-1'"):
        rc.resubmit("x-1")


# --- dependencies ---


@pytest.mark.parametrize("flag", ["after", "follow"])
def test_a_dependency_on_a_task_that_nobody_knows_is_invalid(rc: ipp.Client, flag: str) -> None:
    view = rc.load_balanced_view(**{flag: "x-9"})
    with pytest.raises(ipp.InvalidDependency, match=f"{flag}: task x-9 is not known"):
        view.apply_async(abs, 1).get(10)


def test_what_ran_on_two_engines_cannot_be_followed_to_one(rc: ipp.Client) -> None:
    both = [rc.load_balanced_view([engine]).apply_async(abs, engine) for engine in (0, 1)]
    with pytest.raises(ipp.ImpossibleDependency):
        rc.load_balanced_view(follow=both).apply_async(abs, 1).get(10)
    failed = rc.load_balanced_view().apply_async(operator.truediv, 1, 0)
    with pytest.raises(ipp.ImpossibleDependency, match=failed.msg_ids[0]):
        rc.load_balanced_view(after=failed).apply_async(abs, 1).get(10)


# --- the rest ---


def test_namespaces_are_cleared(rc: ipp.Client) -> None:
    rc[:].push({"a": 1}, block=True)
    rc.clear([0], block=True)
    assert rc[:].pull("'a' in globals()", block=True) == [False, True, True]
    rc.clear(block=True)
    assert rc[:].pull("'a' in globals()", block=True) == [False] * 3


def test_waiting_can_show_a_bar(rc: ipp.Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    waiting = rc[0].apply_async(MAIN.wait, str(tmp_path / "end"))
    assert rc.wait_interactive(waiting, interval=0.01, timeout=0.05) is False
    (tmp_path / "end").touch()
    assert rc.wait_interactive(interval=0.01, timeout=10) is True
    assert "1/1" in capsys.readouterr().err


def test_obsolete_names_still_exist(rc: ipp.Client) -> None:
    for method in (rc.spin, rc.spin_thread, rc.stop_spin_thread):
        with pytest.warns(DeprecationWarning, match="spin"):
            method()
    with pytest.raises(NotImplementedError, match="restart_engines"):
        rc.shutdown(restart=True)
    assert rc.profile == "default"
