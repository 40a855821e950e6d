"""What a cluster that has ended may leave behind, and how it is removed."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

from ippmpi import connection, plugins
from ippmpi.agent import procfs
from ippmpi.agent.files import SEGMENTS
from ippmpi.connection import lock_held
from ippmpi.errors import LaunchError
from ippmpi.launching import Launcher

from .files import ClusterRecord

LAUNCHERS = "ippmpi.launchers"

AGENT_LEAVES_S = 3.0
"""Seconds that agents have to leave after their engines."""


def launcher_class(name: str) -> type[Launcher]:
    """Return the launcher of that name (any case), or (``module.Class``) that class.

    Raises:
        LookupError: there is none; names those there are.
    """
    if "." not in name:
        return cast("type[Launcher]", plugins.load(LAUNCHERS, name))
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise LookupError(f"no launcher {name!r}: {error}; have {', '.join(plugins.names(LAUNCHERS))}") from None
    if not (isinstance(found, type) and issubclass(found, Launcher)):
        raise LookupError(f"{name!r} is no launcher: a class that is derived from ippmpi.launching.Launcher is")
    return found


def find_launcher(saved: Mapping[str, object]) -> Launcher:
    """Return the launcher of a job that another process started."""
    return launcher_class(str(saved["launcher"])).from_dict(saved)


def end_leftovers(record: ClusterRecord) -> None:
    """End the engines of a cluster whose controller is gone, and remove its files except the cluster file."""
    for saved in record.engine_sets.values():
        launcher = find_launcher(saved)
        with contextlib.suppress(LaunchError, OSError):  # on another machine, or it does not end: best effort
            launcher.stop()
        remove_log(launcher.spec.log_file)
    remove_log(record.controller_log)
    remove_connection_files(Path(record.profile_dir), record.cluster_id, record.token)
    remove_folders(dict.fromkeys([*record.folders, *own_folders(record.token)]))


def own_folders(token: str) -> list[str]:
    """Return the private folders, on any host, of the start *token* of a controller; its worlds have others."""
    key = connection.folder_key(token)
    return [str(connection.controller_folder_path(key)), str(connection.node_folder_path(key))] if token else []


def remove_connection_files(profile_dir: Path, cluster_id: str, token: str) -> None:
    """Remove the connection files of one start of a cluster; those of another start stay."""
    for role in connection.ROLES:
        connection.remove(connection.path(profile_dir, role, cluster_id), token)
    for file in connection.world_paths(profile_dir):
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
        wait_unused(folder, deadline - time.monotonic())
        with contextlib.suppress(OSError):
            if folder.startswith(ours) and os.lstat(folder).st_uid == os.getuid():
                _remove_segments(Path(folder))
                shutil.rmtree(folder)


def _remove_segments(folder: Path) -> None:
    """Remove what the ranks of a node folder, whose agent could not do it, left in shared memory."""
    files = list(folder.glob(f"{connection.host_prefix()}*"))
    if files:
        noted = procfs.read_segments(folder / f"{connection.host_prefix()}{SEGMENTS}")
        procfs.remove_segments(noted | procfs.abandoned(min(file.lstat().st_mtime for file in files)))


def wait_unused(folder: str, wait_s: float) -> None:
    """Wait, at most *wait_s* seconds, until no process of this host holds a lock in a private folder."""
    deadline = time.monotonic() + wait_s
    while _in_use(folder) and time.monotonic() < deadline:
        time.sleep(0.01)


def _in_use(folder: str) -> bool:
    """Say whether a process holds one of the folder's locks, as agents do while they live."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:  # its owner was faster
        return False
    ours = connection.host_prefix()
    return any(lock_held(Path(folder, n)) for n in names if n.startswith(ours) and n.endswith(".lock"))
