from __future__ import annotations

import asyncio
import operator
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ippmpi as ipp
from client.conftest import Pair
from client.fakes import FakeHub

shared = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)


def keywords(**kwargs: Any) -> dict[str, Any]:
    return kwargs


# --- apply ---


def test_an_int_target_gives_a_bare_value_and_a_list_a_list(rc: ipp.Client) -> None:
    assert rc[1].apply_sync(operator.add, 1, 2) == 3
    assert rc[[1]].apply_sync(operator.add, 1, 2) == [3]
    assert rc[0:1].apply_sync(operator.add, 1, 2) == [3]
    assert rc[:].apply_sync(operator.add, 1, 2) == [3] * 4


def test_values_are_in_the_order_of_the_targets(rc: ipp.Client, hub: FakeHub) -> None:
    view = rc[[3, 0, 2]]
    assert view.pull("engine", block=True) == [3, 0, 2]
    assert hub.submits[-1].targets == [3, 0, 2]


def test_all_targets_of_a_call_go_in_one_request(rc: ipp.Client, hub: FakeHub) -> None:
    rc[:].apply_sync(operator.add, 1, 2)
    (submit,) = hub.submits
    assert submit.targets == [0, 1, 2, 3]
    assert len(submit.contents) == 1
    assert submit.task.startswith(rc.id)


def test_any_keyword_can_be_an_argument_of_the_function(rc: ipp.Client) -> None:
    assert rc[0].apply_sync(keywords, f=1, function=2, self=3, block=4) == {
        "f": 1,
        "function": 2,
        "self": 3,
        "block": 4,
    }


def test_what_cannot_be_called_is_refused(rc: ipp.Client) -> None:
    with pytest.raises(TypeError, match="needs a function"):
        rc[0].apply("f")  # type: ignore[arg-type]


def test_block_decides_whether_apply_waits(rc: ipp.Client) -> None:
    view = rc[:]
    assert isinstance(view.apply(abs, -1), ipp.AsyncResult)
    view.block = True
    assert view.apply(abs, -1) == [1] * 4
    rc.block = True
    assert rc[0].apply(abs, -1) == 1


# --- failures ---


def test_a_failure_of_a_single_engine_is_raised_as_it_is(rc: ipp.Client) -> None:
    with pytest.raises(ipp.RemoteError, match="division") as caught:
        rc[2].apply_sync(operator.truediv, 1, 0)
    error = caught.value
    assert not isinstance(error, ipp.CompositeError)
    assert error.ename == "ZeroDivisionError"
    assert error.engine_info["engine_id"] == 2
    assert error.engine_info["host"] == "host"
    assert error.engine_info["method"] == "apply"


def test_one_failure_of_several_engines_is_a_composite(rc: ipp.Client) -> None:
    rc[:].execute("d = engine - 1", block=True)
    with pytest.raises(ipp.CompositeError, match="1 of 4 results") as caught:
        rc[:].pull("1 // d", block=True)
    assert [error.engine_info["engine_id"] for error in caught.value.errors] == [1]
    assert caught.value.elist[0][0] == "ZeroDivisionError"


# --- namespaces ---


def test_pushed_names_can_be_pulled(rc: ipp.Client) -> None:
    view = rc[:]
    assert view.push({"a": 3, "b": "x"}, block=True) == [None] * 4
    assert view.pull("a", block=True) == [3] * 4
    assert view.pull(["a", "b"], block=True) == [[3, "x"]] * 4
    assert rc[0].pull(("a", "b"), block=True) == [3, "x"]
    assert view.pull("a + 1", targets=1, block=True) == 4
    assert view.get("b") == ["x"] * 4


def test_a_view_is_indexed_by_names(rc: ipp.Client) -> None:
    view = rc[0]
    view["x"] = [1, 2]
    assert view["x"] == [1, 2]
    view.update({"y": 5})
    assert view["y"] == 5
    with pytest.raises(TypeError, match="index the client"):
        view[0]  # type: ignore[index]
    with pytest.raises(TypeError, match="ask the engines"):
        assert "x" in view


def test_wrong_names_are_refused_here(rc: ipp.Client) -> None:
    with pytest.raises(TypeError, match="needs a dict"):
        rc[0].push([1])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="needs a name"):
        rc[0].pull([1])  # type: ignore[list-item]


def test_a_missing_name_is_a_remote_name_error(rc: ipp.Client) -> None:
    with pytest.raises(ipp.RemoteError) as caught:
        rc[0].get("nothing")
    assert caught.value.ename == "NameError"


def test_clear_empties_the_namespace(rc: ipp.Client) -> None:
    rc[0]["x"] = 1
    rc[0].clear(block=True)
    with pytest.raises(ipp.RemoteError):
        rc[0].get("x")


def test_large_arrays_travel_without_being_joined_and_arrive_writable(rc: ipp.Client, hub: FakeHub) -> None:
    array = np.arange(100_003, dtype=float)
    rc[:].push({"a": array, "b": array[::2]}, block=True)
    assert hub.submits[-1].contents[0].transfer
    assert not hub.submits[-1].contents[0].inline
    back = rc[1]["a"]
    np.testing.assert_array_equal(back, array)
    back[0] = 7
    np.testing.assert_array_equal(rc[1]["b"], array[::2])


def test_sent_is_true_once_the_hub_has_a_large_content(manual: Pair) -> None:
    rc, hub = manual
    hub.acknowledges = False
    result = rc[:].push({"a": np.zeros(100_000)})
    assert not result.sent
    with pytest.raises(TimeoutError, match="not sent"):
        result.wait_for_send(0.02)
    hub.call_soon(lambda: hub.acks.pop()())
    result.wait_for_send(5)
    assert result.sent
    assert not hub.sources
    assert rc[0].push({"a": 1}).sent


# --- scatter and gather ---


@shared
@given(st.lists(st.integers()), st.sampled_from(["b", "r"]))
def test_gather_is_the_inverse_of_scatter(rc: ipp.Client, items: list[int], dist: str) -> None:
    view = rc[:]
    assert view.scatter("x", items, dist=dist, block=True) is None
    assert view.gather("x", dist=dist, block=True) == items


def test_scatter_sends_each_engine_its_piece_in_one_request(rc: ipp.Client, hub: FakeHub) -> None:
    result = rc[:].scatter("x", range(6))
    assert isinstance(result, ipp.AsyncResult)
    assert result.get() == [None] * 4
    (submit,) = hub.submits
    assert len(submit.contents) == 4
    assert [hub.names[i]["x"] for i in range(4)] == [range(2), range(2, 4), range(4, 5), range(5, 6)]


def test_flatten_unwraps_pieces_of_one_element(rc: ipp.Client, hub: FakeHub) -> None:
    rc[:].scatter("x", [5, 6, 7, 8], flatten=True, block=True)
    assert [hub.names[i]["x"] for i in range(4)] == [5, 6, 7, 8]
    assert rc[:].gather("x", block=True) == [5, 6, 7, 8]


def test_a_large_array_is_scattered_and_gathered(rc: ipp.Client) -> None:
    array = np.arange(90_001.0).reshape(-1, 1)
    rc[:].scatter("x", array, block=True)
    gathered = rc[:].gather("x")
    np.testing.assert_array_equal(gathered.get(), array)
    assert len(gathered) == 4


# --- code ---


def test_execute_always_returns_a_result(rc: ipp.Client) -> None:
    result = rc[:].execute("y = engine * 2", block=True)
    assert isinstance(result, ipp.AsyncResult)
    assert result.done()
    assert rc[:]["y"] == [0, 2, 4, 6]


def test_execute_that_is_not_silent_gives_out_values_and_output(
    rc: ipp.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    result = rc[1].execute("engine + 1", silent=False, block=True)
    reply = result.get()
    assert reply.data == {"text/plain": "2"}
    assert reply.execution_count == 7
    assert repr(reply) == "<ExecuteReply[7]: 2>"
    assert result.execute_result == {"text/plain": "2"}
    assert (reply.engine_id, reply.metadata.engine_id, reply["status"], reply.status) == (1, 1, "ok", "ok")
    with pytest.raises(AttributeError, match="no 'speed' in <ExecuteReply"):
        _ = reply.speed
    reply.display()
    assert capsys.readouterr().out == "Out[1:7]: 2\n"
    printed = rc[:].execute("print('hello', engine)", block=True)
    assert printed.stdout == [f"hello {i}\n" for i in range(4)]
    assert printed.get()[2].stdout == "hello 2\n"


def test_execute_that_blocks_raises_what_the_code_raised(rc: ipp.Client) -> None:
    with pytest.raises(ipp.RemoteError, match="NameError"):
        rc[0].execute("nothing", block=True)
    with pytest.raises(TypeError, match="code as a str"):
        rc[0].execute(5)  # type: ignore[arg-type]


def test_run_reads_the_file_on_this_machine(rc: ipp.Client, hub: FakeHub, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("z = engine + 100\n")
    rc[:].run(script, block=True)
    assert hub.names[3]["z"] == 103


# --- map ---


@shared
@given(st.lists(st.integers()), st.lists(st.integers()))
def test_a_map_is_like_the_builtin(rc: ipp.Client, one: list[int], two: list[int]) -> None:
    assert rc[:].map_sync(operator.add, one, two) == list(map(operator.add, one, two))


def test_a_map_is_one_task_per_engine_in_one_request(rc: ipp.Client, hub: FakeHub) -> None:
    result = rc[:].map(abs, range(10))
    assert result.get() == list(range(10))
    assert len(result) == 10
    assert result.progress == 10
    (submit,) = hub.submits
    assert len(submit.contents) == 4


def test_a_map_of_fewer_items_than_engines_uses_only_some(rc: ipp.Client, hub: FakeHub) -> None:
    assert rc[:].map_sync(abs, [-1, -2]) == [1, 2]
    assert hub.submits[-1].targets == [0, 1]


def test_an_empty_map_is_finished_at_once(rc: ipp.Client, hub: FakeHub) -> None:
    result = rc[:].map_async(abs, [])
    assert result.ready()
    assert result.get() == []
    assert list(result) == []
    assert rc[:].map_sync(abs, []) == []
    assert not hub.submits


def test_a_map_of_arrays_gives_an_array(rc: ipp.Client) -> None:
    array = np.arange(101)
    squares = rc[:].map_sync(np.square, array)
    assert isinstance(squares, np.ndarray)
    np.testing.assert_array_equal(squares, array**2)


def test_failures_of_a_map_can_be_values_in_their_places(rc: ipp.Client) -> None:
    result = rc[:].map_async(operator.truediv, [1] * 5, [1, 0, 2, 0, 4], return_exceptions=True)
    values = result.get()
    kinds = [float, ZeroDivisionError, float, ZeroDivisionError, float]
    assert all(isinstance(value, kind) for value, kind in zip(values, kinds, strict=True))
    assert isinstance(values[1], ipp.RemoteError)
    assert values[1].ename == "ZeroDivisionError"
    assert [type(v).__name__ for v in result] == [type(v).__name__ for v in values]


def test_a_failing_map_is_a_composite(rc: ipp.Client) -> None:
    with pytest.raises(ipp.CompositeError):
        rc[:].map_sync(operator.truediv, [1, 1], [1, 0])
    with pytest.raises(ipp.CompositeError):
        rc[0].map_sync(operator.truediv, [1, 1], [1, 0])


def test_map_async_and_map_sync_have_no_block(rc: ipp.Client) -> None:
    for method in (rc[:].map_async, rc[:].map_sync):
        with pytest.raises(TypeError, match="use map"):
            method(abs, [1], block=True)
    assert rc[:].map(abs, [-1], block=True) == [1]


def test_imap_iterates(rc: ipp.Client) -> None:
    assert list(rc[:].imap(abs, range(-5, 0))) == [5, 4, 3, 2, 1]


def test_what_cannot_be_pickled_fails_here_and_the_view_goes_on(rc: ipp.Client) -> None:
    with pytest.raises(TypeError, match="lock"):
        rc[:].push({"lock": threading.Lock()})
    assert rc[:].apply_sync(abs, -1) == [1] * 4


# --- flags ---


def test_flags_are_set_together_or_not_at_all(rc: ipp.Client) -> None:
    view = rc[:]
    assert view.set_flags(block=True, targets=[0]) is view
    assert len(view) == 1
    with pytest.raises(KeyError, match="no flag 'speed'"):
        view.set_flags(block=False, speed=9)
    assert view.block is True


def test_a_blocking_scatter_returns_nothing_and_a_blocking_push_none_of_each_engine(rc: ipp.Client) -> None:
    assert rc[:].scatter("a", range(8), block=True) is None
    assert rc[:].push({"b": 1}, block=True) == [None] * 4
    assert rc[:].update({"b": 2}).get(5) == [None] * 4
    assert rc[0].push({"b": 3}, block=True) is None
    assert rc[:].pull(["a", "b"], block=True)[0] == [range(2), 3]


def test_variables_of_engines_cannot_be_looked_for_as_in_a_dict(rc: ipp.Client) -> None:
    view: Any = rc[:]
    with pytest.raises(TypeError, match=r"ask the engines, for example view\.pull"):
        "a" in view  # noqa: B015 - it raises


def test_targets_of_a_view_can_be_assigned(rc: ipp.Client) -> None:
    view = rc[:]
    view.targets = [2, 0]
    assert view.apply_sync(int, 1) == [1, 1]
    assert view["engine"] == [2, 0]
    view.targets = 3
    assert view["engine"] == 3


def test_a_flag_that_does_not_exist_is_named_when_a_view_is_made(rc: ipp.Client) -> None:
    with pytest.raises(KeyError, match=r"DirectView has no flag 'speed'; have .*block"):
        rc.direct_view(speed=9)
    with pytest.raises(KeyError, match="BroadcastView has no flag 'coalescing'"):
        rc.broadcast_view(coalescing=True)
    with pytest.raises(KeyError, match=r"LoadBalancedView has no flag 'speed'; have .*retries"):
        rc.load_balanced_view(speed=9)
    with pytest.raises(KeyError, match="no flag 'speed'"), rc[:].temp_flags(speed=9):
        pass


def test_temporary_flags_end_with_their_block(rc: ipp.Client, hub: FakeHub) -> None:
    view = rc[:]
    with view.temp_flags(block=True, targets=1, label="mine"):
        assert view.apply(abs, -1) == 1
    assert hub.submits[-1].label == "mine"
    assert view.targets == [0, 1, 2, 3]
    assert not view.block


def test_temporary_flags_are_those_of_one_thread(rc: ipp.Client) -> None:
    view = rc[:]
    inside, seen = threading.Barrier(2), []

    def other() -> None:
        inside.wait(10)
        seen.append((view.label, view.targets))
        view.label = "plain"
        inside.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    with view.temp_flags(label="mine", targets=2):
        inside.wait(10)
        inside.wait(10)
        assert (view.label, view.targets) == ("mine", 2)
    thread.join(10)
    assert seen == [(None, [0, 1, 2, 3])]
    assert view.label == "plain"


def test_temporary_flags_may_be_nested_and_forget_what_was_assigned_inside(rc: ipp.Client) -> None:
    view, other = rc[:], rc[:]
    with view.temp_flags(label="outer"), other.temp_flags(label="other"):
        with view.temp_flags(block=True):
            assert (view.label, view.block, other.label, other.block) == ("outer", True, "other", False)
            view.targets = 1
            assert len(view) == 1
        assert (view.label, view.block, len(view)) == ("outer", False, 4)
        with pytest.raises(KeyError, match="no flag 'speed'"), view.temp_flags(speed=9):
            pass
    assert (view.label, other.label) == (None, None)
    assert view.remote(label="own")(abs)(-1).get() == [1] * 4


def test_coroutines_have_their_own_temporary_flags(rc: ipp.Client) -> None:
    view = rc[:]

    async def call(engine: int) -> Any:
        with view.temp_flags(targets=engine):
            for _ in range(3):
                assert await view.apply_async(abs, -engine) == engine
        return engine

    async def main() -> list[Any]:
        return await asyncio.gather(*(call(engine) for engine in rc.ids))

    assert asyncio.run(main()) == rc.ids
    assert view.targets == rc.ids


def test_a_broadcast_view_is_a_direct_view(rc: ipp.Client, hub: FakeHub, tmp_path: Path) -> None:
    for coalescing in (False, True):
        view = rc.broadcast_view(is_coalescing=coalescing, label="mine")
        assert isinstance(view, ipp.DirectView)
        assert view.is_coalescing is coalescing
        assert view.pull("engine", block=True) == [0, 1, 2, 3]
        assert hub.submits[-1].label == "mine"
        with pytest.raises(ipp.CompositeError, match="1 of 4 results"):
            view.pull("1 // engine", block=True)
    (tmp_path / "script.py").write_text("z = engine + 100\n")
    rc.broadcast_view([2, 1]).run(tmp_path / "script.py", block=True)
    assert repr(rc.broadcast_view([2, 1])) == "<BroadcastView [2, 1]>"
    assert rc.broadcast_view(2)["z"] == 102


def test_a_view_shows_its_engines(rc: ipp.Client) -> None:
    assert repr(rc[:]) == "<DirectView [0, 1, 2, 3]>"
    assert repr(rc[2]) == "<DirectView 2>"
    assert repr(rc.direct_view()) == "<DirectView all>"


def test_a_broadcast_view_runs_files_and_has_a_label(rc: ipp.Client, hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("a = 5")
    view = rc.broadcast_view(label="mine")
    view.run(tmp_path / "script.py").get(5)
    assert view["a"] == [5, 5, 5, 5]
    assert hub.submits[0].label == "mine"
