"""Gives memory back to the system after a rush.

Ten thousand tasks at a time leave the C library's heap full of holes, which it would keep for ever
(30 MB here). ``malloc_trim`` returns whole free pages; it takes about a millisecond.
"""

from __future__ import annotations

from collections.abc import Callable

RUSH = 1_000
"""Messages after which it is worth while."""

AFTER_S = 0.75
TIMES = 2
"""The second time is for what was held until it was stored and acknowledged."""


class Memory:
    """Trims some time after every rush; does nothing while it is quiet."""

    def __init__(self, call_later: Callable[[float, Callable[[], None]], object], trim: Callable[[], None]) -> None:
        """Call *trim* by *call_later* (the loop's)."""
        self._call_later = call_later
        self._trim = trim
        self._count = 0
        self._left = 0

    def used(self) -> None:
        """Note that a message was handled."""
        self._count += 1
        if self._count == RUSH and not self._left:
            self._left = TIMES
            self._call_later(AFTER_S, self._tidy)

    def _tidy(self) -> None:
        self._trim()
        self._left = TIMES if self._count > RUSH else self._left - 1
        self._count = 0
        if self._left:
            self._call_later(AFTER_S, self._tidy)


def trim() -> None:
    """Return free pages of the heap to the system, where the C library can (glibc)."""
    import ctypes  # 1 MB that a quiet controller does not need

    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
