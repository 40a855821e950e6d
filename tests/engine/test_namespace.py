from __future__ import annotations

import sys
from typing import Any

import pytest

from ippmpi.engine.namespace import Namespace
from ippmpi.wire.functions import get_home, set_home


@pytest.fixture
def namespace() -> Namespace:
    return Namespace({"hello": print})


def travel(namespace: Namespace, origin: str, **values: object) -> None:
    namespace.origin = origin
    for name, value in values.items():
        namespace.install(name, value)


def test_it_is_main() -> None:
    namespace = Namespace()
    before = sys.modules["__main__"]
    try:
        namespace.enter()
        assert sys.modules["__main__"] is namespace.module
        assert get_home() is namespace
        assert eval("__name__", namespace.variables) == "__main__"
    finally:
        sys.modules["__main__"] = before
        set_home(None)


# --- whose a name is -----------------------------------------------------------------------------


def test_a_missing_name_arrives_with_its_origin(namespace: Namespace) -> None:
    travel(namespace, "aaa", x=1)
    assert namespace.variables["x"] == 1
    assert namespace.origins() == {"x": "aaa"}


@pytest.mark.parametrize("later", ["aaa", "bbb"])
def test_a_name_that_travelled_is_replaced_by_a_later_call(namespace: Namespace, later: str) -> None:
    travel(namespace, "aaa", x=1)
    travel(namespace, later, x=2)
    assert namespace.variables["x"] == 2
    assert namespace.origins() == {"x": later}


def test_a_name_of_the_user_is_never_replaced(namespace: Namespace) -> None:
    namespace.push({"x": 1})
    travel(namespace, "aaa", x=2)
    assert namespace.variables["x"] == 1
    assert namespace.origins() == {}


def test_pushing_a_name_makes_it_the_users_even_with_the_same_value(namespace: Namespace) -> None:
    travel(namespace, "aaa", x=1)
    namespace.push({"x": 1})
    travel(namespace, "aaa", x=2)
    assert namespace.variables["x"] == 1


def test_a_name_bound_anew_by_code_is_the_users(namespace: Namespace) -> None:
    travel(namespace, "aaa", x=[1])
    exec("x = [1]", namespace.variables)
    travel(namespace, "aaa", x=[2])
    assert namespace.variables["x"] == [1]


def test_a_name_deleted_by_code_travels_again(namespace: Namespace) -> None:
    travel(namespace, "aaa", x=[1])
    exec("del x", namespace.variables)
    travel(namespace, "bbb", x=[2])
    assert namespace.variables["x"] == [2]


def test_what_is_not_bound_any_more_is_let_go(namespace: Namespace) -> None:
    class Large:
        pass

    import weakref

    large: Any = Large()
    alive = weakref.ref(large)
    travel(namespace, "aaa", x=large)
    del large
    exec("del x", namespace.variables)
    assert alive() is not None
    namespace.forget_rebound()
    assert alive() is None


# --- requests ------------------------------------------------------------------------------------


def test_push_binds_names_and_attributes(namespace: Namespace) -> None:
    namespace.push({"a": namespace, "b": 1})
    namespace.push({"a.origin": "x", "a.module.value": 5})
    assert namespace.variables["b"] == 1
    assert namespace.origin == "x"
    assert namespace.module.value == 5


@pytest.mark.parametrize("name", ["", "a b", "1a", "a.", ".a", "a[0]", "a()"])
def test_push_refuses_what_is_no_name_before_it_binds_anything(namespace: Namespace, name: str) -> None:
    with pytest.raises(ValueError, match="cannot push under"):
        namespace.push({"good": 1, name: 2})
    assert "good" not in namespace.variables


def test_push_to_an_attribute_of_nothing_is_a_name_error(namespace: Namespace) -> None:
    with pytest.raises(NameError, match="nobody"):
        namespace.push({"nobody.x": 1})


def test_pull_evaluates_expressions(namespace: Namespace) -> None:
    namespace.push({"a": 2})
    assert namespace.pull("a * 3") == 6
    assert namespace.pull(["a", "[a]", "len('abc')"]) == [2, [2], 3]
    with pytest.raises(NameError, match="missing"):
        namespace.pull(["a", "missing"])


def test_clear_forgets_all_but_the_initial_names(namespace: Namespace) -> None:
    namespace.define("later", 1)
    namespace.push({"a": 2, "hello": 3})
    travel(namespace, "aaa", x=1)
    namespace.clear()
    assert set(namespace.variables) == {"__name__", "__builtins__", "__doc__", "hello", "later"}
    assert namespace.variables["hello"] is print
    assert namespace.origins() == {}


def test_what_is_offered_is_there_until_something_of_that_name_travels_or_is_pushed() -> None:
    space = Namespace()
    space.offer({"rank": 3, "size": 4, "kept": 5})
    assert space.pull(["rank", "size", "kept"]) == [3, 4, 5]
    space.install("rank", "of a client")
    space.push({"size": "of the user"})
    space.install("size", "of a client")
    assert space.pull(["rank", "size", "kept"]) == ["of a client", "of the user", 5]
    space.clear()
    assert space.pull(["rank", "size", "kept"]) == [3, 4, 5]
