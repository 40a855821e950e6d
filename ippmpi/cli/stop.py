"""``ippmpi cluster stop``."""

from __future__ import annotations

import argparse
import sys
import time

from ippmpi import identity
from ippmpi.cluster import Cluster, ClusterManager
from ippmpi.errors import ClusterError, ConnectionFileError

from .dispatch import NOT_RUNNING, text_of
from .find import find_cluster

SUPERVISOR_ENDS_S = 5.0
"""How long the process that watches over a cluster may take to notice its end, and to leave."""


def run(args: argparse.Namespace) -> int:
    """Stop one cluster, those that are named, or all."""
    if args.all:
        found = ClusterManager().load_clusters(profile=args.profile, profile_dir=args.profile_dir)
        for cluster in found.values():
            stop(cluster)
        if not found:
            print("no cluster is running")
        return 0
    codes = [_stop_named(argparse.Namespace(**{**vars(args), "cluster_id": i})) for i in args.ids or [args.cluster_id]]
    return max(codes)


def _stop_named(args: argparse.Namespace) -> int:
    try:
        cluster = find_cluster(args)
    except (ClusterError, ConnectionFileError, FileNotFoundError) as error:
        print(f"not running: {text_of(error)}", file=sys.stderr)
        return NOT_RUNNING
    stop(cluster)
    return 0


def stop(cluster: Cluster) -> None:
    """Stop a cluster, and wait for the process that watches over it."""
    n = sum(launcher.spec.n for launcher in cluster.engines.values())
    cluster.stop_cluster_sync()
    deadline = time.monotonic() + SUPERVISOR_ENDS_S
    while cluster.supervisor is not None and identity.alive(cluster.supervisor) and time.monotonic() < deadline:
        time.sleep(0.02)
    print(f"stopped cluster {cluster.cluster_id!r} of {cluster.profile_dir} ({n} engines)", flush=True)
