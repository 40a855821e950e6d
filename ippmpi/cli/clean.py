"""``ippmpi cluster clean``."""

from __future__ import annotations

import argparse

from ippmpi import config
from ippmpi.cluster import clean


def run(args: argparse.Namespace) -> int:
    """Remove what clusters that have ended left behind; running ones are not touched."""
    folders = config.profile_folders() if args.all else [config.profile_folder(args.profile, args.profile_dir)]
    for path in clean(folders):
        print(f"removed {path}")
    return 0
