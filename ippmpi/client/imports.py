"""Imports that happen here and on the engines: ``view.sync_imports``. Engines import this module too."""

from __future__ import annotations

import builtins
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

from ippmpi.wire.functions import get_home

if TYPE_CHECKING:
    from ippmpi.client.results import AsyncResult
    from ippmpi.client.views import DirectView


@contextmanager
def importing(view: DirectView, frame: FrameType, *, quiet: bool) -> Iterator[None]:
    """Have each import statement that *frame* runs inside the block run on the engines of *view* as well.

    Statements inside functions that the block calls, and those of other threads, are not meant. What failed on the
    engines is raised at the end of the block.
    """
    results: list[AsyncResult] = []

    def imported(statement: str) -> None:
        if not quiet:
            print(f"{statement} on {len(view)} engine(s)")
        results.append(view.apply_async(run, statement))

    _watch(frame, imported)
    try:
        yield
    finally:
        _unwatch(frame)
    for result in results:
        result.get()


def run(statement: str) -> None:
    """Import on an engine."""
    home = get_home()
    exec(statement, {} if home is None else home.variables)


# --- seeing import statements --------------------------------------------------------------------

_lock = threading.Lock()
_watched: dict[FrameType, Callable[[str], None]] = {}
_real: list[Any] = []  # the builtin, while ours is in its place


def _watch(frame: FrameType, imported: Callable[[str], None]) -> None:
    with _lock:
        if not _watched:
            _real[:] = [builtins.__import__]
            builtins.__import__ = _import
        _watched[frame] = imported


def _unwatch(frame: FrameType) -> None:
    with _lock:
        _watched.pop(frame, None)
        if not _watched and builtins.__import__ is _import:
            builtins.__import__ = _real[0]


def _import(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:  # noqa: A002 - as the builtin
    """Import as ever, and tell whoever watches the frame."""
    module = _real[0](name, globals, locals, fromlist, level)
    frame = sys._getframe(1)
    imported = _watched.get(frame)
    if imported is not None:
        imported(statement_of(frame.f_code, frame.f_lasti, _absolute(name, globals, level), fromlist))
    return module


def _absolute(name: str, variables: Any, level: int) -> str:
    """Return the full name of a module that was imported relative to that of *variables*."""
    if not level:
        return name
    package = str((variables or {}).get("__package__") or "")
    for _ in range(level - 1):
        package = package.rpartition(".")[0]
    return f"{package}.{name}" if name else package


def statement_of(code: CodeType, at: int, module: str, fromlist: Any) -> str:
    """Return the import statement at instruction *at* of *code*, with the names that it binds."""
    import dis

    names: list[str] = []
    attribute = ""
    behind = [i for i in dis.get_instructions(code) if i.offset > at]
    for instruction in behind:
        if instruction.opname == "IMPORT_FROM":
            attribute = str(instruction.argval)
        elif instruction.opname.startswith("STORE_"):
            found = instruction.argval  # Python 3.13 may do two things at once, with a pair of names
            stored = str(found[0] if isinstance(found, tuple) else found)
            if not fromlist:
                plain = not attribute and stored == module.partition(".")[0]
                return f"import {module}" if plain else f"import {module} as {stored}"
            names.append(attribute if attribute == stored else f"{attribute} as {stored}")
        elif instruction.opname in ("IMPORT_STAR", "CALL_INTRINSIC_1"):
            names = ["*"]
            break
        elif instruction.opname == "POP_TOP" and fromlist:
            break
    return f"from {module} import {', '.join(names)}"
