from __future__ import annotations

import asyncio
import concurrent.futures
import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

import ippmpi as ipp
from client.conftest import Pair
from client.fakes import FakeHub, connected
from helpers import eventually
from ippmpi.wire.messages import Content, Failure, Interrupt, Replies, Reply
from ippmpi.wire.pickling import pack

LOST = Failure("EngineError", "engine 1 (rank 1 on host) was killed by SIGKILL", kind="EngineError", engine=1)


def failure(engine: int) -> Failure:
    return Failure("ValueError", "no", "Traceback ...\nValueError: no", engine=engine)


def call(rc: ipp.Client, hub: FakeHub, targets: Any = slice(None)) -> tuple[ipp.AsyncResult, str]:
    """Make a call that the test answers; return its result and task."""
    result = rc[targets].apply_async(abs, 1)
    eventually(lambda: hub.submits)
    return result, hub.submits[-1].task


# --- values ---


def test_a_result_waits_for_all_its_engines(manual: Pair) -> None:
    rc, hub = manual
    result, task = call(rc, hub)
    assert repr(result) == "<AsyncResult(abs): pending>"
    assert not result.ready()
    for engine in (2, 0, 3):
        hub.reply(task, engine, engine * 10)
    eventually(lambda: result.progress == 3)
    assert not result.ready()
    assert rc.outstanding == {task}
    hub.reply(task, 1, 10)
    assert result.get(5) == result.r == result.result() == [0, 10, 20, 30]
    assert result.ready()
    assert result.successful()
    assert rc.outstanding == set()
    assert result.get_dict() == result.result_dict == {0: 0, 1: 10, 2: 20, 3: 30}
    assert repr(result) == "<AsyncResult(abs): finished>"
    assert all(incoming.acknowledged == 1 for incoming in hub.incoming)


def test_a_timeout_says_what_is_missing_and_from_whom(manual: Pair) -> None:
    rc, hub = manual
    result, task = call(rc, hub)
    hub.reply(task, 0, 1)
    hub.reply(task, 3, 1)
    eventually(lambda: result.progress == 2)
    with pytest.raises(TimeoutError, match=r"apply: 2 of 4 results came within 0\.01 s; missing: engines 1, 2"):
        result.get(0.01)
    with pytest.raises(ipp.TimeoutError):
        result.exception(0.01)
    assert result.wait(0.01) is False
    with pytest.raises(RuntimeError, match="not ready"):
        result.successful()


def test_a_single_result_is_a_bare_value_and_is_not_iterable(rc: ipp.Client) -> None:
    result = rc[1].apply_async(abs, -1)
    assert result.get() == 1
    assert result.get_dict() == {1: 1}
    assert len(result) == 1
    with pytest.raises(TypeError, match="one value"):
        iter(result)


def test_iteration_yields_values_in_order_as_they_arrive(manual: Pair) -> None:
    rc, hub = manual
    result, task = call(rc, hub)
    hub.reply(task, 1, "b")
    hub.reply(task, 0, "a")
    values = iter(result)
    assert [next(values), next(values)] == ["a", "b"]
    threading.Timer(0.02, hub.reply, [task, 2, "c"]).start()
    assert next(values) == "c"
    hub.fail(task, 3, failure(3))
    with pytest.raises(ipp.RemoteError, match="ValueError"):
        next(values)


def test_indexing_needs_completion(manual: Pair) -> None:
    rc, hub = manual
    result, task = call(rc, hub)
    with pytest.raises(TimeoutError):
        result[0]
    for engine in range(4):
        hub.reply(task, engine, engine)
    result.get(5)
    assert result[1] == 1
    assert result[-1] == 3
    assert result[1:3] == [1, 2]
    with pytest.raises(IndexError):
        result[4]


def test_large_values_arrive_in_memory_that_can_be_written(rc: ipp.Client) -> None:
    arrays = rc[:].apply_sync(np.ones, 100_000)
    for array in arrays:
        array += 1
    assert {array.sum() for array in arrays} == {200_000}


def test_a_value_that_is_lost_on_the_way_is_an_error(manual: Pair) -> None:
    rc, hub = manual
    result, task = call(rc, hub, 0)

    def reply_and_forget() -> None:
        hub.reply(task, 0, np.ones(100_000))
        hub.blobs.clear()

    hub.call_soon(reply_and_forget)
    with pytest.raises(ipp.EngineError, match=r"rank 0 on \w+.*800\d\d\d bytes was lost on the way") as caught:
        result.get(5)
    assert caught.value.engine_info["pid"] == 1000


class Picky:
    """Cannot be unpickled."""

    def __reduce__(self) -> Any:
        return (int, ("x",))


def test_a_value_that_cannot_be_unpickled_here_is_an_error_of_its_part(rc: ipp.Client) -> None:
    result = rc[0].apply_async(Picky)
    with pytest.raises(ipp.RemoteError, match="cannot be unpickled here"):
        result.get()
    assert isinstance(result.exception().__cause__, ValueError)  # type: ignore[union-attr]
    assert not result.successful()


# --- failures ---


def test_a_lost_engine_is_an_engine_error_and_a_remote_error(manual: Pair) -> None:
    rc, hub = manual
    result, task = call(rc, hub, 1)
    hub.fail(task, 1, LOST)
    with pytest.raises(ipp.EngineError, match="killed by SIGKILL"):
        result.get(5)
    with pytest.raises(ipp.RemoteError) as caught:
        result.get(5)
    assert caught.value.ename == "EngineError"
    assert result.status == "error"
    assert repr(result) == "<AsyncResult(abs): failed>"


@pytest.mark.parametrize(
    "kind",
    [
        "EngineError",
        "TaskAborted",
        "TaskTimeout",
        "ImpossibleDependency",
        "InvalidDependency",
        "UnmetDependency",
        "NoEnginesRegistered",
    ],
)
def test_other_failures_are_of_the_class_they_are_named_after(manual: Pair, kind: str) -> None:
    rc, hub = manual
    result, task = call(rc, hub, 0)
    hub.fail(task, 0, Failure(kind, "text", kind=kind, engine=0))
    error = result.exception(5)
    assert isinstance(error, getattr(ipp, kind))
    assert isinstance(error, ipp.RemoteError)
    assert result.status == ("aborted" if kind == "TaskAborted" else "error")


def test_errors_can_be_values(manual: Pair) -> None:
    rc, hub = manual
    result, task = call(rc, hub)
    for engine in (0, 2, 3):
        hub.reply(task, engine, engine)
    hub.fail(task, 1, failure(1))
    values = result.get(5, return_exceptions=True)
    assert values[0] == 0
    assert isinstance(values[1], ipp.RemoteError)
    with pytest.raises(ipp.CompositeError, match="1 of 4"):
        result.get()
    assert [type(e).__name__ for e in result.error] == ["NoneType", "RemoteError", "NoneType", "NoneType"]


def test_an_exception_is_returned_and_not_raised(manual: Pair) -> None:
    rc, hub = manual
    several, task = call(rc, hub)
    with pytest.raises(TimeoutError, match="missing: engines 0, 1, 2, 3"):
        several.exception(0.01)
    for engine in (0, 1, 3):
        hub.reply(task, engine, 1)
    hub.fail(task, 2, failure(2))
    assert isinstance(several.exception(5), ipp.CompositeError)
    one = rc[0].apply_async(abs, 1)
    eventually(lambda: len(hub.submits) == 2)
    hub.fail(hub.submits[1].task, 0, failure(0))
    error = one.exception(5)
    assert isinstance(error, ipp.RemoteError)
    assert error.ename == "ValueError"
    fine = rc[0].apply_async(abs, 1)
    eventually(lambda: len(hub.submits) == 3)
    hub.reply(hub.submits[2].task, 0, 1)
    assert fine.exception(5) is None


def test_whether_a_result_is_successful_is_known_when_it_is_there(manual: Pair) -> None:
    rc, hub = manual
    for answer, successful in ((hub.reply, True), (hub.fail, False)):
        result, task = call(rc, hub, 0)
        with pytest.raises(RuntimeError, match="not ready; wait"):
            result.successful()
        answer(task, 0, failure(0))
        assert result.wait(5)
        assert result.successful() is successful
        hub.submits.clear()


def test_a_dict_of_results_needs_one_for_each_engine(rc: ipp.Client) -> None:
    view = rc.load_balanced_view([2])
    result = view.map_async(abs, range(3), chunksize=1)
    result.get(5)
    with pytest.raises(ValueError, match=r"several results of .* are of one engine: engines \[2, 2, 2\]"):
        result.get_dict()
    assert view.apply_async(abs, -1).get_dict(5) == {2: 1}
    assert rc[:].map_async(abs, range(4)).get_dict(5) == {0: [0], 1: [1], 2: [2], 3: [3]}


def test_fields_of_metadata_that_do_not_exist_are_errors_of_their_kind(manual: Pair) -> None:
    rc, hub = manual
    result, _ = call(rc, hub)
    assert result["completed"] == result.completed == [None] * 4  # no need to wait
    with pytest.raises(KeyError, match="have msg_id"):
        result["speed"]
    with pytest.raises(AttributeError, match="speed"):
        _ = result.speed


def test_metadata_have_all_fields_that_people_know(rc: ipp.Client) -> None:
    result = rc[:].apply_async(abs, 1)
    result.get(5)
    names = "msg_id submitted started completed received engine_uuid engine_id follow after status execute_input "
    names += "execute_result error stdout stderr outputs data label"
    for name in names.split():
        assert result[name] == getattr(result, name) == [m[name] for m in result.metadata], name
        assert getattr(result.metadata[0], name) == result[name][0]
    assert isinstance(result.metadata[0], dict)


def test_a_map_says_whether_it_keeps_the_order(rc: ipp.Client) -> None:
    view = rc.load_balanced_view()
    assert view.map_async(abs, range(3)).ordered is True
    assert view.map_async(abs, range(3), ordered=False).ordered is False
    assert rc[:].map_async(abs, range(3)).ordered is True


def test_the_first_failure_can_be_raised_while_others_are_still_at_work(manual: Pair) -> None:
    rc, hub = manual
    result, task = call(rc, hub)
    threading.Timer(0.02, hub.fail, [task, 2, failure(2)]).start()
    with pytest.raises(ipp.CompositeError) as caught:
        result.get(5, return_when=ipp.FIRST_EXCEPTION)
    assert caught.value.errors[0].engine_info["engine_id"] == 2
    assert not result.ready()


def test_the_first_completed_is_for_wait_and_get_says_so(rc: ipp.Client) -> None:
    result = rc[:].apply_async(abs, -1)
    with pytest.warns(UserWarning, match="waits for all"):
        assert result.get(5, return_when=ipp.FIRST_COMPLETED) == [1] * 4
    assert result.get(5, return_when=ipp.ALL_COMPLETED) == [1] * 4
    with pytest.raises(ValueError, match="return_when='SOON'"):
        result.get(5, return_when="SOON")


def test_a_negative_timeout_is_no_limit(rc: ipp.Client) -> None:
    result = rc[:].apply_async(time.sleep, 0.02)
    assert result.wait(-1) is True
    assert result.get(-1) == [None] * 4
    assert result.get_dict(-1)[3] is None
    assert result.exception(-1) is None
    assert result.wait_for_output(-1) is True


def test_a_pending_result_is_neither_running_nor_cancelled(manual: Pair) -> None:
    rc, hub = manual
    result, task = call(rc, hub, 0)
    assert not result.running()
    result.cancel()
    assert not result.cancelled()  # it ends as the engine says
    hub.reply(task, 0, 5)
    assert result.get(5) == 5


def test_waiting_for_some_gives_sets_of_pieces(manual: Pair) -> None:
    rc, hub = manual
    result, task = call(rc, hub)
    threading.Timer(0.02, hub.reply, [task, 2, "two"]).start()
    done, pending = result.wait(5, return_when=ipp.FIRST_COMPLETED)
    assert [piece.get() for piece in done] == ["two"]
    assert len(pending) == 3
    for engine in (0, 1, 3):
        hub.reply(task, engine, engine)
    done, pending = result.wait(5, return_when=ipp.ALL_COMPLETED)
    assert len(done) == 4
    assert not pending
    with pytest.raises(ValueError, match="FIRST_COMPLETED"):
        result.wait(1, return_when="SOON")


# --- as a future ---


def test_results_and_their_pieces_work_with_concurrent_futures(manual: Pair) -> None:
    rc, hub = manual
    result, task = call(rc, hub)
    pieces = result.split()
    assert pieces is result.split()
    hub.fail(task, 1, failure(1))
    done, _ = concurrent.futures.wait(pieces, 5, return_when=concurrent.futures.FIRST_EXCEPTION)
    assert pieces[1] in done
    for engine in (0, 2, 3):
        hub.reply(task, engine, engine)
    assert set(concurrent.futures.as_completed([result, *pieces], timeout=5)) == {result, *pieces}
    assert [p.result() for p in pieces if p.exception() is None] == [0, 2, 3]


def test_done_callbacks_can_read_the_value_but_not_wait(rc: ipp.Client) -> None:
    seen: list[Any] = []

    def callback(result: Any) -> None:
        seen.append(result.get())
        try:
            rc[0].apply_sync(abs, 1)
        except RuntimeError as error:
            seen.append(str(error))

    rc[0].apply_async(abs, -5).add_done_callback(callback)
    eventually(lambda: len(seen) == 2)
    assert seen[0] == 5
    assert "would never end" in seen[1]


def test_a_result_can_be_awaited(rc: ipp.Client) -> None:
    async def main() -> list[Any]:
        both = await asyncio.gather(rc[:].apply_async(abs, -1), rc[1].apply_async(abs, -2))
        with pytest.raises(ipp.RemoteError):
            await rc[0].apply_async(divmod, 1, 0)
        return [*both, await rc[:].map_async(abs, [-3])]

    assert asyncio.run(main()) == [[1] * 4, 2, [3]]


def test_a_cancelled_await_cancels_the_call(manual: Pair) -> None:
    rc, hub = manual
    result, task = call(rc, hub)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(result, 0.02)

    asyncio.run(main())
    eventually(lambda: any(isinstance(m, Interrupt) and m.tasks == [task] for m in hub.messages))


# --- ending ---


def test_cancel_reaches_the_engines(manual: Pair) -> None:
    rc, hub = manual
    result, task = call(rc, hub, 0)
    assert result.cancel() is True
    eventually(lambda: any(isinstance(sent, Interrupt) for sent in list(hub.messages)))
    assert not result.done()
    hub.fail(task, 0, Failure("KeyboardInterrupt", "", engine=0))
    with pytest.raises(ipp.RemoteError, match="KeyboardInterrupt"):
        result.get(5)
    assert result.cancel() is False


def test_abort_takes_back_what_waits(rc: ipp.Client, hub: FakeHub) -> None:
    gate = threading.Event()
    hub._workers[0].submit(gate.wait)
    result = rc[0].apply_async(abs, 1)
    result.abort()
    gate.set()
    with pytest.raises(ipp.TaskAborted):
        result.get(5)
    with pytest.raises(RuntimeError, match="nothing to abort"):
        result.abort()


def test_ctrl_c_ends_the_waiting_promptly_and_the_client_goes_on(manual: Pair) -> None:
    rc, hub = manual
    result, task = call(rc, hub)
    main = threading.main_thread().ident
    assert main is not None
    start = time.monotonic()
    threading.Timer(0.05, signal.pthread_kill, [main, signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        result.get(20)
    assert time.monotonic() - start < 2
    for engine in range(4):
        hub.reply(task, engine, engine)
    assert result.get(5) == [0, 1, 2, 3]


def test_closing_the_client_fails_what_is_pending() -> None:
    with connected(automatic=False) as (rc, hub):
        result, _ = call(rc, hub)
        rc.close()
        rc.close()
        with pytest.raises(ConnectionError, match="was closed"):
            result.get(5)
        with pytest.raises(ConnectionError, match="was closed"):
            rc[:].apply(abs, 1)
        assert type(hub.messages[-1]).__name__ == "Farewell"


def test_a_refused_link_fails_everything_with_its_text(manual: Pair) -> None:
    rc, hub = manual
    result, _ = call(rc, hub)
    hub.call_soon(lambda: hub.receiver.broken(ipp.Refused("another version")))
    with pytest.raises(ipp.Refused, match="another version"):
        result.get(5)
    with pytest.raises(ipp.Refused, match="another version"):
        next(iter(result))
    with pytest.raises(ipp.Refused):
        rc.queue_status()


def test_replies_that_nobody_waits_for_are_dropped(manual: Pair) -> None:
    rc, hub = manual
    hub.reply("other-1", 0, np.ones(100_000))
    result, task = call(rc, hub, 0)
    hub.reply(task, 3, 5)
    hub.print("other-1", 0, "x")
    hub.reply(task, 0, 5)
    assert result.get(5) == 5
    assert not hub.blobs
    assert all(incoming.acknowledged == 1 for incoming in hub.incoming)


def test_a_reply_after_the_loss_of_its_engine_changes_and_prints_nothing(
    manual: Pair, capfd: pytest.CaptureFixture[str]
) -> None:
    rc, hub = manual
    result, task = call(rc, hub, 1)
    hub.fail(task, 1, LOST)
    assert result.wait(5)
    hub.reply(task, 1, "late")
    eventually(lambda: hub.incoming[-1].acknowledged == 1)
    with pytest.raises(ipp.EngineError, match="killed by SIGKILL"):
        result.get(5)
    assert capfd.readouterr() == ("", "")


# --- facts ---


def test_times_are_aware_and_add_up(rc: ipp.Client) -> None:
    result = rc[:].apply_async(time.sleep, 0.01)
    assert result.elapsed >= 0
    result.get()
    now = datetime.now(UTC)
    for key in ("submitted", "started", "completed", "received"):
        for moment in result[key]:
            assert now - timedelta(seconds=10) < moment <= now
    assert 0 < result.wall_time == result.elapsed < 5
    assert result.serial_time == pytest.approx(0.04, rel=0.01)
    assert result.timedelta(result.submitted, result.received) == pytest.approx(result.wall_time, abs=1e-3)
    later = [moment + timedelta(seconds=i) for i, moment in enumerate(result.received)]
    assert result.timedelta(later[0], later, end_key=min) <= 0
    assert result.timedelta(later, later[3], start_key=max) == pytest.approx(0, abs=1e-6)
    assert 2 < result.timedelta(min(later), later) < 4


def test_times_of_what_has_not_ended_are_a_timeout(manual: Pair) -> None:
    result, _ = call(*manual)
    with pytest.raises(TimeoutError):
        _ = result.wall_time
    with pytest.raises(TimeoutError):
        _ = result.serial_time


def test_metadata_is_a_list_or_for_one_engine_a_record(rc: ipp.Client) -> None:
    with rc[:].temp_flags(label="mine") as view:
        several = view.apply_async(abs, 1)
    several.get()
    assert several.engine_id == [0, 1, 2, 3]
    assert several.status == ["ok"] * 4
    assert [m.label for m in several.metadata] == ["mine"] * 4
    assert len(several.msg_ids) == 1
    one = rc[2].apply_async(abs, 1)
    one.get()
    assert one.metadata.engine_id == one["engine_id"] == one.engine_id == 2
    with pytest.raises(KeyError, match="have msg_id"):
        one["speed"]
    with pytest.raises(AttributeError, match="have msg_id"):
        _ = one.metadata.speed


# --- output ---


def test_output_is_there_while_the_call_runs(manual: Pair) -> None:
    rc, hub = manual
    result, task = call(rc, hub)
    hub.print(task, 1, "a")
    hub.print(task, 1, "b\n")
    hub.print(task, 2, "careful\n", "stderr")
    eventually(lambda: result.stderr[2])
    assert result.stdout == ["", "ab\n", "", ""]
    assert result.stderr == ["", "", "careful\n", ""]


@pytest.mark.parametrize("fold", [True, False])
def test_streamed_output_comes_line_by_line_with_its_engine(
    manual: Pair, capsys: pytest.CaptureFixture[str], fold: bool
) -> None:
    rc, hub = manual
    result, task = call(rc, hub)
    hub.print(task, 0, "early\n")
    with result.stream_output(fold=fold):
        hub.print(task, 1, "one\ntw")
        hub.print(task, 1, "o\nopen")
        hub.display(task, 2, "<picture>")
        for engine in range(3):
            hub.reply(task, engine, None)
        hub.fail(task, 3, failure(3))
        result.wait(5)
    out, err = capsys.readouterr()
    expected = [
        "[stdout:0] early",
        "[stdout:1] one",
        "[stdout:1] two",
        "[output:2] <picture>",
        "[stdout:1] open",
    ]
    assert sorted(out.splitlines()) == sorted(expected)
    assert [line for line in out.splitlines() if ":1]" in line] == [line for line in expected if ":1]" in line]
    assert "ValueError: no" in err


def test_equal_lines_that_come_together_are_one(manual: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    rc, hub = manual
    result, task = call(rc, hub)
    with result.stream_output():
        for engine in range(4):
            hub.print(task, engine, f"{'step' if engine != 2 else 'other'} 1\nconver")
            hub.print(task, engine, "careful\n", "stderr")
            hub.print(task, engine, "ged\n" if engine < 3 else "ging\n")
            hub.reply(task, engine, None)
        result.wait(5)
    out, err = capsys.readouterr()
    assert out.splitlines() == ["[0-1,3] step 1", "[stdout:2] other 1", "[0-2] converged", "[stdout:3] converging"]
    assert err == "[stderr:0-3] careful\n"
    assert result.stdout[0] == "step 1\nconverged\n"  # raw


def test_what_one_engine_prints_long_before_the_others_does_not_wait_for_them(
    manual: Pair, capfd: pytest.CaptureFixture[str]
) -> None:
    rc, hub = manual
    result, task = call(rc, hub)
    shown = ""

    def text() -> str:
        nonlocal shown
        shown += capfd.readouterr().out
        return shown

    with result.stream_output():
        hub.print(task, 2, "here\n")
        eventually(lambda: text() == "[stdout:2] here\n")
        for engine in range(4):
            hub.print(task, engine, "here\n")
        eventually(lambda: text() == "[stdout:2] here\n[0-3] here\n")


def test_of_one_engine_every_line_is_shown_at_once_and_by_itself(
    manual: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    rc, hub = manual
    result, task = call(rc, hub, 1)
    with result.stream_output():
        hub.print(task, 1, "same\nsame\n")
        hub.print(task, 1, "same\n")
        hub.reply(task, 1, None)
        result.wait(5)
    assert capsys.readouterr().out == "[stdout:1] same\n" * 3


def test_of_many_failures_the_first_ones_are_streamed_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    with connected(6, automatic=False) as (rc, hub):
        result, task = call(rc, hub)
        with result.stream_output():
            for engine in range(6):
                hub.fail(task, engine, failure(engine))
            result.wait(5)
    err = capsys.readouterr().err
    assert err.count("Traceback ...") == ipp.CompositeError.tb_limit == 4
    assert err.count("ValueError: no") == 6


def test_out_values_are_streamed_and_progress_bars_are_not_repeated(
    manual: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    rc, hub = manual
    result = rc[[1]].execute("x", silent=False)
    eventually(lambda: hub.submits)
    task = hub.submits[-1].task
    with result.stream_output():
        hub.print(task, 1, "10 %\r50 %\r100 %\n")
        hub.reply(task, 1, {"execution_count": 3, "source": "x", "result": {"text/plain": "5"}, "metadata": {}})
        result.get(5)
    assert capsys.readouterr().out.splitlines() == ["[stdout:1] 100 %", "Out[1:3]: 5"]
    assert result.stdout == ["10 %\r50 %\r100 %\n"]


def test_waiting_for_some_of_a_map_gives_pieces_that_are_lists(manual: Pair) -> None:
    rc, hub = manual
    result = rc[:].map_async(abs, range(8))
    eventually(lambda: hub.submits)
    task = hub.submits[-1].task
    hub.reply(task, 2, [4, 5])
    done, pending = result.wait(5, return_when=ipp.FIRST_COMPLETED)
    assert [piece.get() for piece in done] == [[4, 5]]
    assert (len(pending), result.progress, len(result)) == (3, 2, 8)
    hub.fail(task, 0, failure(0))
    done, pending = result.wait(5, return_when=ipp.FIRST_EXCEPTION)
    assert len(done) == 2
    assert sum(piece.exception() is not None for piece in done) == 1
    assert {piece.engine_id for piece in pending} == {1, 3}
    result.cancel()


def test_output_is_displayed_in_groups(manual: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    rc, hub = manual
    result, task = call(rc, hub, [1, 0])
    for engine in (1, 0):
        hub.print(task, engine, f"out {engine}\nmore\n")
        hub.print(task, engine, f"err {engine}\n", "stderr")
        hub.display(task, engine, "shown")
        hub.reply(task, engine, None)
    result.display_outputs("order")
    assert capsys.readouterr().out.splitlines() == [
        "[stdout:1] out 1",
        "[stdout:1] more",
        "[output:1] shown",
        "[stdout:0] out 0",
        "[stdout:0] more",
        "[output:0] shown",
    ]
    result.display_outputs("engine")
    assert capsys.readouterr().out.startswith("[stdout:0] out 0")
    result.display_outputs()
    assert capsys.readouterr().out == ("[stdout:0] out 0\n[stdout:1] out 1\n[0-1] more\n[output:0-1] shown\n")
    result.display_outputs(fold=False)
    assert capsys.readouterr().out.endswith("[output:1] shown\n[output:0] shown\n")
    result.display_outputs(result_only=True)
    assert "out 0" not in capsys.readouterr().out
    pending = rc[0].apply_async(abs, 1)
    with pytest.raises(ValueError, match="'type', 'engine', 'order'"):  # at once
        pending.display_outputs("colour")
    pending.cancel()


def test_results_only_are_displayed_in_all_groupings(manual: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    rc, hub = manual
    result = rc[[1, 0]].execute("x", silent=False)
    eventually(lambda: hub.submits)
    task = hub.submits[-1].task
    for engine in (1, 0):
        hub.print(task, engine, f"out {engine}\n")
        hub.display(task, engine, f"shown {engine}")
        value = {"execution_count": 3, "source": "x", "result": {"text/plain": f"x{engine}"}, "metadata": {}}
        hub.reply(task, engine, value)
    of_1, of_0 = (["[output:1] shown 1", "Out[1:3]: x1"], ["[output:0] shown 0", "Out[0:3]: x0"])
    for groupby, lines in (("type", of_1 + of_0), ("order", of_1 + of_0), ("engine", of_0 + of_1)):
        result.display_outputs(groupby, result_only=True, fold=False)
        assert capsys.readouterr().out.splitlines() == lines


@pytest.mark.parametrize("groupby", ["engine", "order"])
def test_engines_that_show_all_the_same_are_shown_together(
    manual: Pair, capsys: pytest.CaptureFixture[str], groupby: str
) -> None:
    rc, hub = manual
    result, task = call(rc, hub)
    for engine in range(4):
        hub.print(task, engine, "one\n" if engine < 3 else "three\n")
        hub.print(task, engine, "two\n")
        hub.print(task, engine, "careful\n", "stderr")
        hub.reply(task, engine, None)
    result.display_outputs(groupby)
    out, err = capsys.readouterr()
    assert out.splitlines() == ["[0-2] one", "[0-2] two", "[stdout:3] three", "[stdout:3] two"]
    assert err.splitlines() == ["[stderr:0-2] careful", "[stderr:3] careful"]
    result.display_outputs(groupby, fold=False)
    assert len(capsys.readouterr().out.splitlines()) == 8


def test_a_bar_that_an_engine_shows_is_shown_as_it_was_last(manual: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    rc, hub = manual
    result, task = call(rc, hub, [0])
    hub.print(task, 0, "10 %\r100 %\r\ndone\n")
    hub.reply(task, 0, None)
    result.display_outputs()
    assert capsys.readouterr().out == "[stdout:0] 100 %\n[stdout:0] done\n"


def test_waiting_can_show_a_bar(rc: ipp.Client, capsys: pytest.CaptureFixture[str]) -> None:
    result = rc[:].apply_async(abs, 1)
    assert result.wait_interactive(timeout=5) is True
    assert "4/4" in capsys.readouterr().err


def test_waiting_with_a_bar_has_a_timeout(manual: Pair) -> None:
    result, _ = call(*manual)
    assert result.wait_interactive(interval=0.01, timeout=0.03) is False


def test_replies_that_came_together_are_told_one_by_one(manual: Pair) -> None:
    rc, hub = manual
    result, task = call(rc, hub)
    first = Reply(task, 0, Content(inline=pack("a").join()))
    hub.tell(Replies(task, [first, Reply(task, 2, Content(), failure(2))]))
    eventually(lambda: result.progress == 2)
    again, last = Reply(task, 0, Content(inline=pack("other").join())), Reply(task, 3, Content(inline=pack("d").join()))
    hub.tell(Replies(task, [again, last]))
    hub.reply(task, 1, "b")
    assert result.wait(10)
    with pytest.raises(ipp.CompositeError, match="1 of 4"):
        result.get()
    assert [result[i] for i in (0, 1, 3)] == ["a", "b", "d"]
    hub.tell(Replies(task, [first]))  # nobody waits any more
    result = rc[:].apply_async(abs, 1)
    eventually(lambda: len(hub.submits) == 2)
    task = hub.submits[-1].task
    hub.tell(Replies(task, [Reply(task, engine, first.content) for engine in range(4)]))
    assert result.get(10) == ["a"] * 4


# --- as users of ipyparallel know it ---


def test_results_are_joined_and_split_again(manual: Pair) -> None:
    rc, hub = manual
    first, task = call(rc, hub, [0, 1])
    second = rc[2].apply_async(abs, 2)
    eventually(lambda: len(hub.submits) == 2)
    joined = ipp.AsyncResult.join(first, second)
    assert len(joined) == 3
    assert joined.msg_ids == [*first.msg_ids, *second.msg_ids]
    hub.reply(task, 1, "b")
    hub.reply(hub.submits[1].task, 2, "c")
    eventually(lambda: joined.progress == 2)
    assert not joined.ready()
    hub.reply(task, 0, "a")
    assert joined.get(5) == ["a", "b", "c"]
    assert [piece.get() for piece in joined.split()] == ["a", "b", "c"]
    assert ipp.AsyncResult.join(*joined.split()).get_dict() == {0: "a", 1: "b", 2: "c"}
    with pytest.raises(ValueError, match="at least one"):
        ipp.AsyncResult.join()


def test_pieces_of_a_piece_and_a_second_piece_of_a_part_end_too(manual: Pair) -> None:
    rc, hub = manual
    result, task = call(rc, hub, [0, 1])
    (inner,) = result.split()[0].split()
    again = ipp.AsyncResult.join(result, result.split()[0]).split()
    hub.reply(task, 0, "a")
    assert inner.get(5) == again[0].get(5) == again[2].get(5) == "a"


def test_the_pieces_of_a_map_are_joined_to_lists_of_its_chunks(rc: ipp.Client) -> None:
    result = rc[:].map_async(abs, range(-8, 0))
    pieces = result.split()
    assert ipp.AsyncResult.join(*pieces).get(5) == [piece.get() for piece in pieces] == [[8, 7], [6, 5], [4, 3], [2, 1]]


def test_an_interactive_wait_can_end_at_the_first_result(manual: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    rc, hub = manual
    result, task = call(rc, hub)
    hub.reply(task, 2, 1)
    assert result.wait_interactive(0.01, timeout=5, return_when=ipp.FIRST_COMPLETED) is False
    assert result.progress == 1
    with pytest.raises(ValueError, match="return_when"):
        result.wait_interactive(return_when="SOME")
    capsys.readouterr()


def test_metadata_names_the_process_of_an_engine(rc: ipp.Client, hub: FakeHub) -> None:
    view = rc[:]
    view.label = "mine"
    result = view.apply_async(abs, 1)
    assert result.label == ["mine"] * 4
    assert result.engine_uuid[1] == "world.1@host:1001"
    assert result["engine_uuid"] == [m.engine_uuid for m in result.metadata]
    hub.join(7)
    rc.wait_for_engines(5, timeout=5)
    balanced = rc.load_balanced_view([7]).apply_async(abs, 1)
    balanced.get(5)
    assert balanced.engine_uuid == "world.7@host:1007"
    assert balanced.owner is True
    assert balanced.data == {}
