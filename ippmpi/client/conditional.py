"""Functions that say where they can run. Engines import this module, so it imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from functools import update_wrapper
from importlib import import_module
from pickle import PickleBuffer
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, cast

from ippmpi.errors import UnmetDependency
from ippmpi.wire.functions import get_home
from ippmpi.wire.pickling import pack, unpack

if TYPE_CHECKING:
    from typing_extensions import Buffer

NAMES = ("__name__", "__qualname__", "__doc__")
"""What a wrapper takes over of its function. Not the module: of ``__main__`` it would need cloudpickle to travel."""


class dependent:  # noqa: N801 - the name that users of ipyparallel know
    """A function with a condition: ``check(*args, **kwargs)`` runs first, on the engine.

    If it returns False itself (not just something false) or raises ``UnmetDependency``, the scheduler gives the task
    to another engine, each at most once; if none is left it fails with ``ImpossibleDependency``. In a ``DirectView``
    nobody else can do it, so there it fails. The function is unpickled after the check, since it may need what the
    check looks for. Inside it its own name means the plain function.
    """

    def __init__(self, f: Callable[..., Any], check: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
        """Run *f* where *check* allows it."""
        for function in (f, check):
            if not callable(function):
                raise TypeError(f"dependent() needs two functions, not {function!r}")
        update_wrapper(self, f, NAMES)
        self.check, self.check_args, self.check_kwargs = check, args, kwargs
        self._function: Callable[..., Any] | None = f
        self._packed: Buffer = b""

    @property
    def function(self) -> Callable[..., Any]:
        """The function without its condition."""
        if self._function is None:
            self._function, self._packed = cast("Callable[..., Any]", unpack(self._packed)), b""
        return self._function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Look whether this is the place, then call the function."""
        if self.check(*self.check_args, **self.check_kwargs) is False:
            name = getattr(self.check, "__name__", repr(self.check))
            raise UnmetDependency(f"{name} is False here")
        return self.function(*args, **kwargs)

    def __reduce__(self) -> tuple[object, ...]:
        """Travel with the function as bytes; inside these as the function."""
        if any(self is one for one in _packing.get()):
            return _same, (self.function,)
        before = _packing.set((*_packing.get(), self))
        try:
            packed = PickleBuffer(pack(self.function).join())
        finally:
            _packing.reset(before)
        names = {name: getattr(self, name) for name in NAMES if hasattr(self, name)}
        return _arrived, (self.check, self.check_args, self.check_kwargs, packed, names)

    def __repr__(self) -> str:
        """Show both functions."""
        return f"<{getattr(self, '__name__', 'a function')} depending on {self.check!r}>"


_packing: ContextVar[tuple[dependent, ...]] = ContextVar("packing", default=())
"""Those whose functions are being pickled: a function may call itself."""


def _same(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return *function*; called by pickle."""
    return function


def _arrived(
    check: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], packed: Buffer, names: dict[str, Any]
) -> dependent:
    """Make one whose function is still packed; called by pickle."""
    made = dependent.__new__(dependent)
    made.check, made.check_args, made.check_kwargs = check, args, kwargs
    made._function, made._packed = None, packed
    made.__dict__.update(names)
    return made


def depend(check: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Callable[[Callable[..., Any]], dependent]:
    """Decorate a function that may only run where *check* allows it, see ``dependent``."""

    def decorate(function: Callable[..., Any]) -> dependent:
        return dependent(function, check, *args, **kwargs)

    return decorate


def require(*objects: Any, **named: Any) -> Callable[[Callable[..., Any]], dependent]:
    """Decorate a function that needs modules (names or modules), functions or classes, or *named* objects.

    Where it runs the modules are imported first, and all are bound to their names, as if they were pushed. Where a
    module is missing the task is given to another engine, see ``dependent``.
    """
    modules: list[str] = []
    for each in objects:
        if isinstance(each, str | ModuleType):
            modules.append(each if isinstance(each, str) else each.__name__)
        elif isinstance(each, FunctionType | type | dependent):
            named[str(getattr(each, "__name__", ""))] = each
        else:
            raise TypeError(f"require() needs modules, their names, functions or classes, not {each!r}; name it: x=...")
    return depend(_provide, modules, named)


def _provide(modules: list[str], named: dict[str, Any]) -> None:
    found: dict[str, object] = {}
    for name in modules:
        try:
            import_module(name)
        except ImportError as error:
            raise UnmetDependency(f"module {name!r} cannot be imported here: {error}") from error
        top = name.partition(".")[0]
        found[top] = import_module(top)
    home = get_home()
    if home is None:  # called in the client, where all of them are at hand
        return
    for name, value in (found | named).items():
        home.variables.pop(name, None)  # it was asked for by name, so it goes before what there was
        home.install(name, value)


def interactive(f: Any) -> Any:
    """Let a function of a module be as one of ``__main__``: its globals are the engine's namespace.

    A class is only marked to travel by value, as those of ``__main__`` do. Return the new function, or the class.
    """
    if not isinstance(f, FunctionType):
        f.__module__ = "__main__"
        return f
    variables = import_module("__main__").__dict__
    if f.__globals__ is variables:
        return f
    made = FunctionType(f.__code__, variables, f.__name__, f.__defaults__, f.__closure__)
    made.__kwdefaults__ = f.__kwdefaults__
    update_wrapper(made, f)
    del made.__wrapped__  # type: ignore[attr-defined] # it would travel too
    made.__module__ = "__main__"
    return made
