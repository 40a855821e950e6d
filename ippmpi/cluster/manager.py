"""``ClusterManager``: the clusters of one or all profiles, as their files tell."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ippmpi import config, connection
from ippmpi.errors import ClusterError, ConnectionFileError

from . import files, leftovers
from .cluster import Cluster


class ClusterManager:
    """Finds running clusters. ``clusters`` maps ``"<profile>:<cluster id>"`` to those found last, and to new ones."""

    def __init__(self) -> None:
        """Know none yet."""
        self.clusters: dict[str, Cluster] = {}

    def load_clusters(
        self,
        *,
        profile: str | None = None,
        profile_dir: str | Path | None = None,
        profiles: Iterable[str] | None = None,
        profile_dirs: Iterable[str | Path] | None = None,
        init_default_clusters: bool = False,
    ) -> dict[str, Cluster]:
        """Look for running clusters, in all profiles unless some are named. What ended ones left behind is removed.

        With *init_default_clusters* each profile has one of the id "", which may still have to be started.
        """
        named = [config.profile_folder(name) for name in profiles or ()]
        named += [config.profile_folder(None, folder) for folder in profile_dirs or ()]
        named += [config.profile_folder(profile, profile_dir)] if profile or profile_dir else []
        everywhere = profiles is None and profile_dirs is None and not named
        self.clusters = {}
        for folder in config.profile_folders() if everywhere else named:
            for file in files.all_paths(folder):
                # ended (and removed now), another tool's, or just removed by its owner
                with contextlib.suppress(ClusterError, ConnectionFileError, FileNotFoundError):
                    self._add(Cluster.from_record(files.read_running(file, leftovers.end_leftovers)))
            if init_default_clusters:
                default = Cluster(profile_dir=folder, cluster_id="")
                self.clusters.setdefault(_key(default), default)
        return self.clusters

    def new_cluster(self, **options: Any) -> tuple[str, Cluster]:
        """Make a cluster, as ``Cluster(**options)``; return its key and it. Nothing is started.

        Raises:
            KeyError: there is one of this profile and cluster id.
        """
        cluster = Cluster(**options)
        if _key(cluster) in self.clusters:
            raise KeyError(f"there is a cluster {_key(cluster)!r}; choose another cluster_id")
        return self._add(cluster), cluster

    def get_cluster(self, key: str) -> Cluster:
        """Return a cluster found by ``load_clusters``, or made here; raise KeyError naming those there are."""
        if key not in self.clusters:
            raise KeyError(f"no cluster {key!r}; have {', '.join(self.clusters) or 'none'}")
        return self.clusters[key]

    def remove_cluster(self, key: str) -> None:
        """Forget a cluster; it is not stopped. Raises KeyError as ``get_cluster`` does."""
        self.get_cluster(key)
        del self.clusters[key]

    def _add(self, cluster: Cluster) -> str:
        self.clusters[_key(cluster)] = cluster
        return _key(cluster)


def _key(cluster: Cluster) -> str:
    return f"{cluster.profile_dir.name.removeprefix('profile_')}:{cluster.cluster_id}"


def clean_cluster_files(
    profile_dirs: Iterable[str | Path] | None = None,
    *,
    log: object = None,  # noqa: ARG001 - people give one
    force: bool = False,
) -> list[Path]:
    """Remove the files of clusters of *profile_dirs* (None: of all profiles); return what was removed.

    With *force* those that run are stopped first.

    Raises:
        ValueError: one runs, and *force* is not given.
    """
    given = config.profile_folders() if profile_dirs is None else profile_dirs
    folders = [config.profile_folder(None, folder) for folder in given]
    running = ClusterManager().load_clusters(profile_dirs=folders)
    if running and not force:
        raise ValueError(f"these clusters run: {', '.join(running)}; stop them before, or use force=True")
    for cluster in running.values():
        cluster.stop_cluster_sync()
    return clean(folders)


def clean(profile_dirs: Iterable[Path]) -> list[Path]:
    """Remove the files of ended clusters and the logs of profiles in which none runs; return what was removed."""
    removed: list[Path] = []
    for folder in profile_dirs:
        before = _files(folder)
        running = ClusterManager().load_clusters(profile_dir=folder)
        _clean_connections(folder)
        if not running:
            for log in (folder / "log").glob("ip*.log"):
                log.unlink(missing_ok=True)
        removed += sorted(before - _files(folder))
    return removed


def _clean_connections(folder: Path) -> None:
    """Remove connection files of controllers that have ended and were started by hand."""
    patterns: dict[str, connection.Role] = {
        "ipcontroller*-client.json": "client",
        "ipcontroller*-engine.json": "engine",
        "ipengine-*.json": "engine",
        "ipworld-*.json": "engine",
    }
    for pattern, role in patterns.items():
        for file in connection.security_folder(folder).glob(pattern):
            with contextlib.suppress(ConnectionFileError):  # another tool's
                found = connection.load(file, role)
                if connection.stale(found):
                    file.unlink(missing_ok=True)
                    node_folder = str(connection.node_folder_path(found.folder_key))
                    leftovers.remove_folders([os.path.dirname(found.socket), node_folder])


def _files(folder: Path) -> set[Path]:
    return {p for part in ("security", "log") for p in (folder / part).glob("*") if p.is_file()}
