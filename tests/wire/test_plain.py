"""Functions whose code is all there is to them are pickled once, and rebuilt once in a namespace."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ippmpi.errors import ProtocolError
from ippmpi.wire import plain
from ippmpi.wire.functions import set_home
from ippmpi.wire.pickling import ALIGNMENT, CALL, pack_call, unpack

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()


class Home:
    def __init__(self) -> None:
        self.variables: dict[str, object] = {"__name__": "__main__", "__builtins__": __builtins__}

    def install(self, name: str, value: object) -> None:
        self.variables[name] = value


@pytest.fixture
def home() -> Iterator[Home]:
    """Be an engine from now on."""
    found = Home()
    set_home(found)
    yield found
    set_home(None)


def main(code: str, **names: object) -> Any:
    """Return ``f`` of a client's ``__main__`` that runs *code*."""
    variables: dict[str, Any] = {"__name__": "__main__", **names}
    exec(compile(code, "<client>", "exec", dont_inherit=True), variables)
    return variables["f"]


def sent(function: object, *args: object, **kwargs: object) -> bytes:
    return pack_call(function, args, kwargs).join()


def is_call(blob: bytes) -> bool:
    return struct.unpack_from("<I", blob, 4)[0] == CALL


@given(args=st.lists(SCALARS, max_size=4))
def test_a_call_of_a_plain_function_comes_out_as_it_went_in(args: list[object]) -> None:
    blob = sent(main("def f(*a): return list(a)"), *args)
    assert is_call(blob)
    function, got, kwargs = unpack(blob)  # type: ignore[misc]
    assert (list(got), kwargs) == (args, {})
    assert function(*got) == args


@pytest.mark.parametrize(
    "code",
    [
        "def make(n):\n    return lambda: n\nf = make(1)",
        "def f(x=1): return x",
        "def f(*, x=1): return x",
        "def f() -> int: return 1",
        "def f(): return 1\nf.tag = 2",
        "def f(): return 1\nf.__name__ = 'g'",
        "def f(): return 1\nf.__qualname__ = 'a.g'",
        "def f(): return 1\nf.__doc__ = 'text'",
        "def f(): return 1\nf.__module__ = 'other'",
        "n = 1\ndef f(): return n",
        "n = 1\ndef f(): return [lambda: n for _ in 'a']",
        "import functools\nf = functools.partial(print)",
        "class f: pass",
        "f = len",
    ],
)
def test_what_has_more_to_it_than_code_is_pickled_at_every_call(code: str) -> None:
    function = main(code)
    assert plain.pickled(function) is None
    assert not is_call(sent(function))


def test_a_function_of_a_module_goes_by_its_name() -> None:
    assert plain.pickled(struct.calcsize) is None
    assert not is_call(sent(is_call))


@pytest.mark.parametrize("change", ["defaults", "attribute", "global", "name"])
def test_a_function_that_was_plain_is_looked_at_again_at_every_call(change: str) -> None:
    function: FunctionType = main("def f(x=None): return helper(x)")
    function.__defaults__ = None
    before = sent(function, 1)
    assert is_call(before)
    changes: dict[str, Callable[[], object]] = {
        "defaults": lambda: setattr(function, "__defaults__", (5,)),
        "attribute": lambda: setattr(function, "tag", 5),
        "global": lambda: function.__globals__.update(helper=5),
        "name": lambda: setattr(function, "__name__", "other"),
    }
    changes[change]()
    assert not is_call(sent(function, 1))


def test_two_functions_of_the_same_text_do_not_stand_for_each_other() -> None:
    first, second = main("def f(): return 1"), main("\n\ndef f(): return 1")
    assert first.__code__.co_firstlineno != second.__code__.co_firstlineno
    lines = [unpack(sent(f))[0].__code__.co_firstlineno for f in (first, second, first)]  # type: ignore[index]
    assert lines == [1, 3, 1]


def test_an_engine_builds_a_plain_function_once(home: Home) -> None:
    function = main("def f(): return 1")
    one, other = (unpack(sent(function, n))[0] for n in (1, 2))  # type: ignore[index]
    assert one is other
    assert one.__globals__ is home.variables


def test_a_function_is_built_anew_in_another_namespace(home: Home) -> None:
    blob = sent(main("def f(): return x"))
    home.variables["x"] = 1
    assert unpack(blob)[0]() == 1  # type: ignore[index]
    other = Home()
    other.variables["x"] = 2
    set_home(other)
    assert unpack(blob)[0]() == 2  # type: ignore[index]


@pytest.mark.usefixtures("home")
def test_what_is_remembered_is_bounded() -> None:
    for n in range(2 * plain.MOST + 10):
        unpack(sent(main(f"def f(): return {n}")))
    assert len(plain.sent) <= plain.MOST
    assert len(plain.rebuilt) <= plain.MOST
    large = main("def f(): return " + repr("x" * plain.LARGEST))
    assert unpack(sent(large))[0]() == "x" * plain.LARGEST  # type: ignore[index]
    assert not any(len(key) > plain.LARGEST for key in plain.rebuilt)


@pytest.mark.parametrize(
    ("count", "size", "rest"), [(1, 10, 54), (3, 10, 54), (2, 1 << 60, 5), (2, 64, 1), (2, 64, 63)]
)
def test_a_call_that_contradicts_itself_is_refused(count: int, size: int, rest: int) -> None:
    blob = struct.pack("<IIQQ40x", count, CALL, size, rest) + bytes(ALIGNMENT)
    with pytest.raises(ProtocolError, match=f"not a call: {count} parts"):
        unpack(blob)
