"""The engine sets of a cluster: each one launcher, one MPI job, one world."""

from __future__ import annotations

import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from ippmpi import connection, native
from ippmpi.client.folding import spans
from ippmpi.config import ClusterSettings, Settings
from ippmpi.connection import Connection
from ippmpi.errors import ClusterError
from ippmpi.launching import OUTPUT_LINES, STARTUP_ERROR, JobSpec, Launcher

from . import leftovers

ENGINE_MODULE = "ippmpi.engine"

FAILED_START_S = 10.0
"""A set that ends this soon and that nobody has seen complete has failed to start."""


class EngineSets:
    """Launchers by engine set id, in the order in which they were started."""

    def __init__(self, profile_dir: Path, cluster_id: str, saved: Mapping[str, Mapping[str, object]]) -> None:
        """Start with none, or with those that another process *saved*."""
        self.launchers: dict[str, Launcher] = {key: leftovers.find_launcher(value) for key, value in saved.items()}
        self.folders: list[str] = []
        self._joined = set(self.launchers)
        self._started: dict[str, float] = {}
        self._place = (profile_dir, cluster_id)

    def start(
        self,
        found: Connection,
        settings: ClusterSettings,
        environment: Mapping[str, str],
        key: str = "",
        *,
        world: str = "",
    ) -> str:
        """Start the set that *settings* describe, for the controller of *found*; return its id (*key*, or a new one).

        *found* is the engines' connection file. *world* is that of a set that ended: its engines get their ids again.

        Raises:
            ClusterError: the id is taken, or the controller cannot be reached from the hosts.
            LaunchError: the launcher could not start.
        """
        key = key or next(str(i) for i in range(len(self.launchers) + 1) if str(i) not in self.launchers)
        if key in self.launchers:
            raise ClusterError(f"engine set {key!r} exists already; have {', '.join(self.launchers)}")
        launcher_type = leftovers.launcher_class(settings.engines)
        if launcher_type.remote(settings.hosts) and not _reachable(found):
            raise ClusterError(
                f"the controller listens on {found.address or 'a Unix socket only'}, which engines on "
                f"{', '.join(settings.hosts)} cannot reach: start it with controller_ip='*' (--ip='*'), or an address"
            )
        world = world or f"{key}-{secrets.token_hex(2)}"
        mine = connection.for_world(found, world)
        for folder_key in (found.folder_key, mine.folder_key):
            self.use(str(connection.node_folder_path(folder_key)))
        leftovers.wait_unused(str(connection.node_folder_path(mine.folder_key)), leftovers.AGENT_LEAVES_S)
        connection.write(mine, self._file(world))
        try:
            launcher = launcher_type(job(self._file(world), mine, settings, world, environment))
            launcher.start()
        except BaseException:
            self._file(world).unlink()
            raise
        self.launchers[key] = launcher
        self._started[key] = time.monotonic()
        return key

    def _file(self, world: str) -> Path:
        profile_dir, cluster_id = self._place
        return connection.world_path(profile_dir, world, cluster_id)

    def use(self, folder: str) -> None:
        """Note a private folder that must be gone after the end."""
        if folder not in self.folders:
            self.folders.append(folder)

    def select(self, key: str | None) -> dict[str, Launcher]:
        """Return one set, or (None) all; raise KeyError if there is no such set."""
        if key is not None and key not in self.launchers:
            raise KeyError(f"no engine set {key!r}; have {', '.join(self.launchers) or 'none'}")
        return {k: v for k, v in self.launchers.items() if key in (None, k)}

    def worlds(self, key: str | None = None) -> set[str]:
        """Return the worlds of one set, or (None) of all, that still run."""
        return {e.spec.world for e in self.select(key).values() if e.poll() is None}

    def end(self, keys: Iterable[str], timeout_s: float) -> None:
        """Give sets *timeout_s* seconds to end by themselves, then kill them; forget those that ended."""
        for key in list(keys):
            launcher = self.launchers[key]
            launcher.stop(timeout_s)
            del self.launchers[key]
            self._joined.discard(key)
            self._file(launcher.spec.world).unlink(missing_ok=True)
            if not launcher.poll():  # the log of a failure stays
                leftovers.remove_log(launcher.spec.log_file)

    def check(self) -> None:
        """Raise LaunchError if a set that has not joined yet has ended or lost a part."""
        for key, launcher in self.launchers.items():
            if key not in self._joined and (launcher.failed() or launcher.poll() is not None):
                raise launcher.failure("its engines ended before they had joined")

    def dead(self) -> list[str]:
        """Return the sets of which a part ended badly, by itself; one that fails right at its start does not count."""
        now = time.monotonic()
        launchers = list(self.launchers.items())
        return [
            key
            for key, launcher in launchers
            if launcher.failed() and (key in self._joined or now - self._started.get(key, now) > FAILED_START_S)
        ]

    def joined(self) -> None:
        """Note that all have joined: whatever happens to one now is not a failed start."""
        self._joined |= self.launchers.keys()

    def count(self) -> int:
        """Return how many engines all sets together should have."""
        return sum(e.spec.n for e in self.launchers.values())

    def wait(self, timeout_s: float, hope: Callable[[], bool], keys: Iterable[str] | None = None) -> None:
        """Wait until sets (None: all) have ended, at most *timeout_s* seconds and only while there is *hope*."""
        deadline = time.monotonic() + timeout_s
        for key in list(self.launchers if keys is None else keys):
            while time.monotonic() < deadline and hope() and not self.launchers[key].wait(0.02):
                pass

    def said(self) -> str:
        """Return the last output of all sets, for an error's text; "" if they said nothing."""
        return "\n".join(filter(None, (e.get_output(OUTPUT_LINES).strip() for e in self.launchers.values())))

    def complaints(self) -> list[str]:
        """Return what went wrong in startup files of engines that join now, with the ranks, and where to read more."""
        return [
            f"{line}; see {launcher.spec.log_file}"
            for key, launcher in self.launchers.items()
            if key not in self._joined
            for line in _folded(launcher.get_output())
        ]

    def detach(self) -> None:
        """Leave all running when this process ends."""
        for launcher in self.launchers.values():
            launcher.detach()

    def to_dict(self) -> dict[str, dict[str, object]]:
        """Return what another process needs to find them."""
        return {key: launcher.to_dict() for key, launcher in self.launchers.items()}


def _folded(output: str) -> list[str]:
    found: dict[str, list[tuple[str, int]]] = {}
    for line in output.splitlines():
        rank = _STARTUP_LINE.search(line)
        if rank is not None:
            found.setdefault(rank["what"], []).append((rank["host"], int(rank["rank"])))
    return [f"{_where(places)}: {what}" for what, places in found.items()]


def _where(places: Sequence[tuple[str, int]]) -> str:
    ranks = spans(rank for _, rank in places)
    hosts = sorted({host for host, _ in places})
    more = f" and {len(hosts) - MOST_HOSTS} more hosts" if len(hosts) > MOST_HOSTS else ""
    return f"rank{'s' if len(places) > 1 else ''} {ranks} on {', '.join(hosts[:MOST_HOSTS])}{more}"


MOST_HOSTS = 4
"""How many hosts a warning names."""


_STARTUP_LINE = re.compile(re.escape(STARTUP_ERROR) + r" rank (?P<rank>\d+) on (?P<host>\S+): (?P<what>.*)")


def engine_command(file: Path, found: Connection, world: str, size: int) -> list[str]:
    """Return the command of one engine of *world*, with the parent that records how it ends."""
    folder = str(connection.node_folder_path(found.folder_key))
    engine = [sys.executable, "-P", "-m", ENGINE_MODULE, "--file", str(file), "--world", world, "--size", str(size)]
    return [*native.rank_command(folder), *engine]


def job(
    file: Path, found: Connection, settings: ClusterSettings, world: str, environment: Mapping[str, str]
) -> JobSpec:
    """Return the job that is *world*, with the connection *file* (which holds *found*)."""
    n = settings.n or os.cpu_count() or 1
    return JobSpec(
        n=n,
        world=world,
        program=tuple(engine_command(file, found, world, n)),
        log_file=str(log_file(settings, "ipengine", world)),
        work_dir=settings.work_dir or os.getcwd(),
        environment=dict(environment),
        hosts=settings.hosts,
        starter=settings.mpiexec,
        extra=settings.mpi_args,
    )


def log_file(settings: Settings, program: str, what: str) -> Path:
    """Return where the output of a program of the cluster goes."""
    name = "-".join(filter(None, (program, settings.cluster_id, what)))
    return settings.folder / "log" / f"{name}.log"


def _reachable(found: Connection) -> bool:
    host = found.address.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    return bool(host) and not host.startswith("127.") and host != "::1"
