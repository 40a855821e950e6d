"""``ippmpi cluster clean``."""

from __future__ import annotations

import argparse

from ippmpi import config
from ippmpi.cluster import ClusterManager, clean

from .stop import stop


def run(args: argparse.Namespace) -> int:
    """Remove what clusters that have ended left behind; those that run are stopped before with ``--force`` only."""
    folders = config.profile_folders() if args.all else [config.profile_folder(args.profile, args.profile_dir)]
    for folder in folders if args.force else ():
        for cluster in ClusterManager().load_clusters(profile_dir=folder).values():
            stop(cluster)
    for path in clean(folders):
        print(f"removed {path}")
    return 0
