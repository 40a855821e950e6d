"""Attributes of views that are options of their calls: ``set_flags`` and ``temp_flags``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Self


class Flags:
    """An object whose attributes named in ``FLAGS`` can be set together, or for a while."""

    FLAGS: ClassVar[tuple[str, ...]] = ()

    def set_flags(self, **flags: Any) -> Self:
        """Set several flags and return the view; KeyError names an unknown one, and then none is set."""
        for name in flags:
            if name not in self.FLAGS:
                raise KeyError(f"{type(self).__name__} has no flag {name!r}; have {', '.join(self.FLAGS)}")
        for name, value in flags.items():
            setattr(self, name, value)
        return self

    @contextmanager
    def temp_flags(self, **flags: Any) -> Iterator[Self]:
        """Set flags inside a ``with`` block; afterwards all flags are as before. Not for use by two threads."""
        before = {name: getattr(self, name) for name in self.FLAGS}
        self.set_flags(**flags)
        try:
            yield self
        finally:
            self.set_flags(**before)
