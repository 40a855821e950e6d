"""Keys of calls: equal for equal calls in every process, another one for whatever may give another result.

Pickles will not do: they depend on the order of sets, on which strings are one object, and on where code was written.
So a value is walked through, and all that it consists of is fed to a hash, each part with its type and length, so that
no two values look alike. Sets count without their order. What was seen before is a number, so cycles end; that only
holds for what can be changed, or has parts that can: the rest may be one object here and two elsewhere. Objects are
what pickle would make them of (``__reduce_ex__``). ``codekeys.py`` knows what functions, classes and modules consist
of.
"""

from __future__ import annotations

import copyreg
import pickle
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from types import FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any

from ippmpi.client import codekeys
from ippmpi.client.conditional import dependent
from ippmpi.errors import UncacheableError
from ippmpi.wire.references import Reference

DIGEST_BYTES = 20

REDUCE = 4
"""The pickle protocol whose reductions are walked: that of arrays copies them, but has no out-of-band buffers."""


DEPTH = 3
"""Up to here tuples in tuples are looked at twice, so as not to be numbered."""

SHOWN = 5
"""How much of the way to what has no key is told."""


class Walk:
    """Feeds values to one hash. ``place`` says where in the call it is, for errors."""

    def __init__(self, outer: Walk | None = None) -> None:
        """Start; with *outer*, an element of one of its sets."""
        self._hash = blake2b(digest_size=DIGEST_BYTES)
        self._seen: dict[int, int] = {}
        self._alive: list[object] = []  # what was seen: a number must not come twice
        self.place: list[str] = [] if outer is None else outer.place
        self._open_sets: list[object] = [] if outer is None else outer._open_sets

    def digest(self) -> bytes:
        """Return the digest of all that was added."""
        return self._hash.digest()

    def mark(self, tag: str, data: bytes | memoryview = b"", *, count: int | None = None) -> None:
        """Feed one part."""
        size = memoryview(data).nbytes if count is None else count
        self._hash.update(f"{tag}:{size};".encode())
        if len(data):
            self._hash.update(data)

    def text(self, tag: str, text: str) -> None:
        """Feed a text."""
        self.mark(tag, text.encode("utf-8", "surrogatepass"))

    @contextmanager
    def at(self, place: str) -> Iterator[None]:
        """Note what is being walked through."""
        self.place.append(place)
        try:
            yield
        finally:
            self.place.pop()

    def fail(self, problem: str) -> UncacheableError:
        """Return the error about what is being walked through."""
        where = ", in ".join(reversed(self.place[-SHOWN:])) or "the call"
        return UncacheableError(f"cache= needs a key for the call, but {where}: {problem}")

    # --- values ------------------------------------------------------------------------------

    def add(self, value: object) -> None:
        """Feed any value.

        Raises:
            UncacheableError: it has no key.
        """
        kind = type(value)
        atom = _ATOMS.get(kind)
        if atom is not None:
            self.mark(kind.__name__, atom(value))
            return
        if kind is tuple and _is_plain(value, DEPTH):
            self.sequence("tuple", value)  # type: ignore[arg-type]
        elif _is_scalar(value):
            self._array(value)
        elif not self._is_known(value):
            self._add_new(value, kind)

    def _add_new(self, value: object, kind: type) -> None:
        walk = _KINDS.get(kind)
        if walk is not None:
            walk(self, value)
        elif isinstance(value, type):
            codekeys.add_class(self, value)
        elif _is_array(value):
            self._array(value)
        else:
            self._object(value)

    def _is_known(self, value: object) -> bool:
        number = self._seen.get(id(value))
        if number is None:
            self._seen[id(value)] = len(self._seen)
            self._alive.append(value)
            return False
        self.mark("again", count=number)
        return True

    def sequence(self, tag: str, items: Iterable[object]) -> None:
        """Feed items in their order."""
        items = list(items)
        self.mark(tag, count=len(items))
        for item in items:
            self.add(item)

    def mapping(self, tag: str, items: Iterable[tuple[object, object]]) -> None:
        """Feed keys and values in their order."""
        items = list(items)
        self.mark(tag, count=len(items))
        for key, value in items:
            self.add(key)
            self.add(value)

    def names(self, tag: str, variables: dict[str, Any], what: str) -> None:
        """Feed named values, whose order does not count."""
        self.mark(tag, count=len(variables))
        for name in sorted(variables):
            self.text("name", name)
            with self.at(f"{what} {name!r}"):
                self.add(variables[name])

    def unordered(self, tag: str, items: Iterable[object]) -> None:
        """Feed the elements of a set."""
        if any(items is each for each in self._open_sets):
            raise self.fail("a set contains itself")
        self._open_sets.append(items)
        digests = []
        for item in items:
            walk = Walk(self)
            walk.add(item)
            digests.append(walk.digest())
        self._open_sets.pop()
        self.mark(tag, count=len(digests))
        for digest in sorted(digests):
            self.mark("element", digest)

    def _array(self, value: Any) -> None:
        kind = value.dtype
        self.text("array", f"{kind.descr if kind.fields else kind.str} {value.shape}")
        if kind.hasobject:
            self.sequence("objects", value.ravel().tolist())
            return
        flat = value if value.flags.c_contiguous else value.copy(order="C")
        self.mark("data", memoryview(flat.reshape(-1).view("u1")) if flat.nbytes else b"")

    def _object(self, value: object) -> None:
        reduced = self._reduced(value)
        if isinstance(reduced, str):
            module = getattr(value, "__module__", None) or pickle.whichmodule(value, reduced)  # type: ignore[attr-defined]
            self.text("global", f"{module}:{reduced}")
            codekeys.add_origin(self, module)
            return
        maker, arguments, *rest = reduced
        state, items, pairs = (*rest, None, None, None)[:3]
        self.mark("object")
        self.add(maker)
        self.add(arguments)
        if isinstance(state, dict) and all(type(name) is str for name in state):
            self.names("state", state, "the attribute")
        else:
            self.add(state)
        self.sequence("items", () if items is None else items)
        self.mapping("pairs", () if pairs is None else pairs)

    def _reduced(self, value: object) -> Any:
        try:
            reduce = copyreg.dispatch_table.get(type(value))
            reduced = reduce(value) if reduce is not None else value.__reduce_ex__(REDUCE)
        except Exception as error:  # whatever the user's classes raise
            raise self.fail(f"{_shown(value)} cannot be pickled ({type(error).__name__}: {error})") from error
        if not isinstance(reduced, str | tuple):
            raise self.fail(f"{_shown(value)} cannot be pickled (its __reduce_ex__ gave {type(reduced).__name__})")
        return reduced


def _shown(value: object) -> str:
    return f"a value of type {type(value).__module__}.{type(value).__qualname__}"


def _is_array(value: object) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and type(value) is numpy.ndarray


def _is_scalar(value: object) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.generic)


def _is_plain(value: Any, depth: int) -> bool:
    """Say whether a tuple has only atoms, and tuples of them, in it."""
    return all(
        type(item) in _ATOMS or (type(item) is tuple and depth > 0 and _is_plain(item, depth - 1)) for item in value
    )


def _complex(value: complex) -> bytes:
    return struct.pack("<2d", value.real, value.imag)


_ATOMS: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda _: b"",
    bool: lambda value: b"1" if value else b"0",
    int: lambda value: value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True),
    float: lambda value: struct.pack("<d", value),
    complex: _complex,
    str: lambda value: value.encode("utf-8", "surrogatepass"),
    bytes: lambda value: value,
    type(...): lambda _: b"",
    type(NotImplemented): lambda _: b"",
}


def _method(walk: Walk, value: MethodType) -> None:
    walk.mark("method")
    walk.add(value.__func__)
    walk.add(value.__self__)


def _reference(walk: Walk, value: Reference) -> None:
    raise walk.fail(f"{value!r} is what an engine has, which is not known here; pass the value")


_KINDS: dict[type, Callable[[Walk, Any], None]] = {
    tuple: lambda walk, value: walk.sequence("tuple", value),
    list: lambda walk, value: walk.sequence("list", value),
    dict: lambda walk, value: walk.mapping("dict", value.items()),
    MappingProxyType: lambda walk, value: walk.mapping("proxy", value.items()),
    set: lambda walk, value: walk.unordered("set", value),
    frozenset: lambda walk, value: walk.unordered("frozenset", value),
    bytearray: lambda walk, value: walk.mark("bytearray", bytes(value)),
    memoryview: lambda walk, value: walk.mark("memoryview", value.tobytes()),
    MethodType: _method,
    FunctionType: codekeys.add_function,
    ModuleType: codekeys.add_module,
    Reference: _reference,
    dependent: lambda walk, value: walk.sequence(
        "dependent", (value.function, value.check, value.check_args, value.check_kwargs)
    ),
    **codekeys.KINDS,
}
