"""``ippmpi cluster cache``."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence

from ippmpi.client.caching import CachedResult, CachedResults
from ippmpi.errors import ClusterError, ConnectionFileError

from .dispatch import NOT_RUNNING, text_of
from .find import find_cluster
from .tables import print_table

COLUMNS = ("KEY", "FUNCTION", "BYTES", "CREATED", "LAST USED", "HITS")


def run(args: argparse.Namespace) -> int:
    """Ask the controller for its cached results, or have it drop some."""
    if args.action == "drop" and not args.names:
        raise ValueError("drop needs the names of functions, or keys; clear drops everything")
    if args.action == "clear" and args.names:
        raise ValueError("clear drops everything; drop takes names")
    try:
        cluster = find_cluster(args)
    except (ClusterError, ConnectionFileError, FileNotFoundError) as error:
        print(f"not running: {text_of(error)}", file=sys.stderr)
        return NOT_RUNNING
    with contextlib.closing(cluster.connect_client_sync()) as client:
        if args.action == "list":
            _list(client.cache, args)
        else:
            dropped = client.cache.drop(*args.names) if args.action == "drop" else client.cache.clear()
            print(f"dropped: {dropped}")
    return 0


def _list(cache: CachedResults, args: argparse.Namespace) -> None:
    names: Sequence[str] = args.names or [""]
    found = [entry for name in names for entry in cache.list(name, limit=args.limit)]
    if args.output == "json":
        print(json.dumps([entry._asdict() for entry in found], indent=2, default=str))
        return
    print_table(COLUMNS, map(_row, found))
    counts = cache.counts()
    most = f"{counts['most_entries']:,} results and {counts['most_bytes'] / 1e6:,.0f} MB"
    print(f"{counts['entries']:,} results, {counts['bytes'] / 1e6:,.1f} MB in {counts['folder']}; at most {most}")


def _row(entry: CachedResult) -> tuple[object, ...]:
    times = [f"{at.astimezone():%Y-%m-%d %H:%M:%S}" for at in (entry.created, entry.used)]
    return entry.key, entry.name, entry.size, *times, entry.hits
