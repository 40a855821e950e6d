from __future__ import annotations

import abc
import asyncio
import concurrent.futures
import json
import pickle
import sys
import traceback
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ippmpi.errors import RemoteError, TaskAborted
from ippmpi.wire.exceptions import MOST_BYTES, Retyped, retyped, take_apart


class PickyError(Exception):
    """Cannot be made from its arguments."""

    def __init__(self, first: int, second: str) -> None:
        super().__init__(f"{first} {second}")
        self.first = first
        self.handle = object()
        self.where = "a name that a RemoteError needs"

    def __init_subclass__(cls) -> None:
        raise AssertionError("nobody may be told")


class AbstractError(ValueError, abc.ABC):
    pass


class MetaMeta(type):
    def __new__(cls, name: str, bases: tuple[type, ...], names: dict[str, Any]) -> Any:
        if "Retyped" in [base.__name__ for base in bases]:
            raise TypeError("not combined")
        return super().__new__(cls, name, bases, names)


class StubbornError(LookupError, metaclass=MetaMeta):
    pass


class PropertyError(ValueError):
    @property
    def ename(self) -> str:
        return "mine"


class MyStop(StopIteration):
    pass


def sent(error: BaseException) -> RemoteError:
    """Return what a client makes of *error*."""
    remote = RemoteError(type(error).__name__, str(error), f"Traceback\n{error!r}", {"engine_id": 1, "rank": 1})
    remote.origin = take_apart(error)
    return retyped(remote)


def raised(source: str) -> Exception:
    try:
        exec(source)
    except Exception as error:
        return error
    raise AssertionError(source)


@pytest.mark.parametrize(
    "source",
    [
        "1 / 0",
        "[][1]",
        "{}['a']",
        "open('/nowhere/at/all')",
        "import nowhere_at_all",
        "b'\\xff'.decode()",
        "compile('a b', 'file', 'exec')",
        "nothing_of_that_name",
        "int('x')",
        "raise ValueError('a', 1, None, 2.5, b'x', ('b', [1, {'c': ()}]))",
        "raise ValueError",
        "assert False",
    ],
)
def test_builtin_exceptions_keep_type_and_arguments(source: str) -> None:
    original = raised(source)
    error = sent(original)
    assert isinstance(error, type(original))
    assert isinstance(error, RemoteError)
    assert error.args == original.args
    assert (type(error).__name__, type(error).__module__) == (type(original).__name__, "builtins")
    assert (error.ename, error.evalue) == (type(original).__name__, str(original))
    assert str(error) == f"[engine 1 (rank 1 on ?)] {error.ename}: {error.evalue}"


def test_what_c_code_keeps_beside_the_arguments_arrives() -> None:
    error: Any = sent(raised("open('/nowhere/at/all')"))
    assert (error.errno, error.filename) == (2, "/nowhere/at/all")
    error = sent(raised("import nowhere_at_all"))
    assert error.name == "nowhere_at_all"
    error = sent(raised("compile('a b', 'file', 'exec')"))
    assert (error.filename, error.lineno) == ("file", 1)


def test_a_class_that_wants_other_arguments_is_rebuilt_without_calling_it() -> None:
    error: Any = sent(PickyError(1, "b"))
    assert isinstance(error, PickyError)
    assert error.args == ("1 b",)
    assert error.first == 1
    assert not hasattr(error, "handle")
    assert error.where() == "engine 1 (rank 1 on ?)"


def test_attributes_that_are_plain_data_arrive() -> None:
    error: Any = sent(raised("import json; json.loads('{]')"))
    assert isinstance(error, json.JSONDecodeError)
    assert (error.pos, error.doc) == (1, "{]")


def test_classes_with_a_metaclass_and_with_properties_are_no_problem() -> None:
    assert isinstance(sent(AbstractError("x")), AbstractError)
    error = sent(PropertyError("x"))
    assert isinstance(error, PropertyError)
    assert error.evalue == "x"


def test_a_class_that_cannot_be_combined_gives_one_of_its_base() -> None:
    error = sent(StubbornError("x"))
    assert isinstance(error, LookupError)
    assert not isinstance(error, StubbornError)
    assert error.ename == "StubbornError"


def test_a_class_that_is_not_known_here_gives_one_of_its_base(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("only_there")
    exec("class Odd(KeyError): pass\nclass Plain(Exception): pass", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_there", module)
    odd, plain = RemoteError("Odd", "x"), RemoteError("Plain", "x")
    odd.origin, plain.origin = take_apart(module.Odd("x")), take_apart(module.Plain("x"))
    monkeypatch.delitem(sys.modules, "only_there")
    assert isinstance(retyped(odd), KeyError)
    assert retyped(plain) is plain


def test_nothing_is_imported_but_what_belongs_to_python_or_to_an_imported_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / "not_imported_yet.py").write_text("class Odd(Exception): pass")
    monkeypatch.syspath_prepend(str(tmp_path))
    error = RemoteError("Odd", "x")
    error.origin = (["not_imported_yet:Odd"], b"")
    assert retyped(error) is error
    assert "not_imported_yet" not in sys.modules
    monkeypatch.setitem(sys.modules, "mpi4py", ModuleType("mpi4py"))
    monkeypatch.delitem(sys.modules, "mpi4py.MPI", raising=False)
    error.origin = (["mpi4py.MPI:Exception"], b"")
    assert retyped(error) is error  # or MPI would start here
    monkeypatch.delitem(sys.modules, "netrc", raising=False)
    error.origin = (["netrc:NetrcParseError"], b"")
    assert type(retyped(error)).__name__ == "NetrcParseError"


@pytest.mark.parametrize(
    "error",
    [
        StopIteration(1),
        MyStop(),
        StopAsyncIteration(),
        asyncio.CancelledError(),
        concurrent.futures.CancelledError(),
        ExceptionGroup("x", [ValueError()]),
        SystemExit(1),
        KeyboardInterrupt(),
        GeneratorExit(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_means_something_to_the_machinery_stays_a_plain_remote_error(error: BaseException) -> None:
    assert take_apart(error) == ([], b"")
    plain = RemoteError("x", "y")
    plain.origin = ([f"{k.__module__}:{k.__qualname__}" for k in type(error).__mro__], b"")  # from a liar
    assert type(retyped(plain)) is RemoteError


@pytest.mark.parametrize("name", ["os:system", "builtins:dict", "builtins:BaseException", "x", "os:", "nope:Nope", ":"])
def test_names_of_what_is_no_exception_are_ignored(name: str) -> None:
    error = RemoteError("x", "y")
    error.origin = ([name], b"")
    assert retyped(error) is error


def test_a_class_with_a_name_that_is_no_text_does_not_travel() -> None:
    odd = type("Odd", (Exception,), {"__module__": "\udcff"})
    assert take_apart(odd()) == ([], b"")
    assert isinstance(sent(ValueError("\udcff")), ValueError)


def test_an_error_of_an_inner_cluster_keeps_its_type() -> None:
    error = sent(sent(ZeroDivisionError("x")))
    assert isinstance(error, ZeroDivisionError)
    assert isinstance(sent(TaskAborted("x")), TaskAborted)


def test_large_or_living_arguments_do_not_travel() -> None:
    error = sent(ValueError("x" * MOST_BYTES, 1))
    assert isinstance(error, ValueError)
    assert len(error.args) == 1
    _, made = take_apart(ValueError(object()))
    assert made == b""
    assert isinstance(sent(KeyError(object())), KeyError)


def test_a_traceback_is_shown_once() -> None:
    shown = "".join(traceback.format_exception(sent(ValueError("no"))))
    assert shown.startswith("ValueError: [engine 1")
    assert shown.count("ValueError('no')") == 1


def test_a_retyped_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(sent(KeyError("a", 1))))
    assert isinstance(error, KeyError)
    assert isinstance(error, Retyped)
    assert error.args == ("a", 1)
    assert error.engine_info == {"engine_id": 1, "rank": 1}
    assert len(error.__notes__) == 1


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(deadline=None)
@given(st.lists(PLAIN | st.just(object()), max_size=4))
def test_arguments_arrive_as_they_were_or_not_at_all(arguments: list[Any]) -> None:
    error = sent(ValueError(*arguments))
    assert isinstance(error, ValueError)
    assert error.args in (tuple(arguments), (error.evalue,))


@settings(deadline=None)
@given(st.lists(st.text(), max_size=3), st.binary())
def test_whatever_an_engine_says_there_is_an_error(names: list[str], made: bytes) -> None:
    error = RemoteError("x", "y")
    error.origin = ([*names, "builtins:OSError"], made)
    assert isinstance(retyped(error), RemoteError)
