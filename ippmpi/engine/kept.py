"""The values that tasks have left on this rank, by the task that made each; see ``wire/handles.py``.

They go when their client says so (``Free``), when it is gone, and with ``clear``. Filled by the main thread, freed by
the link's loop as well, each in single steps.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

from ippmpi.engine.mpi import WorldFacts
from ippmpi.errors import HandleError
from ippmpi.wire.handles import Kept
from ippmpi.wire.pickling import usual

MOST_KEPT = 100_000
"""Values on one rank. How many bytes they may have its memory decides."""

GONE_CLIENTS = 1000
"""How many clients that have left are remembered: what still runs for them must leave nothing."""

MOST_LOOKED_AT = 1000
"""Objects inside a value that are looked at to say how large it is."""


class Entry(NamedTuple):
    """A value, and the pickler that its call was made with."""

    value: object
    kept: Kept
    pickler: str


class Keeping:
    """What is kept here.

    Attributes:
        cluster: says in every handle which cluster it is of.
        engine: this engine's id.
    """

    def __init__(self, world: str, facts: WorldFacts, pid: int, cluster: str = "") -> None:
        """Keep nothing yet; the names are those of this process."""
        self.cluster = cluster
        self.engine = -1
        self._place = (facts.rank, world, facts.host, pid)
        self._entries: dict[str, Entry] = {}
        self._gone: dict[str, None] = {}

    def __len__(self) -> int:
        """Return how many values are here."""
        return len(self._entries)

    def keep(self, task: str, value: object) -> Kept:
        """Keep what *task* made; return what there is to say of it. Raises HandleError: there are too many."""
        if len(self._entries) >= MOST_KEPT:
            raise HandleError(
                f"engine {self.engine} keeps {MOST_KEPT} values and takes no more: let go of handles, or call clear()"
            )
        kind = type(value)
        name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        kept = Kept(self.cluster, task, self.engine, *self._place, name, size_of(value))
        self._entries[task] = Entry(value, kept, usual())
        if client_of(task) in self._gone:  # in this order: the loop may hear of it at any moment
            self._entries.pop(task, None)
        return kept

    def is_here(self, kept: Kept) -> bool:
        """Say whether *kept* would be here, not on another rank. Raises HandleError: it can be nowhere."""
        if kept.cluster != self.cluster:
            raise HandleError(f"the {kept.kind} of {kept.task}, on {kept.where()}, is of another cluster than this one")
        if kept.engine != self.engine:
            return False
        rank, _, host, pid = self._place
        if (kept.rank, kept.host, kept.pid) != (rank, host, pid):
            raise HandleError(
                f"the {kept.kind} of {kept.task} was on {kept.where()}, which was started again since (now pid {pid})"
            )
        return True

    def entry(self, task: str) -> Entry:
        """Return what *task* has left here. Raises HandleError: there is nothing (any more)."""
        found = self._entries.get(task)
        if found is None:
            rank, world, host, pid = self._place
            raise HandleError(
                f"engine {self.engine} (rank {rank} of {world} on {host}, pid {pid}) has no value of task {task}: it "
                "was freed with its last handle, by clear() or purge_results(), or as its client left, or this rank "
                "was started again since"
            )
        return found

    def free(self, tasks: Sequence[str], client: str = "") -> None:
        """Let go of what *tasks* have left, and all tasks of *client*, which is gone."""
        dropped = [self._entries.pop(task, None) for task in tasks]
        if client:
            self._gone[client] = None
            if len(self._gone) > GONE_CLIENTS:
                del self._gone[next(iter(self._gone))]
            for task in [task for task in list(self._entries) if client_of(task) == client]:
                dropped.append(self._entries.pop(task, None))
        del dropped  # whatever a __del__ of the user's does, the tables are right before

    def clear(self) -> None:
        """Let go of everything."""
        entries, self._entries = self._entries, {}
        del entries


def client_of(task: str) -> str:
    """Return the client that asked for *task*."""
    return task.rpartition("-")[0]


def size_of(value: object) -> int:
    """Say about how many bytes *value* has, without looking at more than a thousand objects."""
    total, left, seen = 0, MOST_LOOKED_AT, set[int]()
    stack = [value]
    while stack and left:
        one = stack.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        left -= 1
        size = getattr(one, "nbytes", None)
        total += size if isinstance(size, int) else _shallow(one)
        if isinstance(one, Mapping) and type(one) is dict:
            stack += list(cast("dict[object, object]", one).values())[:left]
        elif type(one) in (list, tuple, set, frozenset):
            stack += list(cast("list[object]", one))[:left]
    return total


def _shallow(value: object) -> int:
    try:
        return sys.getsizeof(value)
    except Exception:  # a __sizeof__ of the user's
        return 0
