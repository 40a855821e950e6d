"""``ippmpi cluster list``."""

from __future__ import annotations

import argparse
import json

from ippmpi.cluster import Cluster, ClusterManager

from .tables import print_table

COLUMNS = ("PROFILE", "CLUSTER ID", "RUNNING", "ENGINES", "LAUNCHER")


def run(args: argparse.Namespace) -> int:
    """Print the running clusters; the files of those that have ended are removed on the way."""
    found = ClusterManager().load_clusters(profile=args.profile, profile_dir=args.profile_dir)
    if args.output == "json":
        print(json.dumps([cluster.to_dict() | {"running": cluster.running} for cluster in found.values()], indent=2))
    else:
        print_table(COLUMNS, [_row(key, cluster) for key, cluster in found.items()])
    return 0


def _row(key: str, cluster: Cluster) -> tuple[object, ...]:
    sets = cluster.engines.values()
    launchers = ", ".join(sorted({launcher.name for launcher in sets}))
    return key.partition(":")[0], cluster.cluster_id, cluster.running, sum(s.spec.n for s in sets), launchers
