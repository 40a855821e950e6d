"""Pickle, with ``__main__`` by value: fast where plain pickle will do, cloudpickle where it will not.

That is ``auto``; users may choose another one of ``PICKLERS``. It makes three attempts. The plain one knows functions
and modules besides what pickle knows, so most calls never need cloudpickle (on either side: engines start without it).
The second is cloudpickle's. The third is for functions with a global that cannot be pickled: it travels as an
``Unsendable``, since the engine may well have its own value of that name.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from types import FunctionType, ModuleType
from typing import Any, Protocol, TypeGuard, cast
from weakref import WeakSet

from ippmpi.wire.functions import MainGlobals, Reduced, Unsendable, is_main, reduce_function, travelling

PROTOCOL = 5

BufferCallback = Callable[[pickle.PickleBuffer], object]


PICKLERS = ("auto", "cloudpickle", "dill")
"""What users may choose; a blob names it by its place in here.

``cloudpickle``: as it is, so functions of ``__main__`` take the client's globals along and do not see the engine's.
``dill``: for the many types that others refuse; functions, classes, modules and arrays go as in ``auto``.
"""


class _Pickler(Protocol):
    def dump(self, value: object, /) -> None: ...


class _NotPlain(Exception):  # noqa: N818 - never leaves this module
    """Only cloudpickle can do it."""


class Travels:
    """The globals that went with the functions of one pickle, by name."""

    def __init__(self, make: _Make | None = None, *, careful: bool = False) -> None:
        """Replace what *make*'s pickler cannot pickle, if *careful*; else let it fail."""
        self._make = make or _PlainPickler
        self.values: dict[str, object] = {}
        self.main = MainGlobals()
        self._careful = careful
        self._reasons: dict[int, str] = {}  # of the values looked at, by identity; "" while it seems to be all right

    def reduce(self, function: FunctionType) -> Reduced:
        """Return how to rebuild *function*."""
        variables = travelling(function)
        if variables:
            self.values.update(variables)
            if self._careful:
                variables = {name: self._checked(value) for name, value in variables.items()}
        return reduce_function(function, self.main, variables)

    def _checked(self, value: object) -> object:
        if id(value) not in self._reasons:
            self._reasons[id(value)] = ""  # so that functions that refer to each other end
            try:
                _dump(self._make, value, self, _drop)
            except Exception as error:  # whatever a __reduce__ of the user's raises
                self._reasons[id(value)] = f"{type(error).__name__}: {error}"
        reason = self._reasons[id(value)]
        return Unsendable(reason) if reason else value


def _drop(buffer: pickle.PickleBuffer) -> None:
    """Take a buffer out of band, and forget it."""


def dumps(value: object, pickler: str = "auto") -> tuple[memoryview, list[pickle.PickleBuffer], dict[str, object]]:
    """Return the pickle of *value*, its out-of-band buffers, and the globals that travel in it.

    Raises whatever the value's own reducers raise; TypeError or PicklingError from pickle itself.
    """
    if type(value) in SCALARS:
        return memoryview(pickle.dumps(value, PROTOCOL)), [], {}
    try:
        if pickler != "auto" or sends_by_value():
            raise _NotPlain
        return _attempt(_PlainPickler, value, Travels())
    except Exception:  # the next attempt will fail with the same, or a better, error
        make = _makers[pickler]()
        travels = Travels(make)
    try:
        return _attempt(make, value, travels)
    except Exception:
        if not travels.values:
            raise
    return _attempt(make, value, Travels(make, careful=True))


def _attempt(
    make: _Make, value: object, travels: Travels
) -> tuple[memoryview, list[pickle.PickleBuffer], dict[str, object]]:
    buffers: list[pickle.PickleBuffer] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        small = memoryview(buffer).nbytes <= SMALL
        if not small:
            buffers.append(buffer)
        return small

    return _dump(make, value, travels, keep).getbuffer(), buffers, travels.values


def _dump(
    make: _Make,
    value: object,
    travels: Travels,
    callback: BufferCallback,
) -> io.BytesIO:
    file = io.BytesIO()
    make(file, travels, callback).dump(value)
    return file


SCALARS = frozenset({type(None), bool, int, float, str, bytes})
"""What most tasks return; nothing in these needs a pickler of our own, which takes longer to make than to use."""

SMALL = 1024
"""Buffers up to so many bytes stay inside the pickle, where a part of their own would cost more."""


def sends_by_value() -> bool:
    """Say whether the user told cloudpickle to send some module's functions by value."""
    cloudpickle = sys.modules.get("cloudpickle")
    return cloudpickle is not None and bool(cloudpickle.list_registry_pickle_by_value())


def _is_imported(value: object) -> TypeGuard[ModuleType]:
    return isinstance(value, ModuleType) and sys.modules.get(value.__name__) is value


def _is_array(value: object) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


class _PlainPickler(pickle.Pickler):
    """Plain pickle that gives up (``_NotPlain``) before it would write a reference to ``__main__``."""

    def __init__(self, file: io.BytesIO, travels: Travels, callback: BufferCallback) -> None:
        super().__init__(file, PROTOCOL, buffer_callback=callback)
        self._travels = travels

    def reducer_override(self, value: object) -> Reduced:  # type: ignore[override] # typeshed lacks the 6-tuple
        """Take over functions and modules."""
        if isinstance(value, FunctionType) and is_main(value):
            return self._travels.reduce(value)
        if _is_imported(value):
            return import_module, (value.__name__,)
        if getattr(value, "__module__", None) == "__main__":
            raise _NotPlain
        return NotImplemented  # type: ignore[no-any-return] # pickle's own word


_Make = Callable[[io.BytesIO, Travels, BufferCallback], _Pickler]


@cache
def _cloud_pickler() -> _Make:
    import functools

    import cloudpickle

    cached = type(functools.cache(len))

    class CloudPickler(cloudpickle.Pickler):  # type: ignore[misc] # it has no types
        """Cloudpickle with our functions, and with classes that are never changed by their own copies."""

        def __init__(self, file: io.BytesIO, travels: Travels, callback: BufferCallback) -> None:
            super().__init__(file, PROTOCOL, buffer_callback=callback)
            self._travels = travels

        def reducer_override(self, value: object) -> Reduced:
            if isinstance(value, FunctionType) and is_main(value):
                return self._travels.reduce(value)
            if isinstance(value, cached) and value.__module__ == "__main__":  # pickle would write its name
                return _rebuild_cached, (value.__wrapped__, value.cache_parameters())
            reduced: Reduced = super().reducer_override(value)
            by_value = isinstance(value, type) and reduced is not NotImplemented and len(reduced) == 6
            return _claim(cast("type", value), reduced) if by_value else reduced

    return CloudPickler


@cache
def _only_cloud_pickler() -> _Make:
    import cloudpickle

    def make(file: io.BytesIO, travels: Travels, callback: BufferCallback) -> _Pickler:  # noqa: ARG001 - none travel
        return cast("_Pickler", cloudpickle.Pickler(file, PROTOCOL, buffer_callback=callback))

    return make


@cache
def _dill_pickler() -> _Make:
    try:
        import dill
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(NO_DILL, name="dill") from error

    class DillPickler(dill.Pickler):  # type: ignore[misc] # it has no types
        """Dill for all but functions, classes, modules and arrays."""

        def __init__(self, file: io.BytesIO, travels: Travels, callback: BufferCallback) -> None:
            super().__init__(file, PROTOCOL, buffer_callback=callback)
            self._usual: Any = _cloud_pickler()(io.BytesIO(), travels, callback)

        def reducer_override(self, value: object) -> Reduced:
            if _is_imported(value):
                return import_module, (value.__name__,)
            if _is_array(value):  # dill would copy it
                return cast("Reduced", value.__reduce_ex__(PROTOCOL))
            return cast("Reduced", self._usual.reducer_override(value))

    return DillPickler


NO_DILL = f"dill is not installed here: pip install dill (Python: {sys.executable})"

_makers: dict[str, Callable[[], _Make]] = {
    "auto": _cloud_pickler,
    "cloudpickle": _only_cloud_pickler,
    "dill": _dill_pickler,
}


def check(pickler: str) -> None:
    """Raise ModuleNotFoundError if *pickler* cannot be used in this process; the text says what to do."""
    _makers[pickler]()


# --- called by pickle, so their names are part of the wire format --------------------------------


def _rebuild_cached(function: Callable[..., object], parameters: dict[str, object]) -> object:
    import functools

    return functools.lru_cache(**parameters)(function)  # type: ignore[call-overload]


# A class keeps its identity on its way there and back (cloudpickle's tracker). But what comes back
# is a copy whose methods live elsewhere, so it must not be written over the original.
_ours: WeakSet[type] = WeakSet()
_arrived: WeakSet[type] = WeakSet()


def _claim(kind: type, reduced: Reduced) -> Reduced:
    if kind not in _arrived:
        _ours.add(kind)
    maker, arguments, state, items, pairs, setter = reduced
    return maker, arguments, (setter, state), items, pairs, _set_class_state


def _set_class_state(kind: type, state: tuple[Callable[[type, object], None], object]) -> None:
    if kind not in _ours:
        _arrived.add(kind)
        setter, contents = state
        setter(kind, contents)
