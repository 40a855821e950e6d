from __future__ import annotations

import threading

import pytest

import ippmpi as ipp
from client.conftest import Pair
from client.fakes import FakeHub
from helpers import eventually
from ippmpi.client.client import Client
from ippmpi.client.maps import call_columns
from ippmpi.client.results import AsyncResult
from ippmpi.wire.messages import Awaited, Content, Failure, Output, Query, Recheck, Reply, StillWaiting
from ippmpi.wire.pickling import pack


def text(task: str, engine: int, data: bytes) -> Output:
    return Output(task, engine, "stdout", data)


def value(task: str, engine: int, what: object) -> Reply:
    return Reply(task, engine, Content(pack(what).join()))


def asked(hub: FakeHub, what: str) -> int:
    return sum(isinstance(m, Query) and m.what == what for m in hub.messages)


def test_results_are_listed_as_records(manual: Pair) -> None:
    rc, hub = manual
    hub.store("x-1", [0, 1], label="mine")
    hub.store("y-1", [3], client=rc.id, state="ok", balanced=True, finished=2.0)
    first, second = rc.results()
    assert (first.task, first.label, first.state, first.engines, first.own) == ("x-1", "mine", "pending", [0, 1], False)
    assert (second.own, second.balanced, second.state) == (True, True, "ok")
    assert second.finished is not None
    assert second.finished > second.submitted
    assert [r.task for r in rc.results(own=False)] == ["x-1"]
    with pytest.raises(ValueError, match="have pending, ok, failed, lost"):
        rc.results(state="done")


def test_what_is_stored_is_replayed_and_then_followed(manual: Pair) -> None:
    rc, hub = manual
    hub.store("x-1", [2, 0], text("x-1", 0, b"a"), value("x-1", 2, "two"))
    result = rc.get_result("x-1")
    eventually(lambda: result.progress == 1)
    assert not result.ready()
    hub.tell(text("x-1", 0, b"b"))
    hub.tell(value("x-1", 0, "zero"))
    assert result.get(5) == ["two", "zero"]
    assert result.stdout == ["", "ab"]
    assert result.get_dict() == {2: "two", 0: "zero"}
    assert rc.outstanding == set()


def test_a_stored_task_of_a_map_has_errors_in_the_places_of_items_that_failed(manual: Pair) -> None:
    rc, hub = manual
    hub.store("x-1", [], value("x-1", 3, call_columns(pack(divmod).join(), [7, 8], [2, 0])), balanced=True)
    good, bad = rc.get_result("x-1").get(5)
    assert good == (3, 1)
    assert isinstance(bad, ipp.RemoteError)
    assert bad.ename == "ZeroDivisionError"


def test_one_task_on_one_engine_is_a_bare_value_and_a_list_of_ids_is_a_list(manual: Pair) -> None:
    rc, hub = manual
    hub.store("x-1", [], value("x-1", 3, 7), balanced=True)
    hub.store("x-2", [1], value("x-2", 1, 8))
    assert rc.get_result("x-1", block=True) == 7
    both = rc.get_result(["x-2", "x-1"])
    assert both.get(5) == [8, 7]
    assert both.engine_id == [1, 3]


def test_failures_come_back(manual: Pair) -> None:
    rc, hub = manual
    failure = Failure("ResultNotKept", "too large", kind="ResultNotKept")
    hub.store("x-1", [1], Reply("x-1", 1, Content(), failure))
    with pytest.raises(ipp.ResultNotKept, match="too large"):
        rc.get_result("x-1").get(5)


def test_a_task_that_goes_between_two_questions_is_not_kept(manual: Pair) -> None:
    rc, hub = manual
    hub.store("x-1", [1])
    del hub.replays["x-1"]
    with pytest.raises(ipp.ResultNotKept, match="dropped"):
        rc.get_result("x-1").get(5)


def test_wrong_ids_are_told_from_unknown_ones(manual: Pair) -> None:
    rc, _ = manual
    with pytest.raises(LookupError, match="no task 'x-9'"):
        rc.get_result("x-9")
    with pytest.raises(TypeError, match="task id"):
        rc.get_result(3.5)
    with pytest.raises(IndexError, match="0 tasks, none at 3"):
        rc.get_result(3)
    with pytest.raises(ValueError, match="no task id"):
        rc.get_result([])
    with pytest.raises(ValueError, match="last call"):
        rc.get_result()


def test_a_pending_task_is_not_fetched_but_shared(manual: Pair) -> None:
    rc, hub = manual
    mine = rc[:].apply_async(abs, 1)
    eventually(lambda: hub.submits)
    again: AsyncResult = rc.get_result()
    piece = mine.split()[1]
    task = hub.submits[0].task
    hub.print(task, 2, "hello")
    for engine in range(4):
        hub.reply(task, engine, engine)
    assert again.get(5) == mine.get(5) == [0, 1, 2, 3]
    assert piece.get(5) == 1
    assert again.stdout == ["", "", "hello", ""]
    assert asked(hub, "fetch") == 0


def test_a_part_of_a_map_can_be_asked_for_while_it_runs(manual: Pair) -> None:
    rc, hub = manual
    mapped = rc.load_balanced_view().map_async(abs, [1, 2])
    eventually(lambda: len(hub.submits) == 2)
    second = rc.get_result(mapped.msg_ids[1])
    hub.reply(mapped.msg_ids[1], 3, [2])
    assert second.get(5) == [2]
    assert not mapped.ready()
    hub.reply(mapped.msg_ids[0], 3, [1])
    assert mapped.get(5) == [1, 2]


def test_two_threads_that_ask_for_the_same_task_both_get_it(manual: Pair) -> None:
    rc, hub = manual
    hub.store("x-1", [1])
    results: list[AsyncResult] = []
    threads = [threading.Thread(target=lambda: results.append(rc.get_result("x-1"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    hub.tell(value("x-1", 1, 5))
    assert [result.get(5) for result in results] == [5] * 8
    assert asked(hub, "fetch") == 1


def test_a_followed_task_is_followed_again_when_another_controller_takes_over(manual: Pair) -> None:
    rc, hub = manual
    hub.store("x-1", [1], text("x-1", 1, b"a"))
    result = rc.get_result("x-1")
    eventually(lambda: result.stdout == "a")
    hub.tell(text("x-1", 1, b"b"))
    eventually(lambda: result.stdout == "ab")
    hub.replays["x-1"] = [text("x-1", 1, b"a"), text("x-1", 1, b"b"), text("x-1", 1, b"c")]
    hub.call_soon(lambda: hub.receiver.connected(fresh=True))
    eventually(lambda: result.stdout == "abc")
    hub.tell(text("x-1", 1, b"d"))
    hub.tell(value("x-1", 1, 5))
    hub.tell(value("x-1", 1, 6))
    assert result.get(5) == 5
    assert result.stdout == "abcd"


def test_a_question_that_the_session_sends_again_is_not_asked_twice(manual: Pair) -> None:
    rc, hub = manual
    hub.acknowledges = False
    hub.silent = {"fetch"}
    hub.store("x-1", [1], text("x-1", 1, b"a"), value("x-1", 1, 5))
    result = rc.get_result("x-1")
    eventually(lambda: asked(hub, "fetch") == 1)
    question = hub.messages[-1]
    hub.silent = set()
    hub.call_soon(lambda: hub.receiver.connected(fresh=True))
    hub.call_soon(lambda: hub.look_up(question))
    assert result.get(5) == 5
    assert result.stdout == "a"
    assert asked(hub, "fetch") == 1


def test_a_question_that_a_killed_controller_has_heard_is_asked_again(manual: Pair) -> None:
    rc, hub = manual
    hub.silent = {"fetch"}
    hub.store("x-1", [1], text("x-1", 1, b"a"), value("x-1", 1, 5))
    result = rc.get_result("x-1")
    eventually(lambda: asked(hub, "fetch") == 1)
    eventually(lambda: rc.requests._heard)
    hub.silent = set()
    hub.call_soon(lambda: hub.receiver.connected(fresh=True))
    assert result.get(5) == 5
    assert result.stdout == "a"
    assert asked(hub, "fetch") == 2


def test_what_the_controller_may_have_dropped_is_asked_for_again(manual: Pair) -> None:
    rc, hub = manual
    hub.store("x-1", [1], text("x-1", 1, b"a"))
    result, mine = rc.get_result("x-1"), rc[0].apply_async(abs, 1)
    eventually(lambda: result.stdout == "a")
    hub.replays["x-1"] = [text("x-1", 1, b"a"), text("x-1", 1, b"b"), value("x-1", 1, 5)]
    hub.tell(Recheck())
    assert result.get(5) == 5
    assert result.stdout == "ab"
    (waiting,) = [m for m in hub.messages if isinstance(m, StillWaiting)]
    assert waiting.tasks == [Awaited(mine.msg_ids[0], [0])]


def test_output_of_a_result_that_was_fetched_streams(manual: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    rc, hub = manual
    hub.store("x-1", [1], text("x-1", 1, b"early\n"))
    result = rc.get_result("x-1")
    eventually(lambda: result.stdout)
    with result.stream_output():
        hub.tell(text("x-1", 1, b"late\n"))
        hub.tell(value("x-1", 1, None))
        result.wait(5)
    assert capsys.readouterr().out == "[stdout:1] early\n[stdout:1] late\n"


def test_a_closed_client_ends_what_it_followed(manual: Pair) -> None:
    rc, hub = manual
    hub.store("x-1", [1])
    result = rc.get_result("x-1")
    rc.close()
    with pytest.raises(ConnectionError):
        result.get(5)
    assert isinstance(rc, Client)
