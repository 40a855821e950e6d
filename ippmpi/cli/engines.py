"""``ippmpi cluster engines``."""

from __future__ import annotations

import argparse
import contextlib
from typing import Any

from ippmpi.cluster import Cluster
from ippmpi.config import ClusterSettings

from .find import find_cluster
from .foreground import Ended, ending_signals, passing_signals, wait_ended
from .parser import WHICH, settings_of


def run(args: argparse.Namespace) -> int:
    """Start a set of engines for a running controller; stay until it ends, or (``--daemonize``) leave."""
    cluster = find_cluster(args)
    options = {k: v for k, v in settings_of(args, ClusterSettings).items() if v is not None and k not in WHICH}
    before = set(cluster.engines)
    stays = False
    with passing_signals(cluster), ending_signals():
        try:
            key = _start(cluster, options)
            stays = args.daemonize
            return 0 if stays else wait_ended(cluster, key)
        except Ended as signal_name:
            print(f"{signal_name}: stopping the engines", flush=True)
            return 0
        finally:
            if stays:
                cluster.detach()
            else:
                for started in set(cluster.engines) - before:
                    cluster.stop_engines_sync(started)


def _start(cluster: Cluster, options: dict[str, Any]) -> str:
    with contextlib.closing(cluster.connect_client_sync()) as client:
        others = len(client.ids)
        key = cluster.start_engines_sync(**options)
        n = cluster.engines[key].spec.n
        cluster.wait_for_engines_sync(client, others + n)
    print(f"engine set {key!r}: {n} engines ({cluster.engines[key].name}) are ready", flush=True)
    return key
