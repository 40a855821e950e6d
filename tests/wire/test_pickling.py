from __future__ import annotations

import copyreg
import functools
import pickle
import struct
import subprocess
import sys
import threading
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ippmpi.errors import ProtocolError
from ippmpi.wire import pickling
from ippmpi.wire.functions import set_home
from ippmpi.wire.pickling import ALIGNMENT, LARGE, NONE, pack, unpack

DTYPES = hnp.scalar_dtypes() | hnp.array_dtypes()
ARRAYS = hnp.arrays(DTYPES, hnp.array_shapes(max_dims=4, max_side=12))
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner) | st.frozensets(st.integers())
    ),
)


class Named(NamedTuple):
    name: str
    value: dict[str, list[OrderedDict[str, np.ndarray]]]


def main(code: str) -> dict[str, Any]:
    """Run *code* as the ``__main__`` of a client would."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(code, "<client>", "exec", dont_inherit=True), names)
    return names


def sizes(flat: bytes | bytearray) -> list[int]:
    (count,) = struct.unpack_from("<I", flat)
    return list(struct.unpack_from(f"<{count}Q", flat, 8))


# --- data ----------------------------------------------------------------------------------------


@given(PLAIN)
def test_data_survives_a_round_trip(value: object) -> None:
    flat = pack(value).join()
    assert unpack(flat) == value
    assert unpack(memoryview(bytearray(flat))) == value


@settings(deadline=None)
@given(ARRAYS)
def test_an_array_survives_and_is_writable(array: np.ndarray[Any, Any]) -> None:
    blob = pack({"a": [array]})
    array = pickle.loads(pickle.dumps(array, 5))  # numpy itself changes the byte order of dates, and the bytes with it
    assert blob.size == len(blob.join()) == sum(memoryview(part).nbytes for part in blob.parts)
    for buffer in (blob.join(), bytearray(blob.join())):
        found: Any = unpack(buffer)["a"][0]  # type: ignore[index]
        assert found.dtype == array.dtype
        assert found.shape == array.shape
        assert found.tobytes() == array.tobytes()
        assert found.flags.writeable


@settings(max_examples=30)
@given(st.lists(st.integers(1025, 5000), min_size=1, max_size=6))
def test_large_buffers_are_aligned_views(lengths: list[int]) -> None:
    flat = bytearray(pack([np.full(n, 7, np.uint8) for n in lengths]).join())
    assert sizes(flat)[1:] == lengths
    start = np.frombuffer(flat, np.uint8).ctypes.data
    for array in unpack(flat):  # type: ignore[attr-defined]
        assert (array.ctypes.data - start) % ALIGNMENT == 0
        array[:] = 9
    assert flat.count(9) >= sum(lengths)


def test_large_buffers_are_not_copied_by_packing() -> None:
    array = np.zeros(100_000)
    blob = pack(array)
    array[:] = 1.5
    assert (unpack(blob.join()) == 1.5).all()  # type: ignore[attr-defined]


@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize("length", [0, 10, 100_000])
def test_only_a_read_only_array_arrives_read_only_whatever_its_size(length: int, readonly: bool) -> None:
    array = np.arange(length)
    array.flags.writeable = not readonly
    assert unpack(pack(array).join()).flags.writeable is not readonly  # type: ignore[attr-defined]


def test_an_array_that_is_not_contiguous_survives() -> None:
    array = np.arange(10_000).reshape(100, 100)[::2, ::3]
    assert (unpack(pack(array).join()) == array).all()  # type: ignore[attr-defined]


@given(st.binary(max_size=200))
def test_any_bytes_that_are_no_blob_are_a_protocol_error(raw: bytes) -> None:
    flat = pack(1).join()
    if raw[:8] != flat[:8]:
        with pytest.raises(ProtocolError, match="not a blob"):
            unpack(raw)


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"x", lambda b: b"\2" + b[1:], lambda b: b[:5]])
def test_a_damaged_blob_is_a_protocol_error(change: Any) -> None:
    with pytest.raises(ProtocolError):
        unpack(change(pack(list(range(9))).join()))


def test_arrays_in_containers_of_any_kind_and_depth_travel_beside_the_pickle() -> None:
    array = np.arange(100_000.0)
    large = [Named(str(i), {"deep": [OrderedDict(array=array + i)]}) for i in range(70)]
    packed = pack(large)
    back = unpack(packed.join())
    assert type(back[5]) is Named
    assert back[69].value["deep"][0]["array"][1] == 70.0
    assert back[0].value["deep"][0]["array"].flags.writeable
    assert len(sizes(packed.join())) > 70  # the pickle, and each array


@pytest.mark.parametrize("value", [(i for i in ()), threading.Lock()], ids=["generator", "lock"])
def test_what_cannot_be_pickled_says_so(value: object) -> None:
    with pytest.raises(TypeError, match=r"cannot pickle '(generator|_thread.lock)'"):
        pack(value)


def test_dicts_with_keys_of_several_types_modules_and_code_survive() -> None:
    def there(value: object) -> Any:
        return unpack(bytearray(pack(value).join()))

    assert there({1: 2, "a": 3, None: 4, (5,): 6}) == {1: 2, "a": 3, None: 4, (5,): 6}
    assert there({"module": np})["module"] is np
    assert eval(there(compile("20 + 1", "<x>", "eval"))) == 21
    assert there(functools.partial(np.add, np.ones(2000)))(1)[0] == 2
    assert there(memoryview(b"x" * 5000)) == b"x" * 5000


def test_a_type_of_ones_own_travels_as_its_reducer_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(copyreg.dispatch_table, type(threading.Lock()), lambda _: (threading.Lock, ()))
    assert unpack(pack({"lock": threading.Lock()}).join())["lock"].acquire()  # type: ignore[index]


def test_data_and_simple_functions_need_no_cloudpickle() -> None:
    code = (
        "import sys\n"
        "from ippmpi.wire.pickling import pack, unpack\n"
        "import json\n"
        "def f(x): return json.dumps(x)\n"
        "assert unpack(pack((f, (1,), {})).join())[0]([2]) == '[2]'\n"
        "assert unpack(pack({'a': [1, 2.0, None]}).join()) == {'a': [1, 2.0, None]}\n"
        "assert not {'cloudpickle', 'numpy', 'IPython'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True, timeout=30)


# --- modules -------------------------------------------------------------------------------------


def test_functions_of_modules_go_by_reference() -> None:
    assert unpack(pack((struct.pack, subprocess.run, np.sum)).join()) == (struct.pack, subprocess.run, np.sum)
    assert b"code" not in pack(subprocess.run).join()


@pytest.mark.parametrize("at_home", [False, True])
def test_a_missing_module_is_named(at_home: bool) -> None:
    pickled = pickle.dumps(struct.pack).replace(b"_struct", b"absent_")
    flat = struct.pack("<IIQ48x", 1, 0, len(pickled)) + pickled
    set_home(Home() if at_home else None)
    try:
        with pytest.raises(
            ModuleNotFoundError, match=f"this {'engine' if at_home else 'client'} has no module 'absent_'"
        ):
            unpack(flat)
    finally:
        set_home(None)


def test_a_module_that_lacks_another_one_is_named_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "found_.py").write_text("import absent_")
    pickled = b"cfound_\nf\n."
    with pytest.raises(ModuleNotFoundError, match="has no module 'absent_', which is imported by 'found_', which what"):
        unpack(struct.pack("<IIQ48x", 1, 0, len(pickled)) + pickled)


class Home:
    def __init__(self) -> None:
        self.variables: dict[str, object] = {"__name__": "__main__"}

    def install(self, name: str, value: object) -> None:
        self.variables[name] = value


# --- large globals -------------------------------------------------------------------------------


@pytest.fixture
def unwarned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickling, "_warned", set())


@pytest.mark.usefixtures("unwarned")
@pytest.mark.parametrize("value", ["b'x' * 2_000_000", "__import__('numpy').zeros(250_000)"])
def test_a_large_global_that_travels_warns_once(value: str) -> None:
    f = main(f"big = {value}\nsmall = 1\ndef g(): return big, small\ndef f(): return g()")["f"]
    with pytest.warns(UserWarning, match=r"'big' \(2\.0 MB\)") as caught:
        assert pack(f).size == pack(f).size
    assert len(caught) == 1


@pytest.mark.usefixtures("unwarned")
def test_large_arguments_and_engines_do_not_warn() -> None:
    names = main(
        """
small = 1
lock = __import__("_thread").allocate_lock()
def f(): return small, lock
def g(): return big
"""
    )
    names["big"] = b"x" * LARGE * 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pack((names["f"], names["big"]))
        set_home(Home())
        try:
            pack(names["g"])
        finally:
            set_home(None)


def test_the_blob_of_none_is_known() -> None:
    assert pack(None).join() == NONE
    assert unpack(NONE) is None
