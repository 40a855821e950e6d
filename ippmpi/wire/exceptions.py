"""Exceptions by name: what an engine says about the type of an exception, and how a client makes one of that type.

No exception object is pickled. The names of its class and of that class's bases travel, and its arguments and
attributes as far as they are plain data (``made``), so that controller and agents have nothing to unpickle, and
nothing of the user's is called to rebuild it: not ``__init__``, ``__new__``, ``__setstate__`` or ``__init_subclass__``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import import_module
from typing import Any, cast

import msgspec

from ippmpi.errors import RemoteError

MOST_TYPES = 16
"""How many classes are named."""

MOST_BYTES = 16 * 1024
"""Bytes of arguments and attributes that travel; an exception with more arrives without them."""

_DEEP = 8
_TUPLE = 1  # code of a msgpack extension: a list that was a tuple
_SCALARS = frozenset({type(None), bool, float, str, bytes})
_HEAP = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class that was not written in C
_OWN = frozenset({"ename", "evalue", "traceback", "engine_info", "origin", "was_shown", "__notes__"})

_NEVER = frozenset(
    {
        "builtins:StopIteration",
        "builtins:StopAsyncIteration",
        "builtins:ExceptionGroup",
        "concurrent.futures._base:CancelledError",
    }
)
"""Types that mean something to the machinery in between: generators, loops, ``except*``."""

_NOT_BY_US = frozenset({"mpi4py"})
"""Packages of which nothing is imported because of an error: that would start MPI in the user's process."""

# --- on the engine -------------------------------------------------------------------------------


def take_apart(error: BaseException) -> tuple[list[str], bytes]:
    """Return the names of the classes of *error*, the nearest first, and ``made``; nothing if it may not travel.

    A name is ``module:qualified name``. Never raises.
    """
    if not isinstance(error, Exception):
        return [], b""
    try:
        kinds = [kind for kind in type(error).__mro__ if issubclass(kind, Exception) and kind is not Exception]
        names = [f"{kind.__module__}:{kind.__qualname__}" for kind in kinds]
        "".join(names).encode()
    except Exception:  # a class that does as it likes, or a name that is no text
        return [], b""
    if not names or not _NEVER.isdisjoint(names):
        return [], b""
    return names[:MOST_TYPES], _made(error)


def _made(error: Exception) -> bytes:
    """Return ``[arguments, attributes]``, without what is no plain data."""
    try:
        # what the C class would be pickled from: with the file name of an OSError, the name of an ImportError
        reduced = cast("tuple[Any, ...]", _written_in_c(type(error)).__reduce__(error))
        arguments = _plain(reduced[1])
        state = reduced[2] if len(reduced) > 2 and isinstance(reduced[2], dict) else {}
        made = msgspec.msgpack.encode([arguments, dict(_plain_items(state))])
    except Exception:  # arguments that are more than data, or a class that does as it likes
        return b""
    return made if len(made) <= MOST_BYTES else b""


def _plain_items(state: dict[str, object]) -> Iterable[tuple[str, object]]:
    for name, value in state.items():
        if name not in _OWN:
            try:
                yield name, _plain(value)
            except TypeError:
                continue


def _plain(value: object, depth: int = 0) -> object:
    """Return *value* for msgpack; TypeError if it is more than data."""
    kind = type(value)
    if kind in _SCALARS or (kind is int and -(1 << 63) <= cast("int", value) < 1 << 63):
        return value
    if depth < _DEEP and isinstance(value, (list, tuple, dict)):
        if kind is list:
            return [_plain(item, depth + 1) for item in value]
        if kind is tuple:
            return msgspec.msgpack.Ext(_TUPLE, msgspec.msgpack.encode([_plain(item, depth + 1) for item in value]))
        if kind is dict and all(type(key) is str for key in value):
            return {key: _plain(item, depth + 1) for key, item in cast("dict[str, object]", value).items()}
    raise TypeError(f"{kind.__name__} is more than data")


# --- on the client -------------------------------------------------------------------------------


class Retyped(RemoteError):  # noqa: N818 - it gets the name of what was raised
    """A RemoteError that is also of the type that was raised on the engine; ``args`` are those of the original."""

    def __init_subclass__(cls) -> None:
        """Keep the other base from being told."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Be pickled as what it was made from."""
        plain = (self.ename, self.evalue, self.traceback, self.engine_info)
        return _again, (plain, self.origin)


def _again(plain: tuple[Any, ...], origin: tuple[list[str], bytes]) -> RemoteError:
    error = RemoteError(*plain)
    error.origin = origin
    return retyped(error)


_MOST_CLASSES = 256
_classes: dict[type[Exception], type[Retyped]] = {}


def retyped(error: RemoteError) -> RemoteError:
    """Return *error* as one of the nearest type that is known here and can be rebuilt; *error* itself if there is none.

    A type is known if its module is imported, or belongs to Python or to a package of which something is imported
    (then it is imported by name); so not to be called where an import may do harm.
    """
    names, made = error.origin
    if isinstance(error, Retyped) or not _NEVER.isdisjoint(names):
        return error
    for name in names:
        kind = _find(name)
        if kind is None or issubclass(kind, RemoteError):
            continue
        try:
            return _rebuilt(error, kind, made)
        except Exception:  # a class that cannot be combined, or needs other arguments: perhaps one of its bases can
            continue
    return error


def _find(name: str) -> type[Exception] | None:
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    top = module.partition(".")[0]
    if found is None and top not in _NOT_BY_US and (top in sys.modules or top in sys.stdlib_module_names):
        try:
            found = import_module(module)
        except Exception:  # whatever the module's own code raises
            return None
    for step in path.split("."):
        found = getattr(found, step, None)
    return found if isinstance(found, type) and issubclass(found, Exception) and found is not Exception else None


def _rebuilt(error: RemoteError, kind: type[Exception], made: bytes) -> RemoteError:
    combined = _combined(kind)
    arguments: tuple[object, ...] = (error.evalue,)
    state: dict[str, object] = {}
    if made:
        arguments, state = msgspec.msgpack.decode(made, type=tuple[Any, dict[str, Any]], ext_hook=_tuple)
    base = _written_in_c(kind)
    fresh = cast("RemoteError", base.__new__(combined, *arguments))
    base.__init__(fresh, *arguments)
    for name, value in state.items():
        if not hasattr(RemoteError, name):
            _set(fresh, name, value)
    fresh.__dict__.update(error.__dict__)  # what a RemoteError has, and its notes
    fresh.__cause__ = error.__cause__
    return fresh


def _set(error: Exception, name: str, value: object) -> None:
    try:
        object.__setattr__(error, name, value)
    except (AttributeError, TypeError):  # a property
        return


def _combined(kind: type[Exception]) -> type[Retyped]:
    known = _classes.get(kind)
    if known is None:
        names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
        known = cast("type[Retyped]", type(kind.__name__, (Retyped, kind), names))
        if len(_classes) >= _MOST_CLASSES:
            _classes.clear()
        _classes[kind] = known
    return known


def _written_in_c(kind: type[BaseException]) -> Any:
    return next(base for base in kind.__mro__ if not base.__flags__ & _HEAP)


def _tuple(code: int, data: memoryview) -> object:
    if code != _TUPLE:
        raise ValueError(f"extension {code}")
    return tuple(msgspec.msgpack.decode(data, ext_hook=_tuple))
