"""The picklers that a user may choose instead of the usual one."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import ippmpi as ipp
from ippmpi.engine.namespace import Namespace
from ippmpi.errors import ProtocolError
from ippmpi.wire import pickling
from ippmpi.wire.functions import set_home
from ippmpi.wire.picklers import PICKLERS, check
from ippmpi.wire.pickling import pack, unpack

CHOICES = [pytest.param(name, id=name) for name in PICKLERS]
OF_TEST = "a global of this module"


@pytest.fixture(params=CHOICES)
def pickler(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "dill":
        pytest.importorskip("dill", reason="dill is not installed (make install)")
    return name


@pytest.fixture
def dill() -> str:
    pytest.importorskip("dill", reason="dill is not installed (make install)")
    return "dill"


@pytest.fixture
def names() -> Iterator[dict[str, Any]]:
    """The namespace of an engine, which this process becomes when a test calls ``arrive``."""
    namespace = Namespace()
    yield namespace.variables
    set_home(None)
    pickling.use(None)


def arrive(blob: bytes | bytearray, names: dict[str, Any]) -> Any:
    """Unpickle on an engine with the namespace *names*."""
    namespace = Namespace()
    namespace.variables = names
    set_home(namespace)
    try:
        return unpack(blob)
    finally:
        set_home(None)


def main(code: str) -> dict[str, Any]:
    """Run *code* as the ``__main__`` of a client would."""
    found: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(code, "<client>", "exec", dont_inherit=True), found)
    return found


# --- all of them ---


def test_data_and_arrays_survive_and_arrays_travel_out_of_band(pickler: str) -> None:
    array = np.arange(5000.0)
    value = {"a": [1, "two", (3.0,)], "array": array}
    blob = pack(value, pickler)
    assert len([part for part in blob.parts if len(part) == array.nbytes]) == 1, "the array was copied"
    back: Any = unpack(bytearray(blob.join()))
    assert back["a"] == value["a"]
    np.testing.assert_array_equal(back["array"], array)
    back["array"][0] = 7


def test_functions_of_main_bring_their_helpers(pickler: str, names: dict[str, Any]) -> None:
    f = main("import math\nk = 10\ndef helper(x): return k * x\ndef f(x): return math.sqrt(helper(x))")["f"]
    assert arrive(pack(f, pickler).join(), names)(40) == 20


def test_functions_see_what_the_engine_has(names: dict[str, Any], pickler: str) -> None:
    names["engines_own"] = 5
    f = arrive(pack(main("f = lambda: engines_own")["f"], pickler).join(), names)
    if pickler == "cloudpickle":  # it gives functions globals of their own
        with pytest.raises(NameError):
            f()
    else:
        assert f() == 5


def test_whose_globals_win(names: dict[str, Any], pickler: str) -> None:
    names["x"] = "the engine's"
    f = arrive(pack(main("x = 'the client\\'s'\ndef f(): return x")["f"], pickler).join(), names)
    assert f() == ("the client's" if pickler == "cloudpickle" else "the engine's")


def test_a_class_of_main_keeps_its_identity_there_and_back(pickler: str) -> None:
    kind = main("class Point:\n    def __init__(self, x): self.x = x\n    def twice(self): return 2 * self.x")["Point"]
    back: Any = unpack(pack(kind(4), pickler).join())
    assert back.twice() == 8
    assert type(unpack(pack(back, pickler).join())) is kind


def test_what_answers_a_call_is_pickled_as_the_call_was(pickler: str) -> None:
    try:
        pickling.use(pack([1], pickler).join())
        (kind,) = {pack([2]).join()[4]}
        assert PICKLERS[kind] == pickler
    finally:
        pickling.use(None)
    assert pack([2]).join()[4] == 0


# --- dill ---


def test_dill_takes_what_others_refuse(dill: str) -> None:
    lock = threading.Lock()
    with pytest.raises(TypeError, match="lock"):
        pack([lock])
    (back,) = unpack(pack([lock], dill).join())  # type: ignore[misc]
    assert back.acquire(blocking=False)


def test_dill_also_takes_what_packs_itself(dill: str) -> None:
    lock = threading.Lock()
    f = ipp.depend(lambda: True)(lambda: lock.locked())
    with pytest.raises(TypeError, match="lock"):
        pack(f)
    back: Any = unpack(pack(f, dill).join())
    assert back() is False
    with pytest.raises(TypeError, match="lock"):
        pack(f)


def test_what_dill_made_needs_no_dill_to_be_loaded_where_it_is_plain(dill: str) -> None:
    flat = pack({"a": [1, 2], "f": len}, dill).join()
    code = (
        "import sys; sys.modules['dill'] = None\n"
        "from ippmpi.wire.pickling import unpack\nprint(unpack(sys.stdin.buffer.read())['a'])"
    )
    done = subprocess.run([sys.executable, "-c", code], input=flat, capture_output=True, timeout=60, check=True)
    assert done.stdout == b"[1, 2]\n"


def test_a_global_that_even_dill_cannot_take_matters_only_where_it_is_missing(dill: str, names: dict[str, Any]) -> None:
    source = "class Stubborn:\n    def __reduce__(self): raise TypeError('never')\nx = Stubborn()\ndef f(): return x"
    flat = pack(main(source)["f"], dill).join()
    names["x"] = 3
    assert arrive(flat, names)() == 3
    del names["x"]
    with pytest.raises(NameError, match=r"'x', which cannot travel \(TypeError: never\)"):
        arrive(flat, names)


def test_without_dill_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    picklers = importlib.import_module("ippmpi.wire.picklers")
    picklers._dill_pickler.cache_clear()
    monkeypatch.setitem(sys.modules, "dill", None)
    with pytest.raises(ModuleNotFoundError, match=r"dill is not installed here: pip install dill \(Python: "):
        check("dill")
    for name in ("auto", "cloudpickle"):
        check(name)


def test_a_blob_of_an_unknown_pickler_is_no_blob() -> None:
    flat = bytearray(pack([1], "cloudpickle").join())
    flat[4] = len(PICKLERS)
    with pytest.raises(ProtocolError, match="not a blob"):
        unpack(flat)
    pickling.use(flat)
    assert pack([2]).join()[4] == 0
    assert pickle.loads(pack([2]).parts[-1]) == [2]
