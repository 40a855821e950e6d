"""``client.worlds``: the MPI jobs that the engines belong to, by name, and how one is started again."""

from __future__ import annotations

import enum
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Protocol

from ippmpi.client.engines import Engines
from ippmpi.errors import ClusterError

if TYPE_CHECKING:
    from ippmpi.wire.messages import EngineRecord

LOOK_S = 0.1  # how often whoever starts the ranks is looked at while they are waited for

RESTART_S = 60.0


class WorldState(enum.Enum):
    """How much of a world is there: ``RUNNING``: every rank; ``BROKEN``: some; ``ENDED``: none."""

    RUNNING = "running"
    BROKEN = "broken"
    ENDED = "ended"


class Starter(Protocol):
    """What a world needs of the ``Cluster`` that has started it."""

    def restart_world_sync(self, world: str) -> None:
        """End what is left of a world and start it again; raise ClusterError if it is not of this cluster."""

    def check(self) -> None:
        """Raise ClusterError or LaunchError if what was started has failed."""


class World:
    """One MPI job (one ``MPI_COMM_WORLD``), as it is now: everything here is looked up when it is asked for.

    A world that has ended stays known to the clients that have seen it, so that it can be started again.
    """

    def __init__(self, name: str, engines: Engines, starter: Starter | None) -> None:
        """Look at the world of that name; *starter* is the cluster of the client, if it has one."""
        self.name = name
        self._engines = engines
        self._starter = starter

    @property
    def size(self) -> int:
        """How many ranks it has."""
        return next(iter(self._seen.values())).size

    @property
    def ids(self) -> list[int]:
        """The engine ids of its ranks, in rank order; of a world that has ended, those that it gets again."""
        one = next(iter(self._seen.values()))
        return list(range(one.id - one.rank, one.id - one.rank + one.size))

    @property
    def hosts(self) -> list[str]:
        """The hosts of its ranks as far as they were seen, each once, in the order of their first rank."""
        return list(dict.fromkeys(record.host for _, record in sorted(self._seen.items())))

    @property
    def state(self) -> WorldState:
        """How much of it is there."""
        there = len(self._engines.of_world(self.name))
        if there == self.size:
            return WorldState.RUNNING
        return WorldState.BROKEN if there else WorldState.ENDED

    @property
    def _seen(self) -> Mapping[int, EngineRecord]:
        return self._engines.worlds[self.name]

    def restart(self, timeout: float | None = RESTART_S) -> None:
        """End what is left of it and start it again, under the same engine ids; return when all its ranks are there.

        What ran on it fails with ``EngineError``; what was registered by ``DirectView.on_start`` runs first on the
        new ranks. If somebody else has taken the ids of a world that had ended, it gets others: see ``ids``.

        Raises:
            ClusterError: this client does not know who started the world.
            LaunchError: the launcher failed; carries cause and last output.
            TimeoutError: not all ranks were there *timeout* seconds later (None: as long as it takes).
        """
        if self._starter is None:
            raise ClusterError(
                f"this client cannot start world {self.name!r} again, since it was not made by the Cluster that did: "
                "use that one's client, or ipp.Cluster.from_file(...).connect_client_sync() on the same machine"
            )
        deadline = None if timeout is None else time.monotonic() + timeout
        before = {(record.host, record.pid) for record in self._seen.values()}
        self._starter.restart_world_sync(self.name)
        while True:
            left = LOOK_S if deadline is None else min(LOOK_S, deadline - time.monotonic())
            if self._engines.wait_until(lambda: self._renewed(before), max(0.0, left)):
                return
            self._starter.check()
            if left <= 0:
                there = len(self._engines.of_world(self.name))
                raise TimeoutError(f"world {self.name!r}: {there} of {self.size} ranks are there after {timeout:g} s")

    def _renewed(self, before: set[tuple[str, int]]) -> bool:
        now = self._engines.of_world(self.name)
        return bool(now) and len(now) == now[0].size and all((each.host, each.pid) not in before for each in now)

    def __repr__(self) -> str:
        """Show name, state, ids and hosts."""
        ids = self.ids
        span = f"engine {ids[0]}" if self.size == 1 else f"engines {ids[0]}-{ids[-1]}"
        return f"<World {self.name!r}: {self.state.value}, {span} on {', '.join(self.hosts)}>"


class Worlds(Mapping[str, World]):
    """All worlds that this client has seen, by name; the id of an engine set stands for its world's name."""

    def __init__(self, engines: Engines, starter: Starter | None) -> None:
        """Look at these engines."""
        self._engines = engines
        self._starter = starter

    def __getitem__(self, name: str) -> World:
        """Return a world; raise KeyError naming those there are."""
        known = self._engines.worlds
        if name not in known:  # the world of engine set "0" is "0-" and four digits
            of_set = [each for each in known if each.rpartition("-")[0] == name]
            # of those that have ended only the last can be started again
            there = [each for each in of_set if self._engines.of_world(each)] or of_set[-1:]
            if len(there) != 1:
                raise KeyError(f"no world {name!r}; have {', '.join(known) or 'none'}")
            name = there[0]
        return World(name, self._engines, self._starter)

    def __iter__(self) -> Iterator[str]:
        """Yield the names, in the order in which they were first seen."""
        return iter(list(self._engines.worlds))

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._engines.worlds)

    def __repr__(self) -> str:
        """Show them all."""
        return f"{{{', '.join(f'{name!r}: {world!r}' for name, world in self.items())}}}"
