"""The running cluster that a command line means."""

from __future__ import annotations

import argparse

from ippmpi import config
from ippmpi.cluster import Cluster
from ippmpi.config import ClusterSettings

from .parser import WHICH, settings_of


def find_cluster(args: argparse.Namespace) -> Cluster:
    """Return the cluster of a profile and id; also one whose controller was started by hand.

    Raises:
        FileNotFoundError: there is none.
        ClusterError: it has ended.
        ConnectionFileError: its files are another tool's.
    """
    given = settings_of(args, ClusterSettings)
    settings = config.load(ClusterSettings, {name: given[name] for name in WHICH})
    try:
        return Cluster.from_file(profile_dir=settings.folder, cluster_id=settings.cluster_id)
    except FileNotFoundError:
        return Cluster.from_connection(profile_dir=settings.folder, cluster_id=settings.cluster_id)
