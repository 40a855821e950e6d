from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

import ippmpi as ipp
from ippmpi.engine.namespace import Namespace
from ippmpi.wire.functions import set_home
from ippmpi.wire.pickling import pack, unpack


@pytest.fixture
def names() -> Iterator[dict[str, Any]]:
    namespace = Namespace()
    set_home(namespace)
    yield namespace.variables
    set_home(None)


def test_a_reference_becomes_what_the_engine_has_under_its_name(names: dict[str, Any]) -> None:
    names["x"] = value = object()
    assert unpack(pack(ipp.Reference("x")).join()) is value


def test_a_reference_may_be_any_expression_and_lie_anywhere(names: dict[str, Any]) -> None:
    names["a"] = [1, 2, 3]
    length = ipp.Reference("len(a)")
    sent = {"deep": [{"deeper": (ipp.Reference("a[1] + 10"),)}], "f": lambda: length}
    arrived: Any = unpack(pack(sent).join())
    assert arrived["deep"][0]["deeper"] == (12,)
    assert arrived["f"]() == 3


def test_the_same_reference_twice_is_one_value(names: dict[str, Any]) -> None:
    names["made"] = list
    both: Any = unpack(pack([ipp.Reference("made()")] * 2).join())
    assert both[0] is both[1]


@pytest.mark.usefixtures("names")
def test_a_missing_name_is_a_name_error() -> None:
    with pytest.raises(NameError, match="nothing"):
        unpack(pack([ipp.Reference("nothing")]).join())


def test_where_there_is_no_namespace_a_reference_stays_one() -> None:
    reference = ipp.Reference("x")
    assert unpack(pack([reference]).join()) == [reference]
    assert copy.deepcopy(reference) == reference
    assert {reference: 1}[ipp.Reference("x")] == 1
    assert reference != ipp.Reference("y")
    assert repr(reference) == "<Reference 'x'>"


def test_misuse_of_a_reference_is_told_at_once() -> None:
    with pytest.raises(TypeError, match="needs a name or an expression"):
        ipp.Reference(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"use view\.apply"):
        ipp.Reference("f")(1)
