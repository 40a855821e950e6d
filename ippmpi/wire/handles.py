"""Handles: they stand for values that were left where they were made, and become them again on the ranks.

A handle belongs to the client that asked for it, as long as that has it; the value is freed with it. It may be
pickled: in a call, where the rank that gets it puts the value in its place, or to another place, where it is a
handle again that keeps nothing alive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol
from weakref import WeakValueDictionary

from ippmpi.errors import HandleError


class Kept(NamedTuple):
    """What an engine says of a value that it keeps: ``task`` made it, ``kind`` is its type, ``size`` about its bytes.

    ``cluster`` and ``pid`` say which process it was: another one may get the engine's id.
    """

    cluster: str
    task: str
    engine: int
    rank: int
    world: str
    host: str
    pid: int
    kind: str
    size: int

    def where(self) -> str:
        """Name the rank."""
        return f"engine {self.engine} (rank {self.rank} of {self.world} on {self.host}, pid {self.pid})"


class Getter(Protocol):
    """The client that a handle belongs to."""

    def get_kept(self, handle: Handle, timeout: float | None) -> Any:
        """Wait for a copy of the value."""


class Handle:
    """Stands for a value that a call with ``keep=True`` has left on a rank.

    As an argument of a call, or anywhere inside one, it becomes the value: on its own rank the very object, elsewhere
    a copy that comes from there directly. ``get()`` brings a copy here. When the last handle in the client that made
    the call goes, the value is freed, once the calls that were given it have ended.

    Attributes:
        engine: the id of the engine that has the value; ``rank``, ``world``, ``host``, ``pid``: which process that is.
        type: the name of the value's type.
        size: about how many bytes it has.
        task: the id of the task that made it.
    """

    __slots__ = ("__weakref__", "_getter", "_kept")

    def __init__(self, kept: Kept, getter: Getter | None = None) -> None:
        """Stand for *kept*; ``get`` asks *getter*."""
        seen[:] = [True]
        self._kept = kept
        self._getter = getter

    @property
    def engine(self) -> int:
        """The id of the engine that has the value."""
        return self._kept.engine

    @property
    def rank(self) -> int:
        """Its rank."""
        return self._kept.rank

    @property
    def world(self) -> str:
        """The world of that rank."""
        return self._kept.world

    @property
    def host(self) -> str:
        """The host it is on."""
        return self._kept.host

    @property
    def pid(self) -> int:
        """Its process."""
        return self._kept.pid

    @property
    def type(self) -> str:
        """The name of the value's type."""
        return self._kept.kind

    @property
    def size(self) -> int:
        """About how many bytes the value has; arrays count in full, of other objects what is seen at a glance."""
        return self._kept.size

    @property
    def task(self) -> str:
        """The id of the task that made the value."""
        return self._kept.task

    @property
    def kept(self) -> Kept:
        """All that is known; not meant for users."""
        return self._kept

    def bind(self, getter: Getter) -> None:
        """Let ``get`` ask *getter*, if it has nobody to ask yet; not meant for users."""
        self._getter = self._getter or getter

    def get(self, timeout: float | None = None) -> Any:
        """Wait and return a copy of the value; behind what its rank has to do, as every call.

        Raises:
            HandleError: its rank is gone or was started again, the value was freed, or nobody here can ask for it.
            TimeoutError: it did not come in *timeout* seconds (None: no limit).
        """
        if self._getter is None:
            raise HandleError(
                f"{self!r} came from elsewhere and belongs to no client here: give it to a call, for example "
                f"client[{self.engine}].apply_sync(lambda value: value, handle)"
            )
        return self._getter.get_kept(self, timeout)

    def __reduce__(self) -> tuple[object, ...]:
        """Become the value on an engine, and the same handle again elsewhere."""
        found = _noted.get()
        if found is not None:
            found.append(self)
        return arrive, (self._kept,)

    def __eq__(self, other: object) -> bool:
        """Two are equal if they stand for the same value."""
        return isinstance(other, Handle) and self._kept == other._kept

    def __hash__(self) -> int:
        """Go with ``__eq__``."""
        return hash(self._kept)

    def __repr__(self) -> str:
        """Show what it is and where."""
        kept = self._kept
        return f"<Handle of {kept.kind}, {_bytes(kept.size)}, on {kept.where()}: {kept.task}>"


def _bytes(size: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size} bytes"


# --- which handles go into a pickle -------------------------------------------------------------------

_noted: ContextVar[list[Handle] | None] = ContextVar("handles in what is being pickled", default=None)

_known: WeakValueDictionary[Kept, Handle] = WeakValueDictionary()

seen: list[bool] = []
"""Empty as long as this process has had no handle: then nobody need look for one in every call."""


def handle_of(kept: Kept) -> Handle:
    """Return the one handle of *kept* in this process."""
    found = _known.get(kept)
    if found is None:
        found = _known.setdefault(kept, Handle(kept))
    return found


@contextmanager
def noting() -> Iterator[list[Handle]]:
    """Note the handles that are pickled in this thread inside the block."""
    found: list[Handle] = []
    token = _noted.set(found)
    try:
        yield found
    finally:
        _noted.reset(token)


# --- where they arrive ----------------------------------------------------------------------------------

Resolve = Callable[[Kept], object]

_resolvers: list[Resolve] = []  # none or one


def set_resolver(resolve: Resolve | None) -> None:
    """Have handles that are unpickled in this process become what *resolve* returns; None: stay handles."""
    _resolvers[:] = [] if resolve is None else [resolve]


def arrive(kept: Kept) -> object:
    """Return what a handle means in this process. Called by pickle."""
    return _resolvers[0](kept) if _resolvers else handle_of(kept)


def value(found: object) -> object:
    """Return *found*; what ``Handle.get`` calls on the rank."""
    return found
