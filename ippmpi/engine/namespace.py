"""The engine's ``__main__``: the names that users see, and whose they are.

A name is the user's (push, execute, ``%px``, an assignment in their code) or it travelled here with
a function. Only the latter may be replaced by a later call, so an edited helper is never stale and
nobody's data is overwritten. A name whose value is no longer the object that travelled has been
bound anew by somebody, so it is the user's.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType

from ippmpi.wire.functions import set_home


class Namespace:
    """The variables of ``__main__`` on this engine (a ``Home`` of arriving functions).

    Attributes:
        module: what ``import __main__`` gives.
        variables: its dictionary.
        origin: the client whose request is being served.
    """

    def __init__(self, initial: Mapping[str, object] | None = None) -> None:
        """Begin with *initial* names, which ``clear`` restores."""
        self.module = ModuleType("__main__")
        self.variables: dict[str, object] = self.module.__dict__
        self.origin = ""
        self._initial = dict(initial or {})
        self._offered: dict[str, object] = {}
        self._unclaimed: set[str] = set()  # of these, those that are still nobody's
        self._travelled: dict[str, tuple[object, str]] = {}
        self._begin()

    def _begin(self) -> None:
        self.variables |= {"__name__": "__main__", "__builtins__": builtins, "__doc__": None} | self._initial
        self._give()

    def define(self, name: str, value: object) -> None:
        """Add an initial name."""
        self._initial[name] = self.variables[name] = value

    def offer(self, names: Mapping[str, object]) -> None:
        """Add initial names that are nobody's: one that travels here takes their place."""
        self._offered.update(names)
        self._give()

    def _give(self) -> None:
        self.variables |= self._offered
        self._unclaimed = set(self._offered)

    def enter(self) -> None:
        """Be this process's ``__main__``, where arriving functions live."""
        sys.modules["__main__"] = self.module
        set_home(self)

    # --- names that travelled ------------------------------------------------------------------

    def install(self, name: str, value: object) -> None:
        """Take a global that travelled with a function, unless *name* is the user's."""
        if name in self.variables and not self._has_travelled(name):
            return
        self.variables[name] = value
        self._unclaimed.discard(name)
        self._travelled[name] = (value, self.origin)

    def _has_travelled(self, name: str) -> bool:
        if name in self._unclaimed:
            return self._offered[name] is self.variables[name]
        return name in self._travelled and self._travelled[name][0] is self.variables[name]

    def origins(self) -> dict[str, str]:
        """Return the names that travelled here, each with the client that brought it last."""
        self.forget_rebound()
        return {name: origin for name, (_, origin) in self._travelled.items()}

    def claim(self, names: Iterable[str]) -> None:
        """Make *names* the user's, also if they keep their values."""
        for name in names:
            self._travelled.pop(name, None)
            self._unclaimed.discard(name)

    def forget_rebound(self) -> None:
        """Let go of values that travelled and are not bound any more (they may be large)."""
        missing = object()
        for name, (value, _) in tuple(self._travelled.items()):
            if self.variables.get(name, missing) is not value:
                del self._travelled[name]

    # --- requests ------------------------------------------------------------------------------

    def push(self, values: Mapping[str, object]) -> None:
        """Bind names; ``a.b`` sets attribute ``b`` of ``a``.

        Raises:
            ValueError: a name that Python could not read.
            NameError, AttributeError: what is before the dot does not exist.
        """
        for name in values:
            if not all(part.isidentifier() for part in str(name).split(".")):
                raise ValueError(f"cannot push under {name!r}: need a name, or names joined by dots")
        for name, value in values.items():
            *path, last = name.split(".")
            if not path:
                self.claim([last])
                self.variables[last] = value
            else:
                setattr(self._evaluate(".".join(path)), last, value)

    def pull(self, names: str | list[str]) -> object:
        """Evaluate one expression, or each of a list; raises what evaluating raises."""
        if isinstance(names, str):
            return self._evaluate(names)
        return [self._evaluate(name) for name in names]

    def _evaluate(self, expression: str) -> object:
        return eval(expression, self.variables)  # users may run anything here anyway

    def clear(self, reset: Callable[[], None] | None = None) -> None:
        """Forget everything but the initial names; *reset* does the same for a shell on these variables."""
        self._travelled.clear()
        if reset is None:
            self.variables.clear()
        else:
            reset()
        self._begin()
