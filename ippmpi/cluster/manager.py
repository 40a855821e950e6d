"""``ClusterManager``: the clusters of one or all profiles, as their files tell."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from ippmpi import config, connection
from ippmpi.errors import ClusterError, ConnectionFileError

from . import files, leftovers
from .cluster import Cluster


class ClusterManager:
    """Finds running clusters. ``clusters`` maps ``"<profile>:<cluster id>"`` to those found last."""

    def __init__(self) -> None:
        """Know none yet."""
        self.clusters: dict[str, Cluster] = {}

    def load_clusters(self, *, profile: str | None = None, profile_dir: str | Path | None = None) -> dict[str, Cluster]:
        """Look for running clusters, in all profiles unless one is named. What ended ones left behind is removed."""
        named = [config.profile_folder(profile, profile_dir)] if profile or profile_dir else None
        self.clusters = {}
        for folder in config.profile_folders() if named is None else named:
            for file in files.all_paths(folder):
                # ended (and removed now), another tool's, or just removed by its owner
                with contextlib.suppress(ClusterError, ConnectionFileError, FileNotFoundError):
                    cluster = Cluster.from_record(files.read_running(file, leftovers.end_leftovers))
                    self.clusters[f"{folder.name.removeprefix('profile_')}:{cluster.cluster_id}"] = cluster
        return self.clusters

    def get_cluster(self, key: str) -> Cluster:
        """Return a cluster found by ``load_clusters``; raise KeyError naming those there are."""
        if key not in self.clusters:
            raise KeyError(f"no cluster {key!r}; have {', '.join(self.clusters) or 'none'}")
        return self.clusters[key]


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
