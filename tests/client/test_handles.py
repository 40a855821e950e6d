"""Handles as a client has them: what it asks for, what it names to the hub, and when it lets go."""

from __future__ import annotations

import gc
import operator

import pytest

import ippmpi as ipp
from client.conftest import Pair
from client.fakes import FakeHub
from helpers import eventually
from ippmpi.client.handles import MOST_NEAR, near, wants
from ippmpi.wire.handles import Handle, Kept
from ippmpi.wire.messages import Free, Placement
from ippmpi.wire.pickling import pack


def kept(task: str, engine: int, size: int = 100) -> Kept:
    return Kept("c", task, engine, engine, "world", "host", 1000 + engine, "list", size)


def given(pair: Pair, engine: int, size: int = 100) -> Handle:
    """Let the client keep a value on *engine*; return the handle."""
    rc, hub = pair
    result = rc[engine].apply_async(abs, 1, keep=True)
    eventually(lambda: hub.submits and hub.submits[-1].task == result.msg_ids[0])
    assert hub.submits[-1].op == "keep"
    hub.reply(result.msg_ids[0], engine, kept(result.msg_ids[0], engine, size))
    handle: Handle = result.get(5)
    return handle


def freed(hub: FakeHub) -> list[tuple[str, int]]:
    said = [m for m in hub.messages if isinstance(m, Free)]
    return [pair for m in said for pair in zip(m.tasks, m.engines, strict=True)]


def test_each_target_has_a_handle_and_each_goes_by_itself(manual: Pair) -> None:
    rc, hub = manual
    result = rc[:3].apply_async(abs, 1, keep=True)
    task = result.msg_ids[0]
    for engine in (2, 0, 1):
        hub.reply(task, engine, kept(task, engine))
    handles = result.get(5)
    assert [handle.engine for handle in handles] == [0, 1, 2]
    assert len(rc.requests.keeper) == 3
    del result
    del handles[1]
    gc.collect()
    eventually(lambda: freed(hub) == [(task, 1)])
    handles.clear()
    gc.collect()
    eventually(lambda: sorted(freed(hub)) == [(task, 0), (task, 1), (task, 2)])
    assert len(rc.requests.keeper) == 0


def test_a_value_whose_handle_nobody_took_is_let_go(manual: Pair) -> None:
    rc, hub = manual
    task = rc.load_balanced_view().apply_async(abs, 1, keep=True).msg_ids[0]
    gc.collect()
    hub.reply(task, 3, kept(task, 3))
    eventually(lambda: gc.collect() is not None and freed(hub) == [(task, 3)])


def test_a_handle_in_a_call_stays_until_that_has_ended(manual: Pair) -> None:
    rc, hub = manual
    handle = given(manual, 1)
    task = handle.task
    rc.load_balanced_view().apply_async(operator.neg, [{"x": handle}])
    del handle
    gc.collect()
    eventually(lambda: len(hub.submits) == 2)
    assert freed(hub) == []
    hub.reply(hub.submits[-1].task, 0, None)
    eventually(lambda: gc.collect() is not None and freed(hub) == [(task, 1)])


def test_a_handle_in_a_call_that_cannot_be_pickled_does_not_stay(manual: Pair) -> None:
    rc, hub = manual
    handle = given(manual, 1)
    with pytest.raises(TypeError):
        rc[0].apply_async(operator.neg, [handle, (_ for _ in ())])
    del handle
    eventually(lambda: gc.collect() is not None and len(freed(hub)) == 1)


def test_a_balanced_task_names_the_engines_that_have_most_of_its_data_first(manual: Pair) -> None:
    rc, hub = manual
    few, many, more = given(manual, 0, 10), given(manual, 1, 1000), given(manual, 0, 20)
    lbv = rc.load_balanced_view()
    lbv.apply_async(operator.neg, [few, many, more])
    lbv.map_async(operator.neg, [few, many])
    lbv.map_async(operator.neg, [many, more], chunksize=1)
    lbv.apply_async(abs, 1)
    eventually(lambda: len(hub.submits) == 9)
    places = [submit.placement.near for submit in hub.submits[3:] if submit.placement is not None]
    assert places == [[1, 0], [0], [1], [1], [0], []]
    rc.close()  # nobody answers


def test_only_so_many_engines_are_named() -> None:
    handles = [Handle(kept("a-1", engine, size=engine)) for engine in range(50)]
    found = near(Placement(retries=3), [*handles, *handles])
    assert found == Placement(retries=3, near=list(range(49, 49 - MOST_NEAR, -1)))


def test_purged_tasks_leave_nothing_and_nothing_is_let_go_twice(manual: Pair) -> None:
    rc, hub = manual
    first, second, third = given(manual, 0), given(manual, 1), given(manual, 2)
    tasks = [first.task, second.task, third.task]
    rc.requests.keeper.purge([first.task], [])
    rc.requests.keeper.purge([], [1])
    eventually(lambda: freed(hub) == [(tasks[0], 0), (tasks[1], 1)])
    rc.requests.keeper.purge(None, [])
    eventually(lambda: len(freed(hub)) == 3)
    del first, second, third
    gc.collect()
    assert rc.wait(timeout=5)
    assert len(freed(hub)) == 3


def test_an_engine_that_answers_nonsense_is_an_error_of_that_task(manual: Pair) -> None:
    rc, hub = manual
    result = rc[0].apply_async(abs, 1, keep=True)
    hub.reply(result.msg_ids[0], 0, "nonsense")
    with pytest.raises(ipp.RemoteError, match="an engine says 'nonsense' of a value that it was to keep"):
        result.get(5)


def test_a_stored_result_that_was_kept_is_a_handle_that_owns_nothing(manual: Pair) -> None:
    rc, hub = manual
    from ippmpi.wire.messages import Content, Reply

    hub.store("x-1", [2], Reply("x-1", 2, Content(pack(kept("x-1", 2)).join())), op="keep", state="ok")
    handle = rc.get_result("x-1").get(5)
    assert handle.kept == kept("x-1", 2)
    assert len(rc.requests.keeper) == 0
    with pytest.raises(TimeoutError):
        handle.get(0.01)
    hub.reply(hub.submits[-1].task, 2, "value")


def test_a_handle_of_an_engine_that_is_gone_or_another_process_says_so_at_once(manual: Pair) -> None:
    rc, hub = manual
    handle, other = given(manual, 1), Handle(kept("a-1", 2)._replace(pid=7))
    other.bind(handle._getter)  # type: ignore[arg-type]
    with pytest.raises(ipp.HandleError, match="its rank is gone: pid 1002 has its place"):
        other.get()
    hub.lose(1, "signal 9 (SIGKILL)")
    eventually(lambda: 1 not in rc.ids)
    with pytest.raises(ipp.HandleError, match=r"<Handle of list, .* on engine 1 .*>: its rank is gone: signal 9"):
        handle.get()


def test_keep_is_taken_from_the_keywords_unless_it_is_the_functions_own() -> None:
    def own(keep: bool) -> bool:
        return keep

    keywords = {"keep": True, "x": 1}
    assert wants(own, keywords, False) is False
    assert wants(abs, keywords, False) is True
    assert keywords == {"x": 1}
    assert wants(abs, keywords, True) is True
    assert wants(type, {"keep": False}, True) is False
    with pytest.raises(TypeError, match="keep='last' is no parameter of"):
        wants(abs, {"keep": "last"}, False)


def test_forms_without_handles_are_refused(rc: ipp.Client) -> None:
    with pytest.raises(TypeError, match="whose values have no handles"):
        rc[:].map(abs, [1], keep=True)
    with pytest.raises(ValueError, match="each item is a task"):
        rc.load_balanced_view(keep=True).map(abs, [1], chunksize=3)
    assert rc[:].map(abs, [-1, -2], keep=False, block=True) == [1, 2]
