"""Starting the controller process, and the address that it listens on."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ippmpi import config
from ippmpi.config import ClusterSettings, ControllerSettings
from ippmpi.errors import LaunchError
from ippmpi.launching import OUTPUT_LINES, Process, read_tail
from ippmpi.traits.files import has_file

MODULE = "ippmpi.controller"
COMMAND = ("ippmpi.cli", "controller")


def start_controller(settings: ClusterSettings, ip: str, log_file: Path, *, restore: bool = False) -> Process:
    """Start a controller and wait until its connection files are there.

    It says so itself: with one line in a pipe, so there is nothing to poll. With *restore* it goes on where one
    that was killed has ended.

    Raises:
        LaunchError: it ended, or was not ready in ``start_timeout_s``; carries its last output.
    """
    ready, tell = os.pipe()
    try:
        process = Process.start(
            [*_argv(settings, ip, tell), *(["--restore"] if restore else [])],
            log_file=log_file,
            work_dir=settings.folder,
            environment=config.child_environment(),
            pass_fds=(tell,),
        )
    finally:
        os.close(tell)
    try:
        _wait_ready(process, ready, settings.start_timeout_s, log_file)
    finally:
        os.close(ready)
    return process


def _argv(settings: ClusterSettings, ip: str, tell: int) -> list[str]:
    """Return the controller's command; by way of ``ipcontroller`` if it is to understand what people say to that."""
    known = bool(settings.controller_args) or has_file(settings.folder, ControllerSettings)
    argv = [sys.executable, "-P", "-m", *(COMMAND if known else (MODULE,)), "--profile-dir", str(settings.folder)]
    argv += ["--cluster-id", settings.cluster_id]
    argv += ["--ip", ip] if ip else []
    argv += ["--location", settings.controller_location] if settings.controller_location else []
    argv += ["--log-level", settings.log_level] if settings.log_level != "info" else []
    return [*argv, *settings.controller_args, "--ready-fd", str(tell)]


def _wait_ready(process: Process, ready: int, timeout_s: float, log_file: Path) -> None:
    try:
        in_time = select.select([ready], [], [], timeout_s)[0]
        if in_time and os.read(ready, 1):
            return
    except BaseException:  # Ctrl-C: nobody else knows of it yet
        end_process(process, 0.0)
        raise
    end_process(process, 0.5 if in_time else 0.0)
    what = "ended" if in_time else f"was not ready within {timeout_s:g} s"
    raise LaunchError(f"the controller {what} (exit code {process.poll()})", read_tail(log_file, OUTPUT_LINES))


def end_process(process: Process, timeout_s: float) -> None:
    """Give a process that was told to end *timeout_s* seconds, then kill it; return when it is gone."""
    deadline = time.monotonic() + timeout_s
    killed = False
    while process.poll() is None:
        if time.monotonic() >= deadline and not killed:
            process.signal(signal.SIGKILL)
            killed = True
        time.sleep(0.005)


def routable_address(hosts: Sequence[str]) -> str:
    """Return the address of this machine by which *hosts* (``name[:ranks]``) reach it; "*" if it cannot be known.

    It is the address that the kernel would send from; nothing is sent.
    """
    for host in (*(h.partition(":")[0] for h in hosts), "192.0.2.1"):  # the last: whatever the default route is
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.connect((host, 9))
                address = str(probe.getsockname()[0])
        except OSError:  # an alias of the user's ssh configuration, or no route
            continue
        if not address.startswith("127."):
            return address
    return "*"
