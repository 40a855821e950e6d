"""What a cluster is, and how other processes get to know it; nothing here starts or ends anything."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from ippmpi import config, connection, identity
from ippmpi.errors import ClusterError
from ippmpi.identity import ProcessIdentity
from ippmpi.launching import Launcher, Process

from . import files, leftovers
from .files import ClusterRecord
from .options import settings_and_more
from .sets import EngineSets


class ClusterState:
    """Settings, controller and engine sets of one cluster.

    Attributes:
        settings: the options, with configuration file and environment applied.
        environment: added to the engines' own.
        n: how many engines ``start_engines`` starts if not told otherwise.
        controller: the controller's process, None if there is none.
        supervised: whether this process starts the controller again when it was killed.
        supervisor: the process that does, if it is another one.
        shutdown_atexit: whether the cluster ends with this process.
    """

    def __init__(
        self, *, environment: Mapping[str, str] | None = None, shutdown_atexit: bool = True, **options: Any
    ) -> None:
        """Say what to start; nothing is started yet. ``environment`` is added to the engines' own."""
        if options.get("cluster_id") is None:
            options["cluster_id"] = f"{int(time.time())}-{secrets.token_hex(2)}"
        self.settings, extra = settings_and_more(options, environment)
        connection.check_cluster_id(self.settings.cluster_id)
        self.environment = dict(extra.environment)
        self._file = None if extra.cluster_file is None else str(extra.cluster_file)
        self.shutdown_atexit = shutdown_atexit
        self.controller: Process | None = None
        self.supervised = False
        self.supervisor: ProcessIdentity | None = None
        self.n: int | None = self.settings.n or os.cpu_count()
        self._controller_log = ""
        self._token = ""
        self._sets = EngineSets(self.profile_dir, self.cluster_id, {})
        self._lock = threading.RLock()

    # --- what it is ------------------------------------------------------------------------------

    @property
    def cluster_id(self) -> str:
        """Its name within the profile."""
        return self.settings.cluster_id

    @property
    def profile_dir(self) -> Path:
        """The folder of its files."""
        return self.settings.folder

    @property
    def engines(self) -> dict[str, Launcher]:
        """The launchers of the engine sets, by engine set id."""
        return self._sets.launchers

    @property
    def engine_set(self) -> Launcher | None:
        """The first set of engines, or None."""
        return next(iter(self.engines.values()), None)

    @property
    def running(self) -> bool:
        """Whether its controller lives."""
        return self.controller is not None and self.controller.poll() is None

    @property
    def controller_log(self) -> str:
        """The file with the controller's output; "" if it was started by hand."""
        return self._controller_log

    @property
    def cluster_file(self) -> Path | None:
        """Where it is written down for other processes; None if it is not (``cluster_file=""``)."""
        if self._file is not None:
            return Path(self._file).expanduser().absolute() if self._file else None
        return files.path(self.profile_dir, self.cluster_id)

    def __repr__(self) -> str:
        """Show id, profile, controller and sets with their states."""
        parts = [f"cluster_id={self.cluster_id!r}", f"profile_dir={str(self.profile_dir)!r}"]
        if self.controller is not None:
            parts.append(f"controller=<{'running' if self.running else 'after'}, pid {self.controller.identity.pid}>")
        if self.engines:
            sets = ", ".join(f"{key!r}: {e.spec.n} {e.name} {e.state.value}" for key, e in self.engines.items())
            parts.append(f"engines={{{sets}}}")
        return f"<Cluster({', '.join(parts)})>"

    # --- for other processes ---------------------------------------------------------------------

    def to_record(self) -> ClusterRecord:
        """Return all that another process needs to go on with this cluster."""
        return ClusterRecord(
            cluster_id=self.cluster_id,
            profile_dir=str(self.profile_dir),
            starter=identity.identify(os.getpid()),
            controller=self.controller.identity if self.controller else None,
            supervisor=identity.identify(os.getpid()) if self.supervised else self.supervisor,
            controller_log=self._controller_log,
            token=self._token,
            folders=self._sets.folders,
            engine_sets=self._sets.to_dict(),
            settings=dict(vars(self.settings)),
        )

    @classmethod
    def from_record(cls, record: ClusterRecord) -> Self:
        """Return the cluster that another process started; it is not stopped when this one ends."""
        options: dict[str, Any] = {**record.settings, "profile_dir": record.profile_dir}
        cluster = cls(shutdown_atexit=False, load_profile=False, **options)
        cluster.controller = Process(record.controller) if record.controller else None
        cluster.supervisor = record.supervisor
        cluster._controller_log = record.controller_log
        cluster._token = record.token
        cluster._sets = EngineSets(cluster.profile_dir, cluster.cluster_id, record.engine_sets)
        cluster._sets.folders = list(record.folders)
        cluster.n = cluster._sets.count() or cluster.n
        cluster.environment = dict(cluster.engine_set.spec.environment) if cluster.engine_set else {}
        return cluster

    def to_dict(self) -> dict[str, Any]:
        """Return ``to_record`` as plain values, for JSON."""
        return files.to_dict(self.to_record())

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Self:
        """Return the cluster of which ``to_dict`` was taken."""
        return cls.from_record(files.from_dict(saved))

    @classmethod
    def from_file(
        cls,
        cluster_file: str | Path | None = None,
        *,
        profile: str | None = None,
        profile_dir: str | Path | None = None,
        cluster_id: str = "",
    ) -> Self:
        """Return a running cluster, found by file, or by profile and id.

        Raises:
            FileNotFoundError: there is no such file.
            ClusterError: the cluster has ended; what it left is removed.
            ConnectionFileError: the file is another tool's.
        """
        file = Path(cluster_file or files.path(config.profile_folder(profile, profile_dir), cluster_id))
        cluster = cls.from_record(files.read_running(file, leftovers.end_leftovers))
        if cluster_file:
            cluster._file = str(file)
        return cluster

    @classmethod
    def from_connection(
        cls, *, profile: str | None = None, profile_dir: str | Path | None = None, cluster_id: str = ""
    ) -> Self:
        """Return the cluster of a controller that was started by hand, found by its connection file.

        Raises:
            ConnectionFileError: there is no such file, or it is not ours.
            ClusterError: the controller has ended.
        """
        file = connection.find("client", profile=profile, profile_dir=profile_dir, cluster_id=cluster_id)
        found = connection.load(file, "client")
        if connection.stale(found):
            raise ClusterError(f"cluster {cluster_id!r} is not running: its controller has ended and left {file}")
        cluster = cls(shutdown_atexit=False, profile_dir=file.parents[1], cluster_id=cluster_id)
        cluster.controller = Process(found.controller)
        cluster._token = found.token
        cluster._sets.folders = leftovers.own_folders(found.token)
        return cluster

    def write_cluster_file(self) -> None:
        """Write the cluster file, if there is to be one."""
        if self.cluster_file is not None:
            files.write(self.cluster_file, self.to_record())

    def update_cluster_file(self) -> None:
        """Write the cluster file, or remove it if the cluster does not run."""
        if self.running:
            self.write_cluster_file()
        else:
            self.remove_cluster_file()

    def remove_cluster_file(self) -> None:
        """Remove the cluster file."""
        if self.cluster_file is not None:
            self.cluster_file.unlink(missing_ok=True)

    def _connection(self, role: connection.Role) -> connection.Connection:
        return connection.load(connection.path(self.profile_dir, role, self.cluster_id), role)
