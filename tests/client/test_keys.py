"""Keys of calls: the same in every process, another one when something is different that may matter."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ippmpi as ipp
from ippmpi.client.caching import Cache, Keys, declared, name_of
from ippmpi.client.keys import Walk


def digest(value: object) -> bytes:
    walk = Walk()
    walk.add(value)
    return walk.digest()


def key(function: Callable[..., Any], *args: Any, cache: Cache | None = None, **kwargs: Any) -> str:
    return Keys(function, cache or Cache(), "call").key(args, kwargs).digest


def made(source: str, name: str = "f", **variables: object) -> Callable[..., Any]:
    """Return a function of ``__main__``, as if *source* had been typed there."""
    namespace: dict[str, Any] = {"__name__": "__main__", **variables}
    exec(compile(textwrap.dedent(source), "<somewhere>", "exec"), namespace)
    return namespace[name]


# --- two processes -------------------------------------------------------------------------------

SCRIPT = """
import enum, functools, json, math, re, sys
from collections import Counter, OrderedDict, namedtuple
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from pathlib import Path
import numpy as np
from ippmpi.client.caching import Cache, Keys

SCALE = 3
NAMES = {"alpha", "beta", "gamma", "delta"}
LIMITS = {"low": 0.5, "names": frozenset(NAMES)}

class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"

@dataclass
class Point:
    x: float
    y: float = 0.0
    tags: set = field(default_factory=set)
    def length(self):
        return math.hypot(self.x, self.y) * SCALE

class Child(Point):
    __slots__ = ("more",)
    @property
    def double(self):
        return 2 * self.length()
    @staticmethod
    def one():
        return 1
    @classmethod
    def many(cls, n):
        return [cls(i) for i in range(n)]

Pair = namedtuple("Pair", "left right")

def helper(x):
    return x * SCALE if x in {"a", "b", "c"} else even(x)

def even(n):
    return True if n == 0 else odd(n - 1)

def odd(n):
    return False if n == 0 else even(n - 1)

def outer(factor):
    local = {"k1", "k2", "k3"}
    def inner(x, *, power=2, **more):
        class Local:
            value = x
        return [factor * helper(i) ** power for i in local], Local, lambda: NAMES, Point, np.sqrt(x)
    return inner

@functools.lru_cache(maxsize=10)
def remembered(n):
    return n if n < 2 else remembered(n - 1) + remembered(n - 2)

ARGUMENTS = [
    None, True, 1, 1.5, float("nan"), -0.0, 2j, "text", "\\udc80", b"bytes", bytearray(b"x"), 10**40, -1,
    (1, (2, "x")), [1, [2]], {"k": {1, 2}}, NAMES, frozenset({("a", 1), ("b", 2)}), range(3), slice(1, 2), ...,
    np.arange(6).reshape(2, 3), np.arange(6).reshape(2, 3).T, np.float32(1.5), np.array(["a", "bc"]),
    np.zeros(2, dtype=[("a", "i4"), ("b", "f8")]), np.array([{"x"}, None], dtype=object), np.random.default_rng(1),
    Color.RED, Point(1.0, 2.0, {"p", "q", "r"}), Child(1.0), Pair(1, {"l", "m"}), date(2026, 1, 2), Decimal("1.5"),
    Path("a/b"), re.compile("a+"), Counter("hello"), OrderedDict(a=1), int, Point, Color, Child, Pair, math.sin, len,
    np.add, np, math, helper, outer(2), remembered, functools.partial(helper, 1), Point(3.0).length, "abc".join,
    Exception("x"), [ARG := [1], ARG],
]

FUNCTIONS = [helper, outer(7), remembered, Point, Child.many, lambda x: x + SCALE, functools.partial(outer(1), power=3)]
keys = [Keys(f, Cache(version=NAMES), "call").key((argument,)).digest for f in FUNCTIONS[:1] for argument in ARGUMENTS]
keys += [Keys(f, Cache(), "call").key((1,), {"b": 2, "a": {"z", "y"}}).digest for f in FUNCTIONS]
print(json.dumps(keys))
"""


def keys_of_a_process(folder: Path, seed: str, script: str) -> str:
    folder.mkdir()
    (folder / "script.py").write_text(script)
    environment = os.environ | {"PYTHONHASHSEED": seed}
    command = [sys.executable, "-P", "-W", "error", str(folder / "script.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_call_has_the_same_key_in_processes_with_other_hashes_other_files_and_other_line_numbers(
    tmp_path: Path,
) -> None:
    first = keys_of_a_process(tmp_path / "first", "1", SCRIPT)
    assert first == keys_of_a_process(tmp_path / "second", "2", "\n# typed further below\n\n" + SCRIPT)
    found = first.strip("[]\n ").split(", ")
    assert len(set(found)) == len(found) > 60, "two of these calls have one key"


def test_what_has_come_by_pickle_has_the_same_key_as_what_was_made_here() -> None:
    import pickle

    value = {"a": [1, (2, 3)], "b": datetime(2026, 1, 2, tzinfo=UTC), "c": numpy.arange(3), "d": {"x", "y"}}
    assert digest(pickle.loads(pickle.dumps(value))) == digest(value)


# --- code ----------------------------------------------------------------------------------------

BASE = """
    def f(x, y=1):
        return g(x) + K
    """


def test_a_function_that_is_typed_again_has_the_same_key_and_comments_do_not_count() -> None:
    g = made("def g(x): return x * 2", "g")
    again = made("def g(x):\n\n    # doubles\n    return x * 2", "g")
    assert g is not again
    assert key(made(BASE, g=g, K=3), 1) == key(made("\n\n" + BASE, g=again, K=3), 1)


@pytest.mark.parametrize(
    ("what", "other"),
    [
        ("its code", lambda: made(BASE.replace("+", "-"), g=len, K=3)),
        ("a constant", lambda: made("def f(x, y=1):\n    return g(x) + 3", g=len, K=3)),
        ("a default", lambda: made(BASE.replace("y=1", "y=2"), g=len, K=3)),
        ("a global", lambda: made(BASE, g=len, K=4)),
        ("the type of a global", lambda: made(BASE, g=len, K=3.0)),
        ("a function that it calls", lambda: made(BASE, g=abs, K=3)),
        ("a keyword-only default", lambda: made("def f(x, *, y=1):\n    return g(x) + K", g=len, K=3)),
    ],
)
def test_another_function_has_another_key(what: str, other: Callable[[], Callable[..., Any]]) -> None:
    assert key(made(BASE, g=len, K=3), 1) != key(other(), 1), f"{what} has changed, the key has not"


def test_the_code_of_functions_that_are_called_by_others_counts_at_any_depth() -> None:
    def chain(inner: str) -> str:
        h = made(f"def h(x): return {inner}", "h")
        g = made("def g(x): return h(x)", "g", h=h)
        return key(made("def f(x): return g(x)", g=g), 1)

    assert chain("x + 1") == chain("x+1") != chain("x + 2")


def test_what_a_function_does_not_read_does_not_count() -> None:
    assert key(made(BASE, g=len, K=3, other=1), 1) == key(made(BASE, g=len, K=3, other=threading.Lock()), 1)


def test_functions_that_call_themselves_or_each_other_have_keys() -> None:
    source = """
    def f(n):
        return 0 if n == 0 else g(n - 1)

    def g(n):
        return 1 if n == 0 else f(n - 1)
    """
    assert key(made(source), 1) == key(made(source), 1) != key(made(source.replace("0 if", "2 if")), 1)


def test_closures_count_by_their_values() -> None:
    def adder(n: Any) -> Callable[[int], Any]:
        return lambda x: x + n

    assert key(adder(1), 1) == key(adder(1), 1) != key(adder(2), 1)
    assert key(adder({"a", "b"}), 1) == key(adder({"b", "a"}), 1)


def test_classes_of_main_count_by_their_code() -> None:
    source = """
    class C:
        limit = 3
        def run(self, x):
            return x + {}
    def f(x):
        return C().run(x)
    """
    one, two = source.format(1), source.format(2)
    assert key(made(one), 1) == key(made(one), 1) != key(made(two), 1)
    assert key(made(one), 1) != key(made(one.replace("limit = 3", "limit = 4")), 1)
    assert key(abs, made(one, "C")()) != key(abs, made(two, "C")())


def test_the_name_of_a_function_does_not_count_but_is_told() -> None:
    assert key(made("def f(x): return x"), 1) == key(made("def other(x): return x", "other"), 1)
    assert name_of(made("def other(x): return x", "other")) == "other"
    assert name_of(numpy.linalg.norm) == "numpy.linalg.norm"


# --- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0), (1, True), (0.0, -0.0), ("1", b"1"), ((1, 2), [1, 2]), ({1}, frozenset({1})), ([], ()),
        (["ab", "c"], ["a", "bc"]), ([[1], 2], [[1, 2]]), ({"a": 1}, {"a": 2}), ({1: 2}, {2: 1}), (None, 0),
        (numpy.arange(4), numpy.arange(4.0)), (numpy.arange(4), numpy.arange(4).reshape(2, 2)),
        (numpy.arange(4), [0, 1, 2, 3]), (numpy.float32(1), numpy.float64(1)), (bytearray(b"a"), b"a"),
        (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)), (int, float), (len, abs),
        (SimpleNamespace(a=1), SimpleNamespace(a=2)), ([SHARED := [1], SHARED], [[1], [1]]),
    ],
)  # fmt: skip
def test_arguments_that_differ_have_other_keys(one: object, other: object) -> None:
    assert digest(one) != digest(other)


def test_arguments_that_are_equal_have_one_key_however_they_were_made() -> None:
    assert digest(numpy.arange(6).reshape(2, 3).T) == digest(numpy.array([[0, 3], [1, 4], [2, 5]]))
    assert digest("".join(["a", "b"])) == digest("ab")
    assert digest([x := "".join(["a", "b"]), x]) == digest(["ab", "".join("ab")])
    assert digest([y := (1, "a" * 3), y]) == digest([(1, "aaa"), (1, "aa" + "a")])
    assert digest([z := numpy.float64(1.5), z]) == digest([numpy.float64(1.5), numpy.float64(1.5)])
    assert key(abs, a=1, b=2) == key(abs, b=2, a=1)
    assert digest(float("nan")) == digest(float("nan"))


def test_cycles_end() -> None:
    def cycle() -> list[Any]:
        one: list[Any] = [1]
        one.append({"me": one})
        return one

    assert digest(cycle()) == digest(cycle()) != digest([1, {"me": [1]}])


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(), inner, max_size=4)
        | st.frozensets(st.text() | st.integers(), max_size=4)
    ),
    max_leaves=12,
)


def same(a: Any, b: Any) -> bool:
    """Equal, also in types, and in the order of dicts; nan is nan."""
    if type(a) is not type(b):
        return False
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return same(list(a.items()), list(b.items()))
    if isinstance(a, float):
        return numpy.float64(a).tobytes() == numpy.float64(b).tobytes()
    return bool(a == b)


@given(plain, plain)
def test_two_values_have_one_key_exactly_if_they_are_the_same(a: Any, b: Any) -> None:
    assert (digest(a) == digest(b)) == same(a, b)


@given(plain)
def test_a_copy_has_the_same_key(value: Any) -> None:
    import pickle

    assert digest(pickle.loads(pickle.dumps(value))) == digest(value)


# --- modules and files ---------------------------------------------------------------------------


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Any]:
    """Write a module and import it (again)."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name: str, source: str) -> Any:
        import importlib

        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()
        module = importlib.import_module(name)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return write


def test_a_function_of_a_module_counts_by_the_source_of_its_module(modules: Callable[[str, str], Any]) -> None:
    first = key(modules("mymodel", "def f(x): return x + 1").f, 1)
    assert key(modules("mymodel", "def f(x): return x + 1").f, 1) == first
    assert key(modules("mymodel", "def f(x): return x + 22").f, 1) != first


def test_the_sources_of_modules_that_a_module_uses_count_too(modules: Callable[[str, str], Any]) -> None:
    def run(inner: str) -> str:
        modules("deepest", f"LIMIT = {inner}")
        modules("deeper", "import deepest\ndef g(x): return x + deepest.LIMIT")
        return key(modules("deep", "from deeper import g\ndef f(x): return g(x)").f, 1)

    assert run("1") == run("1") != run("12")


def test_a_module_that_a_function_of_main_uses_or_imports_counts_by_its_source(
    modules: Callable[[str, str], Any],
) -> None:
    def by_global(number: int) -> str:
        return key(made("def f(x): return tools.g(x)", tools=modules("tools", f"def g(x): return x + {number}")), 1)

    def by_import(number: int) -> str:
        modules("tools", f"def g(x): return x + {number}")
        return key(made("def f(x):\n    import tools\n    return tools.g(x)"), 1)

    assert by_global(1) == by_global(1) != by_global(22)
    assert by_import(1) == by_import(1) != by_import(22)


def test_an_installed_package_counts_by_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    first = key(numpy.linalg.norm, 1)
    monkeypatch.setattr(numpy, "__version__", "0.0.1")
    assert key(numpy.linalg.norm, 1) != first


def test_declared_files_count_by_their_content(tmp_path: Path) -> None:
    file, other = tmp_path / "data", tmp_path / "moved"
    file.write_text("1 2 3")
    first = key(abs, 1, cache=Cache(files=[file]))
    assert first != key(abs, 1)
    file.touch()
    assert key(abs, 1, cache=Cache(files=file)) == first
    file.write_text("1 2 4")
    assert key(abs, 1, cache=Cache(files=[str(file)])) != first
    other.write_text("1 2 3")
    assert key(abs, 1, cache=Cache(files=[other])) == first


def test_a_declared_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no-such-file"):
        key(abs, 1, cache=Cache(files=[tmp_path / "no-such-file"]))


def test_another_version_means_other_results() -> None:
    assert key(abs, 1, cache=Cache(version=1)) == key(abs, 1, cache=Cache(version=1))
    assert len({key(abs, 1, cache=Cache(version=v)) for v in (None, 1, 2, "1", {"a"})}) == 5


# --- what has no key -----------------------------------------------------------------------------


def test_a_global_without_a_key_is_named_with_the_function_that_reads_it() -> None:
    inner = made("def g(x):\n    with lock:\n        return x", "g", lock=threading.Lock())
    text = r"the global 'lock', in the function 'g', in the global 'g', in the function 'f': .*_thread.lock"
    with pytest.raises(ipp.UncacheableError, match=text):
        key(made("def f(x): return g(x)", g=inner), 1)


def test_a_global_that_only_engines_have_is_named() -> None:
    with pytest.raises(
        ipp.UncacheableError, match=r"the function 'f': it reads the global 'weights', .*not defined here"
    ):
        key(made("def f(x): return x * weights"), 1)


def test_a_reference_has_no_key() -> None:
    with pytest.raises(ipp.UncacheableError, match="argument 1: <Reference 'x'> is what an engine has"):
        key(abs, 1, ipp.Reference("x"))


def test_names_of_class_bodies_and_globals_that_are_assigned_are_not_missing() -> None:
    source = """
    def f(x):
        global counter
        counter = x
        class Local:
            a = 1
            b = a + len("x")
        return Local.b + counter
    """
    assert key(made(source), 1)


def test_an_open_file_has_no_key(tmp_path: Path) -> None:
    with (tmp_path / "x").open("w") as file, pytest.raises(TypeError, match=r"argument 0: .*TextIOWrapper.*pickled"):
        key(abs, file)


def test_something_else_than_a_cache_is_refused() -> None:
    assert declared(None) is declared(False) is None
    assert declared(True) is not None
    with pytest.raises(
        TypeError, match=r"cache= must be True, False, or ipp.Cache\(files=..., version=...\), not 'yes'"
    ):
        declared("yes")


def test_what_a_remote_and_a_conditional_function_call_counts() -> None:
    @dataclass
    class View:
        FLAGS = ()

        def set_flags(self, **flags: Any) -> View:  # noqa: ARG002 - as a view's
            return self

    def conditional(number: int) -> str:
        return key(ipp.depend(abs, number)(made("def f(x): return x")), 1)

    assert conditional(1) == conditional(1) != conditional(2)
    remote = ipp.RemoteFunction(View(), made("def f(x): return x + 1"))  # type: ignore[arg-type]
    again = ipp.RemoteFunction(View(), made("def f(x): return x + 1"))  # type: ignore[arg-type]
    other = ipp.RemoteFunction(View(), made("def f(x): return x + 2"))  # type: ignore[arg-type]
    assert key(remote, 1) == key(again, 1) != key(other, 1)
