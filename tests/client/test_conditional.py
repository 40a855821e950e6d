from __future__ import annotations

import functools
import json
import sys
import types
from typing import Any

import pytest

import ippmpi as ipp
from clusters import defined
from ippmpi.engine.namespace import Namespace
from ippmpi.wire.functions import set_home
from ippmpi.wire.pickling import pack, unpack

HERE = "a global of this module"


@pytest.fixture
def engine() -> Any:
    """Take a function to an engine's namespace, call it there."""
    namespace = Namespace()

    def call(function: Any, *args: Any) -> Any:
        set_home(None)
        blob = pack((function, args)).join()
        set_home(namespace)
        arrived, there = unpack(blob)  # type: ignore[misc]
        return arrived(*there)

    call.names = namespace.variables  # type: ignore[attr-defined]
    yield call
    set_home(None)


# --- depend ---


@pytest.mark.parametrize(("answer", "runs"), [(True, True), (None, True), (0, True), (False, False)])
def test_only_false_itself_sends_a_task_elsewhere(answer: object, runs: bool) -> None:
    @ipp.depend(lambda: answer)
    def f(x: int) -> int:
        """Say what f is for."""
        return x + 1

    assert isinstance(f, ipp.dependent)
    assert (f.__name__, f.__doc__) == ("f", "Say what f is for.")
    if runs:
        assert f(1) == 2
        return
    with pytest.raises(ipp.UnmetDependency, match="is False here"):
        f(1)


def test_the_check_gets_its_own_arguments_and_may_raise() -> None:
    def check(a: int, b: int = 0) -> bool:
        if a > b:
            raise ipp.UnmetDependency("too large")
        return True

    assert ipp.dependent(abs, check, 1, b=2)(-5) == 5
    with pytest.raises(ipp.UnmetDependency, match="too large"):
        ipp.dependent(abs, check, 1)(-5)
    with pytest.raises(TypeError, match="needs two functions"):
        ipp.dependent(abs, True)  # type: ignore[arg-type]


def test_a_dependent_function_of_main_travels(engine: Any) -> None:
    names = defined("""
        import ippmpi as ipp

        def large():
            return size > 10

        @ipp.depend(large)
        def twice(x):
            return 2 * x
    """)
    engine.names["size"] = 100
    assert engine(names.twice, 4) == 8
    engine.names["size"] = 1
    with pytest.raises(ipp.UnmetDependency, match="large is False here"):
        engine(names.twice, 4)


def test_a_function_may_call_itself_and_others_with_conditions(engine: Any) -> None:
    names = defined("""
        import ippmpi as ipp

        def here():
            return True

        @ipp.depend(here)
        def even(n):
            return n == 0 or odd(n - 1)

        @ipp.depend(here)
        def odd(n):
            return n != 0 and even(n - 1)

        @ipp.depend(here)
        def fact(n):
            return n * fact(n - 1) if n > 1 else 1
    """)
    assert engine(names.even, 10) is True
    assert engine(names.odd, 10) is False
    assert engine(names.fact, 5) == 120
    assert repr(engine(lambda f: f, names.fact)).startswith("<fact depending on <function here")


def test_the_check_comes_before_the_function_is_unpickled(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("only_on_some")
    monkeypatch.setitem(sys.modules, "only_on_some", module)
    names = defined("""
        import ippmpi as ipp
        import only_on_some

        @ipp.require("only_on_some")
        def f():
            return only_on_some.__name__

        def check():
            import sys
            return "only_on_some" in sys.modules

        @ipp.depend(check)
        def g():
            return only_on_some.__name__
    """)
    assert engine(names.f) == engine(names.g) == "only_on_some"
    blobs = [pack(names.f).join(), pack(names.g).join()]
    monkeypatch.delitem(sys.modules, "only_on_some")
    for blob in blobs:
        arrived: Any = unpack(blob)
        with pytest.raises(ipp.UnmetDependency):
            arrived()


def test_large_closures_of_conditional_functions_survive(engine: Any) -> None:
    big = b"x" * 5000
    f = ipp.depend(lambda: True)(lambda: big)
    assert engine(f) == big
    assert engine(lambda g: g, f).__name__ == "<lambda>"
    assert unpack(pack(engine(lambda g: g, f)).join())() == big  # type: ignore[operator]


# --- require ---


def test_required_modules_are_imported_and_bound(engine: Any) -> None:
    names = defined("""
        import ippmpi as ipp

        @ipp.require("json", "xml.dom", __import__("math"))
        def f(x):
            return json.dumps(math.sqrt(x)), xml.dom.__name__
    """)
    assert engine(names.f, 4) == ("2.0", "xml.dom")
    assert engine.names["json"] is json


def test_required_functions_and_objects_are_bound_even_if_the_names_are_taken(engine: Any) -> None:
    names = defined("""
        import ippmpi as ipp

        def helper(x):
            return x + offset

        @ipp.require(helper, offset=5)
        def f(x):
            return globals()["helper"](x)
    """)
    engine.names["offset"] = 1000
    assert engine(names.f, 1) == 6
    assert engine.names["offset"] == 5


def test_a_module_that_is_missing_sends_the_task_elsewhere(engine: Any) -> None:
    f = ipp.require("no_such_module")(defined("f = lambda: 1").f)
    with pytest.raises(ipp.UnmetDependency, match="'no_such_module' cannot be imported here"):
        engine(f)


def test_a_required_helper_that_was_edited_is_never_stale(engine: Any) -> None:
    def version(number: int) -> Any:
        return defined(f"""
            import ippmpi as ipp

            def helper(): return {number}

            @ipp.require(helper)
            def f(): return helper()

            def without(): return helper()
        """)

    assert engine(version(1).f) == 1
    assert engine(version(2).f) == 2
    assert engine(version(3).without) == 3


def test_what_has_no_name_cannot_be_required() -> None:
    with pytest.raises(TypeError, match="name it: x="):
        ipp.require(5)


def test_here_in_the_client_a_conditional_function_is_the_function() -> None:
    assert ipp.require("json", helper=3)(abs)(-1) == 1


# --- interactive ---


def of_module(x: int, *, y: int = 1) -> object:
    """Read a global."""
    return x + y + offset  # type: ignore[name-defined] # noqa: F821 - an engine's


def test_an_interactive_function_reads_the_namespace_of_the_engine(engine: Any) -> None:
    f = ipp.interactive(of_module)
    assert f is not of_module
    assert (f.__name__, f.__doc__, f.__module__) == ("of_module", "Read a global.", "__main__")
    engine.names["offset"] = 100
    assert engine(f, 1) == 102
    assert engine(functools.partial(f, y=10), 1) == 111
    assert of_module.__module__ != "__main__"


def test_an_interactive_function_keeps_its_closure(engine: Any) -> None:
    base = 40

    @ipp.interactive
    def f() -> int:
        return base + 2

    assert engine(f) == 42
    assert ipp.interactive(f) is f


def test_an_interactive_class_travels_by_value(engine: Any) -> None:
    @ipp.interactive
    class Point:
        x = 3

    made = engine(lambda kind: kind(), Point)
    assert made.x == 3
    assert Point.__module__ == "__main__"
