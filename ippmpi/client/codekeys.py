"""What functions, classes and modules consist of, for ``keys.py``.

What travels by value (functions and classes of ``__main__``, and those that no module has under their name) is its
code, without names of files and numbers of lines, with all that the code refers to: defaults, closure, globals. What
travels by name is that name and the module's source, with the sources of the modules that this one has as variables, or
has functions or classes of. What is installed (in ``site-packages``, or with Python) is its name and version.
"""

from __future__ import annotations

import builtins
import functools
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from types import (
    BuiltinFunctionType,
    CellType,
    ClassMethodDescriptorType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

from ippmpi.errors import UncacheableError


class Walk(Protocol):
    """The part of ``keys.Walk`` that is used here."""

    def add(self, value: object) -> None:
        """Feed any value."""

    def mark(self, tag: str, data: bytes | memoryview = b"", *, count: int | None = None) -> None:
        """Feed one part."""

    def text(self, tag: str, text: str) -> None:
        """Feed a text."""

    def sequence(self, tag: str, items: Any) -> None:
        """Feed items in their order."""

    def names(self, tag: str, variables: dict[str, Any], what: str) -> None:
        """Feed named values."""

    def at(self, place: str) -> Any:
        """Note what is being walked through."""

    def fail(self, problem: str) -> UncacheableError:
        """Return the error about what is being walked through."""


# --- by name or by value -------------------------------------------------------------------------


def _by_name(value: Any) -> bool:
    """Say whether *value* is what its module has under its name, so that engines import it."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not module or not name or module == "__main__" or module in _sent_by_value():
        return False
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is value


def _sent_by_value() -> set[str]:
    """Return the modules of which the user told cloudpickle to send functions by value."""
    cloudpickle = sys.modules.get("cloudpickle")
    return set() if cloudpickle is None else set(cloudpickle.list_registry_pickle_by_value())


def _name(walk: Walk, tag: str, value: Any) -> None:
    walk.text(tag, f"{value.__module__}:{value.__qualname__}")
    add_origin(walk, value.__module__)


# --- functions -----------------------------------------------------------------------------------


def add_function(walk: Walk, function: FunctionType) -> None:
    """Feed a function."""
    if _by_name(function):
        _name(walk, "function", function)
        return
    with walk.at(f"the function {function.__qualname__!r}"):
        code = function.__code__
        _add_code(walk, code)
        with walk.at("its defaults"):
            walk.add(function.__defaults__)
            walk.names("keywords", function.__kwdefaults__ or {}, "the default of")
        cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
        walk.names("closure", {name: cell for name, cell in cells}, "the closure variable")  # noqa: C416 - cells
        walk.names("attributes", function.__dict__, "the attribute")
        _add_globals(walk, function)


def _add_cell(walk: Walk, cell: CellType) -> None:
    try:
        contents = cell.cell_contents
    except ValueError:
        walk.mark("empty")
    else:
        walk.add(contents)


def _add_code(walk: Walk, code: CodeType) -> None:
    walk.mark("code", code.co_code)
    walk.mark("exceptions", code.co_exceptiontable)
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    walk.sequence("counts", counts)
    for names in (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars):
        walk.sequence("names", names)
    constants: list[object] = list(code.co_consts)
    if "__firstlineno__" in code.co_names:  # of a class, since Python 3.13
        constants = [0 if type(each) is int and each == code.co_firstlineno else each for each in constants]
    walk.sequence("constants", constants)


def _add_globals(walk: Walk, function: FunctionType) -> None:
    variables, uses = function.__globals__, _uses(function.__code__)
    found = {name: variables[name] for name in uses.names if name in variables and name not in _OF_THE_MODULE}
    for name in sorted(uses.names - found.keys() - uses.stored - _OF_THE_MODULE):
        if not hasattr(builtins, name):
            raise walk.fail(
                f"it reads the global {name!r}, which is not defined here; if the engines have it, pass it as an "
                "argument, since it is not known here what it is"
            )
    walk.names("globals", found, "the global")
    for name in sorted(uses.imports):
        walk.text("import", name)
        add_origin(walk, name)


_OF_THE_MODULE = frozenset(
    ("__annotations__", "__builtins__", "__cached__", "__doc__", "__loader__", "__name__", "__package__", "__spec__")
)


class _Uses(NamedTuple):
    """Of code, and of code inside it: globals that are read, globals that are assigned, modules that are imported."""

    names: frozenset[str]
    stored: frozenset[str]
    imports: frozenset[str]


_known_uses: WeakKeyDictionary[CodeType, _Uses] = WeakKeyDictionary()


def _uses(code: CodeType) -> _Uses:
    known = _known_uses.get(code)
    if known is None:
        known = _known_uses[code] = _scan(code)
    return known


def _scan(code: CodeType) -> _Uses:
    import dis

    by_operation: dict[str, set[str]] = {}
    for instruction in dis.get_instructions(code):
        by_operation.setdefault(instruction.opname, set()).add(instruction.argval)
    own = by_operation.get("STORE_NAME", set())  # of a class body
    names = by_operation.get("LOAD_GLOBAL", set())
    names |= (by_operation.get("LOAD_NAME", set()) | by_operation.get("LOAD_FROM_DICT_OR_GLOBALS", set())) - own
    stored = by_operation.get("STORE_GLOBAL", set())
    imports = by_operation.get("IMPORT_NAME", set())
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            inner = _uses(constant)
            names, stored, imports = names | inner.names, stored | inner.stored, imports | inner.imports
    return _Uses(frozenset(names), frozenset(stored), frozenset(imports))


def _add_builtin(walk: Walk, function: BuiltinFunctionType) -> None:
    owner = function.__self__
    if owner is None or isinstance(owner, ModuleType):
        walk.text("builtin", f"{function.__module__}:{function.__qualname__}")
        add_origin(walk, function.__module__ or "builtins")
    else:  # a method of a builtin type
        walk.text("builtin of", function.__name__)
        walk.add(owner)


def _add_cached(walk: Walk, function: Any) -> None:
    if _by_name(function):
        _name(walk, "cached", function)
    else:
        walk.mark("cached")
        walk.add(function.__wrapped__)


# --- classes -------------------------------------------------------------------------------------

_NOT_OF_A_CLASS = frozenset(
    (
        "__dict__", "__weakref__", "__module__", "__doc__", "__firstlineno__", "__static_attributes__", "__slotnames__",
        "_abc_impl", "__annotations_cache__",
    )
)  # fmt: skip
"""Not what a class does, or filled by others while it is used."""


def add_class(walk: Walk, kind: type) -> None:
    """Feed a class."""
    if _by_name(kind):
        _name(walk, "class", kind)
        return
    with walk.at(f"the class {kind.__qualname__!r}"):
        walk.text("made class", kind.__name__)
        walk.add(type(kind))
        walk.sequence("bases", kind.__bases__)
        contents = {name: value for name, value in vars(kind).items() if name not in _NOT_OF_A_CLASS}
        walk.names("contents", contents, "the attribute")


def _add_slot(walk: Walk, slot: Any) -> None:
    walk.text("slot", f"{type(slot).__name__} {slot.__name__}")
    walk.add(slot.__objclass__)


def _add_property(walk: Walk, made: property) -> None:
    walk.sequence("property", (made.fget, made.fset, made.fdel))


def _add_wrapped(walk: Walk, made: Any) -> None:
    walk.text("wrapped", type(made).__name__)
    walk.add(made.__func__)


# --- modules -------------------------------------------------------------------------------------


def add_module(walk: Walk, module: ModuleType) -> None:
    """Feed a module."""
    walk.text("module", module.__name__)
    add_origin(walk, module.__name__)


def add_origin(walk: Walk, name: str) -> None:
    """Feed what makes the module *name* what it is: its version, or its source and those that it uses."""
    if name == "__main__":
        return
    top = name.partition(".")[0]
    if _file_of(name) is None or _is_installed(name):
        walk.text("version", str(getattr(sys.modules.get(top), "__version__", "")))
        return
    for each in sorted(_reachable(name)):
        file = _file_of(each)
        if file is not None:
            walk.text("source", each)
            walk.mark("bytes", file_digest(file))


def _file_of(name: str) -> str | None:
    module = sys.modules.get(name)
    if module is not None:
        return getattr(module, "__file__", None)
    try:
        spec = importlib.util.find_spec(name.partition(".")[0])  # of a submodule it would import the package
    except (ImportError, ValueError):
        return None
    return spec.origin if spec is not None and spec.has_location else None


@functools.cache
def _folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple(os.path.realpath(paths[key]) + os.sep for key in ("stdlib", "platstdlib", "purelib", "platlib"))


def _is_installed(name: str) -> bool:
    if name.partition(".")[0] == "ippmpi":
        return True
    file = os.path.realpath(_file_of(name) or "")
    return file.startswith(_folders()) or f"{os.sep}site-packages{os.sep}" in file or "dist-packages" in file


def _reachable(name: str) -> set[str]:
    """Return the names of the user's own modules that module *name*, one of them, uses; itself included."""
    found, waiting = {name}, [name]
    while waiting:
        for other in _used_by(sys.modules.get(waiting.pop())):
            if other not in found and other != "__main__" and _file_of(other) and not _is_installed(other):
                found.add(other)
                waiting.append(other)
    return found


def _used_by(module: ModuleType | None) -> Iterator[str]:
    for value in list(vars(module).values()) if module is not None else ():
        if isinstance(value, ModuleType):
            yield value.__name__
        elif isinstance(value, FunctionType | type):
            yield value.__module__


_digests: dict[tuple[str, int, int, int], bytes] = {}
"""Of files that have not changed: path, inode, size, and time of the last change in ns."""


def file_digest(path: str | os.PathLike[str]) -> bytes:
    """Return the digest of a file's content; OSError if it cannot be read."""
    status = Path(path).stat()
    known = os.path.abspath(path), status.st_ino, status.st_size, status.st_mtime_ns
    if known not in _digests:
        with open(path, "rb") as file:
            digest = blake2b(digest_size=20)
            while block := file.read(1 << 20):
                digest.update(block)
        _digests[known] = digest.digest()
    return _digests[known]


KINDS: dict[type, Callable[[Any, Any], None]] = {
    CodeType: _add_code,
    CellType: _add_cell,
    BuiltinFunctionType: _add_builtin,
    type(functools.cache(len)): _add_cached,
    property: _add_property,
    staticmethod: _add_wrapped,
    classmethod: _add_wrapped,
    MemberDescriptorType: _add_slot,
    GetSetDescriptorType: _add_slot,
    WrapperDescriptorType: _add_slot,
    MethodDescriptorType: _add_slot,
    ClassMethodDescriptorType: _add_slot,
}
"""How to feed values of these types."""
