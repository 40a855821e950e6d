from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from ippmpi.errors import HandleError
from ippmpi.wire import handles
from ippmpi.wire.handles import Handle, Kept, handle_of, noting, set_resolver, value
from ippmpi.wire.pickling import pack, pack_noting, unpack

KEPT = Kept("c", "a-1", 3, 1, "w", "node", 4711, "numpy.ndarray", 8000)


@pytest.fixture
def engine() -> Iterator[list[Kept]]:
    """Make this process one where handles become text; return what they stood for."""
    found: list[Kept] = []

    def resolve(kept: Kept) -> object:
        found.append(kept)
        return f"value of {kept.task}"

    set_resolver(resolve)
    yield found
    set_resolver(None)


def test_a_handle_is_itself_again_where_there_are_no_values() -> None:
    handle = handle_of(KEPT)
    assert pickle.loads(pickle.dumps(handle)) is handle
    assert copy.deepcopy([handle])[0] is copy.copy(handle) is handle


def test_a_handle_that_nobody_has_any_more_is_made_anew() -> None:
    handle = handle_of(KEPT)
    pickled, gone = pickle.dumps(handle), weakref.ref(handle)
    del handle
    gc.collect()
    assert gone() is None
    assert pickle.loads(pickled).kept == KEPT


def test_a_handle_becomes_the_value_where_there_are_values_wherever_it_is(engine: list[Kept]) -> None:
    call = pack({"here": [Handle(KEPT), (Handle(KEPT._replace(task="a-2")),)]}).join()
    assert unpack(call) == {"here": ["value of a-1", ("value of a-2",)]}
    assert [kept.task for kept in engine] == ["a-1", "a-2"]


@pytest.mark.parametrize("pickler", ["auto", "cloudpickle"])
def test_what_is_packed_knows_its_handles(pickler: str) -> None:
    first, second = Handle(KEPT), Handle(KEPT._replace(task="a-2"))
    assert set(pack_noting([first, {"x": second}], pickler).handles) == {first, second}
    assert pack_noting([1, 2], pickler).handles == ()
    assert pack([first]).handles == ()


def test_noting_is_over_with_its_block_also_after_an_error() -> None:
    with pytest.raises(TypeError), noting() as found:
        pickle.dumps([Handle(KEPT), (_ for _ in ())])
    assert len(found) == 1
    pickle.dumps(Handle(KEPT))
    assert len(found) == 1


def test_handles_are_equal_if_they_stand_for_the_same() -> None:
    assert Handle(KEPT) == Handle(KEPT)
    assert len({Handle(KEPT), Handle(KEPT), Handle(KEPT._replace(engine=4))}) == 2
    assert Handle(KEPT) != KEPT


def test_a_handle_shows_rank_type_and_size() -> None:
    handle = Handle(KEPT)
    assert repr(handle) == "<Handle of numpy.ndarray, 8 kB, on engine 3 (rank 1 of w on node, pid 4711): a-1>"
    facts = (handle.engine, handle.rank, handle.world, handle.host, handle.pid, handle.type, handle.size, handle.task)
    assert facts == (3, 1, "w", "node", 4711, "numpy.ndarray", 8000, "a-1")
    sizes = [repr(Handle(KEPT._replace(size=size))).split(", ")[1] for size in (28, 1_500_000, 3 * 10**9)]
    assert sizes == ["28 bytes", "1.5 MB", "3 GB"]


class Asking:
    """A client that is asked for a value."""

    def __init__(self) -> None:
        self.asked: list[tuple[Handle, float | None]] = []

    def get_kept(self, handle: Handle, timeout: float | None) -> Any:
        self.asked.append((handle, timeout))
        return "value"


def test_a_handle_asks_the_client_that_it_was_bound_to_first() -> None:
    handle, first, second = Handle(KEPT), Asking(), Asking()
    handle.bind(first)
    handle.bind(second)
    assert (handle.get(5), first.asked, second.asked) == ("value", [(handle, 5)], [])


def test_a_handle_without_a_client_says_how_to_use_it() -> None:
    with pytest.raises(HandleError, match=r"belongs to no client here.*client\[3\]\.apply_sync"):
        Handle(KEPT).get()


def test_a_process_that_has_had_a_handle_knows_that() -> None:
    Handle(KEPT)
    assert handles.seen
    assert value("x") == "x"
