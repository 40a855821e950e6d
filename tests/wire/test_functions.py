"""A client's ``__main__`` here, and an engine's in another process: no shared classes, no shared globals."""

from __future__ import annotations

import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ippmpi.wire import functions
from ippmpi.wire.functions import set_home
from ippmpi.wire.pickling import pack, pack_call, unpack

ENGINE = """
import struct, sys
from ippmpi.wire.functions import set_home
from ippmpi.wire.pickling import pack, unpack

class Home:
    variables = {"__name__": "__main__", "__builtins__": __builtins__}
    def install(self, name, value):
        if name not in self.variables or name in travelled:
            travelled.add(name)
            self.variables[name] = value

travelled = set()
home = Home()
home.variables["names"] = home.variables
set_home(home)
while size := sys.stdin.buffer.read(8):
    blob = bytearray(sys.stdin.buffer.read(struct.unpack("<Q", size)[0]))
    try:
        function, args, _ = unpack(blob)
        flat = pack((True, function(*args))).join()
    except Exception as error:
        flat = pack((False, f"{type(error).__name__}: {error}")).join()
    sys.stdout.buffer.write(struct.pack("<Q", len(flat)) + flat)
    sys.stdout.buffer.flush()
"""


class Remote:
    """Calls functions in the other process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", ENGINE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdin
        assert self._process.stdout
        self._to, self._from = self._process.stdin, self._process.stdout

    def __call__(self, function: object, *args: object) -> Any:
        flat = pack_call(function, args, {}).join()
        self._to.write(struct.pack("<Q", len(flat)) + flat)
        self._to.flush()
        (size,) = struct.unpack("<Q", self._from.read(8))
        good, value = unpack(bytearray(self._from.read(size)))  # type: ignore[misc]
        if not good:
            raise RuntimeError(value)
        return value

    def close(self) -> None:
        self._to.close()
        self._process.wait(10)
        self._from.close()


@pytest.fixture
def remote() -> Iterator[Remote]:
    remote = Remote()
    yield remote
    remote.close()


def main(code: str) -> dict[str, Any]:
    """Run *code* as the ``__main__`` of a client would."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(code, "<client>", "exec", dont_inherit=True), names)
    return names


# --- names ---------------------------------------------------------------------------------------


def test_a_function_sees_the_names_of_the_engine(remote: Remote) -> None:
    names = main("def put(v):\n  global a\n  a = v\nf = lambda: a + 1")
    remote(names["put"], 3)
    assert remote(names["f"]) == 4


def test_globals_that_the_engine_lacks_travel(remote: Remote) -> None:
    names = main(
        "import math, xml.dom.minidom, os.path as p\n"
        "k = 2\n"
        "def helper(x): return k * x\n"
        "class C:\n  factor = 5\n  def times(self, x): return helper(x) * self.factor\n"
        "def f(x): return C().times(x), math.pi, xml.dom.minidom.Node.TEXT_NODE, p.sep\n"
    )
    assert remote(names["f"], 1) == (10, 3.141592653589793, 3, "/")


def test_an_edited_helper_is_never_stale(remote: Remote) -> None:
    names = main("def helper(): return 1\ndef f(): return helper()")
    assert remote(names["f"]) == 1
    exec("def helper(): return 2", names)
    assert remote(names["f"]) == 2


def test_a_name_that_is_only_assigned_does_not_travel(remote: Remote) -> None:
    names = main("model = None\ndef init():\n  global model\n  model = 7\ndef predict(): return model")
    remote(names["init"])
    assert remote(names["predict"]) == 7


def test_a_class_inside_a_function_sees_globals(remote: Remote) -> None:
    names = main(
        "base = 3\ndef f():\n  class C:\n    x = base + 1\n    def m(self): return base\n  return C.x, C().m()"
    )
    assert remote(names["f"]) == (4, 3)


def test_a_global_that_cannot_travel_is_no_problem_where_it_exists(remote: Remote) -> None:
    names = main(
        "import threading\nlock = threading.Lock()\n"
        "def put():\n  global lock\n  lock = threading.Lock()\n"
        "def g():\n  with lock: return 5\n"
        "def f(): return g()\n"
    )
    with pytest.raises(
        RuntimeError, match=r"NameError: the function reads the global 'lock', which cannot travel .*_thread\.lock"
    ):
        remote(names["f"])
    remote(names["put"])
    assert remote(names["f"]) == 5
    assert remote(names["g"]) == 5


def test_the_name_of_the_module_does_not_travel(remote: Remote) -> None:
    assert remote(main("def f(): return __name__, f.__module__")["f"]) == ("__main__", "__main__")


# --- kinds of functions --------------------------------------------------------------------------


KINDS = """
import asyncio, enum, functools, sys
from collections import namedtuple
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

lambda_with_defaults = lambda x=3, *, y=4: x + y

def factorial(n): return 1 if n < 2 else n * factorial(n - 1)

def even(n): return n == 0 or odd(n - 1)
def odd(n): return n != 0 and even(n - 1)

def adder(n):
    def add(x): return x + n
    return add
closure = adder(5)

def make_recursive():
    def inner(n): return 1 if n < 2 else n * inner(n - 1)
    return inner
recursive_closure = make_recursive()

def make_unfinished():
    def inner(): return late
    if False: late = 1
    return inner
unfinished = make_unfinished()
def empty_cell(): return callable(unfinished)

def numbers(n):
    for i in range(n): yield i
def generator(n): return list(numbers(n))

def minus(a, b): return a - b
partial = functools.partial(minus, b=1)

@functools.lru_cache(maxsize=7)
def remembered(x): return x + 1
def cached(x): return remembered(x), remembered.cache_parameters()["maxsize"]

def one_more(f):
    @functools.wraps(f)
    def wrapper(*args): return f(*args) + 1
    return wrapper
@one_more
def decorated(x): return x

k = 8
@contextmanager
def manager(): yield k
def decorated_by_a_module():  # the wrapper belongs to contextlib, but says that it is __main__.manager
    with manager() as x: return x

class C:
    def __init__(self, v=9): self.v = v
    def plus(self, x): return self.v + x
    @staticmethod
    def static(x): return x
    @classmethod
    def of_class(cls, x): return cls.static(x)
    @property
    def p(self): return self.v
bound_method = C(3).plus
def methods(): return C.of_class(1), C().p

class A:
    def m(self): return 1
class B(A):
    def m(self): return super().m() + 1
def inheritance(): return B().m()

class E(enum.Enum):
    A = 1
def enumeration(): return E.A.name, E(1) is E.A

@dataclass
class Point:
    x: int = 3
def data_class(): return Point().x, repr(Point(4))

Pair = namedtuple("Pair", "a b")
def named_tuple(): return Pair(1, 2).b

T = TypeVar("T")
def type_variable(): return T.__name__

def described(x: int) -> str: "about it"
described.tag = 7
def attributes(): return described.__doc__, described.tag, described.__annotations__["x"] is int, described.__qualname__

def bare(): pass
bare.__doc__ = "set later"
def documentation(): return bare.__doc__

def modules(): return sys.modules["__main__"] is not None

async def coroutine(): return 6
def asynchronous(): return asyncio.run(coroutine())
"""


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("lambda_with_defaults", (), 7),
        ("factorial", (5,), 120),
        ("even", (10,), True),
        ("closure", (1,), 6),
        ("recursive_closure", (4,), 24),
        ("empty_cell", (), True),
        ("generator", (3,), [0, 1, 2]),
        ("partial", (5,), 4),
        ("cached", (1,), (2, 7)),
        ("decorated", (1,), 2),
        ("decorated_by_a_module", (), 8),
        ("bound_method", (4,), 7),
        ("methods", (), (1, 9)),
        ("inheritance", (), 2),
        ("enumeration", (), ("A", True)),
        ("data_class", (), (3, "Point(x=4)")),
        ("named_tuple", (), 2),
        ("type_variable", (), "T"),
        ("attributes", (), ("about it", 7, True, "described")),
        ("documentation", (), "set later"),
        ("modules", (), True),
        ("asynchronous", (), 6),
    ],
)
def test_functions_of_main_run_elsewhere(remote: Remote, name: str, args: tuple[object, ...], expected: object) -> None:
    assert remote(main(KINDS)[name], *args) == expected


def test_a_function_nested_in_a_module_goes_by_value(remote: Remote) -> None:
    inside = 4
    assert remote(lambda x: x + inside, 1) == 5


def test_a_module_may_be_sent_by_value(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    import types

    import cloudpickle

    module = types.ModuleType("only_here")
    exec("def f(): return 11", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", module)
    with pytest.raises(RuntimeError, match="this engine has no module 'only_here'"):
        remote(module.f)
    cloudpickle.register_pickle_by_value(module)
    try:
        assert remote(module.f) == 11
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def test_a_module_made_by_hand_travels_by_value(remote: Remote) -> None:
    import types

    module = types.ModuleType("by_hand")
    module.x = 3  # type: ignore[attr-defined]
    assert remote(main("f = lambda m: m.x")["f"], module) == 3


# --- classes -------------------------------------------------------------------------------------


def test_instances_of_classes_of_main_come_back_as_the_same_class(remote: Remote) -> None:
    names = main(
        "class C:\n  def __init__(self, v): self.v = v\n"
        "  def get(self): return self.v\n"
        "def f(c): return C(c.get() + 1), c"
    )
    new, old = remote(names["f"], names["C"](1))
    assert type(new) is type(old) is names["C"]
    assert (new.v, old.v) == (2, 1)


def test_a_class_is_not_changed_by_its_own_copies(remote: Remote) -> None:
    names = main("k = 1\nclass C:\n  def get(self): return k\ndef f(c): return c")
    method = names["C"].get
    came_back = remote(names["f"], names["C"]())
    assert names["C"].get is method
    names["k"] = 2
    assert came_back.get() == 2


def test_a_class_changed_by_its_owner_is_changed_on_the_engine(remote: Remote) -> None:
    names = main("class C:\n  x = 1\nf = lambda c: (c.x, type(c))")
    assert remote(names["f"], names["C"]())[0] == 1
    names["C"].x = 2
    x, kind = remote(names["f"], names["C"]())
    assert (x, kind) == (2, names["C"])


def test_a_class_of_the_engine_works_here(remote: Remote) -> None:
    make = main("def f():\n  class D:\n    def m(self): return 5\n  return D")["f"]
    kind = remote(make)
    assert kind().m() == 5
    assert remote(main("f = lambda d: d.m()")["f"], kind()) == 5


# --- coming back ---------------------------------------------------------------------------------


def test_a_function_as_result_brings_its_globals(remote: Remote) -> None:
    names = main("k = 3\ndef g(): return k\ndef h(): return g() + k\nf = lambda: (g, h)")
    g, h = remote(names["f"])
    assert (g(), h()) == (3, 6)
    assert g.__globals__ is h.__globals__ is not names
    assert remote(h) == 6


def test_a_result_may_lack_a_global_that_cannot_travel(remote: Remote) -> None:
    names = main("def f():\n  global lock\n  lock = __import__('threading').Lock()\n  return g\ndef g(): return lock")
    with pytest.raises(NameError, match="lock"):
        remote(names["f"])()


def test_another_python_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "PYTHON", (3, 99))
    flat = pack(main("f = lambda: 1")["f"]).join()
    monkeypatch.undo()
    with pytest.raises(TypeError, match=r"came from Python 3\.99, but this process runs"):
        unpack(flat)


def test_threads_may_pack_and_unpack_at_the_same_time() -> None:
    f = main("k = 1\ndef g(x): return x + k\ndef f(x): return g(x)")["f"]
    results: list[object] = []

    def work() -> None:
        results.extend(unpack(pack(f).join())(1) for _ in range(50))  # type: ignore[operator]

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [2] * 200


def test_home_is_kept_until_it_is_taken_back() -> None:
    class Home:
        variables: dict[str, object] = {}  # noqa: RUF012

        def install(self, name: str, value: object) -> None:
            self.variables[name] = value

    home = Home()
    set_home(home)
    try:
        assert functions.get_home() is home
        function: Any = unpack(pack(main("k = 1\nf = lambda: k")["f"]).join())
        assert function.__globals__ is home.variables
        assert home.variables["k"] == 1
    finally:
        set_home(None)
    assert functions.get_home() is None
