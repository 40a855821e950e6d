"""``ippmpi cluster start``."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time

from ippmpi.cluster import Cluster
from ippmpi.cluster.leftovers import remove_log
from ippmpi.cluster.sets import log_file
from ippmpi.config import ClusterSettings
from ippmpi.errors import ClusterError

from .daemon import Ready, in_background
from .dispatch import ALREADY_RUNNING, FAILED
from .foreground import Ended, ending_signals, passing_signals, supervise
from .parser import settings_of


def run(args: argparse.Namespace) -> int:
    """Start a cluster, wait for its engines; then stay until a signal, or (``--daemonize``) go on in the background."""
    if args.daemonize:
        return in_background(lambda ready: _run(args, ready))
    return _run(args, None)


def _run(args: argparse.Namespace, ready: Ready | None) -> int:
    options = settings_of(args, ClusterSettings)
    cluster = Cluster(shutdown_atexit=False, **{**options, "cluster_id": options["cluster_id"] or ""})
    cluster.supervised = True
    log = log_file(cluster.settings, "ipcluster", "")
    code = FAILED
    with passing_signals(cluster), ending_signals():
        try:
            code = _start(cluster)
            if code == 0:
                if ready is not None:
                    ready(log)
                code = _stay(cluster)
        except Ended as signal_name:
            print(f"{signal_name}: stopping", flush=True)
            code = 0
        finally:
            cluster.stop_cluster_sync()
    if ready is not None and code == 0:
        remove_log(str(log))
    return code


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
    if stopped or (cluster.cluster_file is not None and not cluster.cluster_file.exists()):
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
