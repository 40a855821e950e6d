"""``ippmpi cluster start``."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time

from ippmpi.cluster import Cluster
from ippmpi.config import ClusterSettings
from ippmpi.errors import ClusterError

from .dispatch import ALREADY_RUNNING, FAILED
from .foreground import Ended, ending_signals, supervise
from .parser import settings_of


def run(args: argparse.Namespace) -> int:
    """Start a cluster, wait for its engines; then stay until a signal, or (``--daemonize``) leave."""
    options = settings_of(args, ClusterSettings)
    cluster = Cluster(shutdown_atexit=False, **{**options, "cluster_id": options["cluster_id"] or ""})
    cluster.supervised = not args.daemonize
    stays = False
    with ending_signals():
        try:
            code = _start(cluster)
            stays = args.daemonize and code == 0
            return code if stays or code else _stay(cluster)
        except Ended as signal_name:
            print(f"{signal_name}: stopping", flush=True)
            return 0
        finally:
            if stays:
                cluster.detach()
            else:
                cluster.stop_cluster_sync()


def _start(cluster: Cluster) -> int:
    began = time.monotonic()
    try:
        cluster.start_controller_sync()
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return ALREADY_RUNNING
    assert cluster.controller is not None
    print(f"controller: pid {cluster.controller.identity.pid}, files in {cluster.profile_dir}/security", flush=True)
    cluster.start_engines_sync()
    launcher = cluster.engine_set
    assert launcher is not None
    print(f"starting {launcher.spec.n} engines: {' '.join(launcher.argv(launcher.spec)[0])}", flush=True)
    with contextlib.closing(cluster.connect_client_sync()) as client:
        cluster.wait_for_engines_sync(client, launcher.spec.n)
    print(f"{launcher.spec.n} engines ({launcher.name}) are ready after {time.monotonic() - began:.1f} s", flush=True)
    print(_how_to_connect(cluster), flush=True)
    return 0


def _stay(cluster: Cluster) -> int:
    supervise(cluster)
    stopped = cluster.controller is not None and cluster.controller.poll() == 0
    if stopped or not cluster.cluster_file.exists():
        print("the cluster was stopped", flush=True)
        return 0
    print(f"error: the controller has ended by itself; its log: {cluster.controller_log}", file=sys.stderr)
    return FAILED


def _how_to_connect(cluster: Cluster) -> str:
    settings, where = cluster.settings, []
    if settings.profile_dir:
        where.append(f"profile_dir={settings.profile_dir!r}")
    elif settings.profile != "default":
        where.append(f"profile={settings.profile!r}")
    if settings.cluster_id:
        where.append(f"cluster_id={settings.cluster_id!r}")
    options = "".join(f" --{text.replace('_', '-').replace(chr(39), '')}" for text in where)
    return (
        f"connect: import ippmpi as ipp; rc = ipp.Client({', '.join(where)})\n"
        f"stop:    Ctrl-C here, or 'ippmpi cluster stop{options}'"
    )
