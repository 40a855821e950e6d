"""What a cluster that has ended may leave behind, and how it is removed."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

from ippmpi import connection, plugins
from ippmpi.errors import ClusterError, LaunchError
from ippmpi.launching import Launcher

from . import files
from .files import ClusterRecord

LAUNCHERS = "ippmpi.launchers"

AGENT_LEAVES_S = 2.0
"""Seconds that agents have to leave after their engines."""


def launcher_class(name: str) -> type[Launcher]:
    """Return the launcher of that name (any case); raise LookupError naming those there are."""
    return cast("type[Launcher]", plugins.load(LAUNCHERS, name))


def find_launcher(saved: Mapping[str, object]) -> Launcher:
    """Return the launcher of a job that another process started."""
    return launcher_class(str(saved["launcher"])).from_dict(saved)


def read_running(file: Path) -> ClusterRecord:
    """Read the file of a cluster that runs; raise ClusterError, and clean up, if it has ended."""
    record = files.read(file)
    if record.alive():
        return record
    end_leftovers(record)
    file.unlink(missing_ok=True)
    raise ClusterError(
        f"cluster {record.cluster_id!r} of {record.profile_dir} is not running: its controller has ended without a "
        "stop; what it left behind was removed"
    )


def end_leftovers(record: ClusterRecord) -> None:
    """End the engines of a cluster whose controller is gone, and remove its files except the cluster file."""
    for saved in record.engine_sets.values():
        launcher = find_launcher(saved)
        with contextlib.suppress(LaunchError, OSError):  # on another machine, or it does not end: best effort
            launcher.stop()
        remove_log(launcher.spec.log_file)
    remove_log(record.controller_log)
    remove_connection_files(Path(record.profile_dir), record.cluster_id, record.token)
    remove_folders(record.folders)


def remove_connection_files(profile_dir: Path, cluster_id: str, token: str) -> None:
    """Remove the connection files of one start of a cluster; those of another start stay."""
    for role in connection.ROLES:
        connection.remove(connection.path(profile_dir, role, cluster_id), token)
    for file in connection.security_folder(profile_dir).glob("ipengine-*.json"):
        connection.remove(file, token)


def remove_log(log_file: str) -> None:
    """Remove a log that nobody will ask for."""
    if log_file:
        Path(log_file).unlink(missing_ok=True)


def remove_folders(folders: Iterable[str], wait_s: float = 0.0) -> None:
    """Remove this host's private folders of a cluster; give their owners *wait_s* seconds to do it themselves."""
    deadline = time.monotonic() + wait_s
    ours = str(connection.node_folder_path(""))
    for folder in folders:
        while os.path.exists(folder) and time.monotonic() < deadline:
            time.sleep(0.01)
        with contextlib.suppress(OSError):
            if folder.startswith(ours) and os.lstat(folder).st_uid == os.getuid():
                shutil.rmtree(folder)
