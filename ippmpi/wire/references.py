"""References: names that mean, wherever they arrive, what an engine has under that name."""

from __future__ import annotations

from typing import NoReturn

from ippmpi.wire.functions import get_home


class Reference:
    """Stands for the value of an expression in the namespace of the engine where it arrives.

    It may be the function of a call, an argument, or anywhere inside one: in lists, dicts, objects, closures. So
    each rank uses its own data. It is evaluated where the call is unpickled, at its turn; an expression that
    raises, as with NameError, fails the call. Elsewhere than on an engine it stays what it is.
    """

    def __init__(self, name: str) -> None:
        """Name a variable, or any expression of them."""
        if not isinstance(name, str):
            raise TypeError(f"a Reference needs a name or an expression as a str, not {name!r}")
        self.name = name

    def __call__(self, *arguments: object, **keywords: object) -> NoReturn:  # noqa: ARG002 - those of any function
        """Refuse: what it names is on the engines. (Views take it for a function, which it may be there.)"""
        raise TypeError(f"{self!r} names something on the engines and cannot be called here; use view.apply")

    def __reduce__(self) -> tuple[object, ...]:
        """Become what it names, where there is such a thing."""
        return resolve, (self.name,)

    def __eq__(self, other: object) -> bool:
        """Two are equal if they name the same."""
        return isinstance(other, Reference) and self.name == other.name

    def __hash__(self) -> int:
        """Go with ``__eq__``."""
        return hash((Reference, self.name))

    def __repr__(self) -> str:
        """Show the name."""
        return f"<Reference {self.name!r}>"


def resolve(name: str) -> object:
    """Return what *name* means in the namespace of this process, or if it has none a Reference. Called by pickle."""
    home = get_home()
    return Reference(name) if home is None else eval(name, home.variables)  # users may run anything there anyway
