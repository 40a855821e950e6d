"""Attributes of views that are options of their calls: ``set_flags`` and ``temp_flags``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar, Self

Frame = tuple[object, dict[str, Any]]

_temporary: ContextVar[tuple[Frame, ...]] = ContextVar("temporary flags", default=())
"""The ``temp_flags`` blocks that this thread (or coroutine) is in, the innermost first: view, and flags set there."""


class _Flag:
    """One flag of a class of views."""

    def __init__(self, name: str, default: Any) -> None:
        self._name, self._default = name, default

    def __get__(self, view: object | None, owner: type) -> Any:
        if view is None:
            return self._default
        for where, flags in _temporary.get():
            if where is view and self._name in flags:
                return flags[self._name]
        return view.__dict__.get(self._name, self._default)

    def __set__(self, view: object, value: Any) -> None:
        for where, flags in _temporary.get():
            if where is view:
                flags[self._name] = value
                return
        view.__dict__[self._name] = value


class Flags:
    """An object whose attributes named in ``FLAGS`` can be set together, or for a while."""

    FLAGS: ClassVar[tuple[str, ...]] = ()
    NO_FLAGS: ClassVar[Mapping[str, str]] = {}
    """Flags of other views, and why there are none here."""

    def __init_subclass__(cls) -> None:
        """Make the class attributes that are flags look whether the caller is in a ``temp_flags`` block."""
        for name in cls.FLAGS:
            setattr(cls, name, _Flag(name, getattr(cls, name)))

    def flags(self) -> dict[str, Any]:
        """Return all flags as they are now, for this thread."""
        return {name: getattr(self, name) for name in self.FLAGS}

    def set_flags(self, **flags: Any) -> Self:
        """Set several flags and return the view; KeyError names an unknown one, and then none is set."""
        self._check(flags)
        for name, value in flags.items():
            setattr(self, name, value)
        return self

    @contextmanager
    def temp_flags(self, **flags: Any) -> Iterator[Self]:
        """Set flags inside a ``with`` block, for calls of this thread (or coroutine) only.

        Afterwards all flags are as before, also those that were assigned inside.
        """
        self._check(flags)
        frame: Frame = (self, dict(flags))
        _temporary.set((frame, *_temporary.get()))
        try:
            yield self
        finally:
            _temporary.set(tuple(each for each in _temporary.get() if each is not frame))

    def _check(self, flags: dict[str, Any]) -> None:
        for name in flags:
            if name not in self.FLAGS:
                why = self.NO_FLAGS.get(name) or f"have {', '.join(self.FLAGS)}"
                raise KeyError(f"{type(self).__name__} has no flag {name!r}; {why}")
