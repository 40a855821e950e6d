"""Functions of ``__main__`` by value: they are rebuilt on the other side on the globals that live there.

The namespace rule. An engine registers its namespace as this process's *home*; a function that
arrives there gets the home's variables as its ``__globals__``. The globals that its code reads
travel with it and are handed to ``Home.install``, which decides whether they may replace what is
there. Without a home (on a client) the functions of one blob share fresh globals.
"""

from __future__ import annotations

import builtins
import marshal
import sys
from importlib import import_module
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Protocol, cast
from weakref import WeakKeyDictionary

PYTHON = sys.version_info[:2]
"""Code objects are only good for the Python that compiled them."""

Reduced = tuple[object, ...]

_LOADS = frozenset(("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"))

# What a module has of its own. ``__file__`` is not among them: code that reads it wants the client's.
_OF_THE_MODULE = frozenset(
    ("__annotations__", "__builtins__", "__cached__", "__doc__", "__loader__", "__name__", "__package__", "__spec__")
)


class Home(Protocol):
    """The namespace of this process, where arriving functions live."""

    @property
    def variables(self) -> dict[str, object]:
        """The globals of the functions."""

    def install(self, name: str, value: object) -> None:
        """Take a global that travelled, unless *name* belongs to somebody else."""


_homes: list[Home] = []  # none or one


def set_home(home: Home | None) -> None:
    """Let *home* be where functions live that are unpickled in this process; None: nowhere."""
    _homes[:] = [] if home is None else [home]


def get_home() -> Home | None:
    """Return this process's namespace, if it has one."""
    return _homes[0] if _homes else None


class MainGlobals:
    """Stands for the globals of ``__main__`` functions, once in each pickle."""

    def __reduce__(self) -> Reduced:
        """Become the globals of the process that unpickles."""
        return _main_globals, ()


class Unsendable:
    """Stands for a global that could not be pickled; only a problem where nothing has that name."""

    def __init__(self, reason: str) -> None:
        """Remember why."""
        self.reason = reason

    def __reduce__(self) -> Reduced:
        """Travel as what it is."""
        return Unsendable, (self.reason,)


# --- taking apart --------------------------------------------------------------------------------


def is_main(function: FunctionType) -> bool:
    """Say whether *function* reads the globals of a ``__main__``."""
    return function.__globals__.get("__name__") == "__main__"


def travelling(function: FunctionType) -> dict[str, object]:
    """Return the globals that *function* reads and has."""
    variables = function.__globals__
    return {
        name: variables[name]
        for name in _referenced(function.__code__)
        if name in variables and name not in _OF_THE_MODULE
    }


def is_plain(function: FunctionType) -> bool:
    """Say whether the code of *function* is all there is to it, so that its pickle never changes."""
    code = function.__code__
    name, variables = code.co_name, function.__globals__
    if function.__closure__ or function.__defaults__ or function.__kwdefaults__ or function.__dict__:
        return False
    if function.__name__ != name or function.__qualname__ != code.co_qualname or function.__annotations__:
        return False
    if function.__module__ != "__main__" or getattr(function, "__type_params__", None):
        return False
    documentation = code.co_consts[0] if code.co_consts else None
    if function.__doc__ != (documentation if isinstance(documentation, str) else None):
        return False
    return not any(each in variables and each not in _OF_THE_MODULE for each in _referenced(code))


def reduce_function(function: FunctionType, main: MainGlobals, variables: dict[str, object]) -> Reduced:
    """Return how to rebuild *function*, with *variables* as its travelling globals, for ``reducer_override``."""
    code = function.__code__
    state = _state(function)
    if variables:
        state["globals"] = variables
        modules = _submodules(code, variables)
        if modules:
            state["modules"] = modules
    arguments = (PYTHON, marshal.dumps(code), main)
    return rebuild_function, arguments, state or None, None, None, set_function_state


def _state(function: FunctionType) -> dict[str, object]:
    """Return what the code alone does not say."""
    code = function.__code__
    state: dict[str, object] = {}
    for name, usual in (
        ("__name__", code.co_name),
        ("__qualname__", code.co_qualname),
        ("__module__", "__main__"),
        ("__defaults__", None),
        ("__kwdefaults__", None),
        ("__annotations__", {}),
        ("__type_params__", ()),
    ):
        value = getattr(function, name, usual)
        if value != usual:
            state[name] = value
    documentation = code.co_consts[0] if code.co_consts else None
    if function.__doc__ != (documentation if isinstance(documentation, str) else None):
        state["__doc__"] = function.__doc__
    if function.__dict__:
        state["attributes"] = dict(function.__dict__)
    if function.__closure__:
        state["closure"] = [(i, cell.cell_contents) for i, cell in enumerate(function.__closure__) if _filled(cell)]
    return state


def _filled(cell: CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - raises when empty
    except ValueError:
        return False
    return True


_known: WeakKeyDictionary[CodeType, tuple[str, ...]] = WeakKeyDictionary()


def _referenced(code: CodeType) -> tuple[str, ...]:
    """Return the names of the globals that *code*, or code inside it, reads."""
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    if not code.co_names and not inner:
        return ()
    names = _known.get(code)
    if names is None:
        names = _known[code] = tuple(_scan(code, inner))
    return names


def _scan(code: CodeType, inner: list[CodeType]) -> dict[str, None]:
    import dis

    found = {i.argval: None for i in dis.get_instructions(code) if i.opname in _LOADS}
    for nested in inner:
        found |= dict.fromkeys(_referenced(nested))
    return found


def _submodules(code: CodeType, variables: dict[str, object]) -> list[str]:
    """Return the submodules that *code* may reach through attributes (``xml.dom`` after ``import xml.dom``)."""
    attributes = _attributes(code)
    waiting = [value.__name__ for value in variables.values() if isinstance(value, ModuleType)]
    found = []
    while waiting:
        module = waiting.pop()
        inside = [name for a in attributes if (name := f"{module}.{a}") in sys.modules]
        waiting += inside
        found += inside
    return found


def _attributes(code: CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _attributes(constant)
    return names


# --- putting together: called by pickle, so their names are part of the wire format --------------


def _main_globals() -> dict[str, object]:
    home = get_home()
    return {"__name__": "__main__", "__builtins__": builtins} if home is None else home.variables


def rebuild_function(python: tuple[int, int], code: bytes, variables: dict[str, object]) -> FunctionType:
    """Return a function of *code* on *variables*; ``set_function_state`` fills it.

    Raises:
        TypeError: it was compiled by another version of Python.
    """
    if python != PYTHON:
        raise TypeError(
            f"a function came from Python {python[0]}.{python[1]}, but this process runs {PYTHON[0]}.{PYTHON[1]}: "
            "functions of __main__ need the same version on both sides (functions of importable modules do not)"
        )
    compiled: CodeType = marshal.loads(code)
    closure = tuple(CellType() for _ in compiled.co_freevars)
    return FunctionType(compiled, variables, closure=closure or None)


def set_function_state(function: FunctionType, state: dict[str, object]) -> None:
    """Fill a function made by ``rebuild_function``; called when what it refers to exists."""
    for module in cast("list[str]", state.pop("modules", ())):
        import_module(module)
    for index, contents in cast("list[tuple[int, object]]", state.pop("closure", ())):
        (function.__closure__ or ())[index].cell_contents = contents
    variables = cast("dict[str, object] | None", state.pop("globals", None))
    if variables is not None:
        _take(function, variables)
    function.__dict__.update(cast("dict[str, object]", state.pop("attributes", ())))
    for name, value in state.items():
        setattr(function, name, value)


def _take(function: FunctionType, variables: dict[str, object]) -> None:
    home = get_home()
    if home is not None and function.__globals__ is home.variables:
        for name, value in variables.items():
            _install(home, name, value)
        return
    for name, value in variables.items():
        if not isinstance(value, Unsendable):
            function.__globals__[name] = value


def _install(home: Home, name: str, value: object) -> None:
    if not isinstance(value, Unsendable):
        home.install(name, value)
    elif name not in home.variables:
        raise NameError(
            f"the function reads the global {name!r}, which cannot travel ({value.reason}) and does not exist on this "
            "engine: create it there, with push, execute or %px",
            name=name,
        )
