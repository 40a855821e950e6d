"""Cluster files: which cluster runs, as its starter wrote it down, for other processes.

A file is only believed as far as the processes that it names live (pid, start time, machine). It is
claimed before the controller is started, so that of two starters one is refused.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from ippmpi import connection, identity
from ippmpi.errors import ClusterError, ConnectionFileError
from ippmpi.identity import ProcessIdentity


class ClusterRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a cluster file holds. ``controller`` is None while it is being started by ``starter``.

    ``engine_sets`` holds what ``Launcher.to_dict`` gave, by engine set id; ``folders`` all private
    folders in ``/tmp`` that the cluster has used.
    """

    format: str = connection.FORMAT
    kind: str = "cluster"
    cluster_id: str
    profile_dir: str
    starter: ProcessIdentity
    controller: ProcessIdentity | None = None
    controller_log: str = ""
    token: str = ""
    folders: list[str] = []
    engine_sets: dict[str, dict[str, object]] = {}
    settings: dict[str, object] = {}

    def alive(self) -> bool:
        """Say whether it runs or is being started; what another machine's processes do is taken for yes."""
        return identity.alive(self.controller or self.starter) is not False


def path(profile_dir: Path, cluster_id: str) -> Path:
    """Return where the file of a cluster is, or would be."""
    return connection.security_folder(profile_dir) / f"cluster-{connection.check_cluster_id(cluster_id)}.json"


def all_paths(profile_dir: Path) -> list[Path]:
    """Return the cluster files of a profile, other tools' included."""
    return sorted(connection.security_folder(profile_dir).glob("cluster-*.json"))


def read(file: Path) -> ClusterRecord:
    """Read a cluster file.

    Raises:
        FileNotFoundError: there is none.
        ConnectionFileError: it is another tool's, or damaged.
    """
    try:
        return from_dict(msgspec.json.decode(file.read_bytes()))
    except ConnectionFileError:
        raise ConnectionFileError(
            f'{file} belongs to another tool (no \'"format": "{connection.FORMAT}"\' in it): '
            "use another cluster id or profile here"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConnectionFileError(f"{file} is damaged: {error}; remove it if no cluster of it runs") from None


def to_dict(record: ClusterRecord) -> dict[str, object]:
    """Return a record as plain values."""
    return dict(msgspec.to_builtins(record))


def from_dict(saved: object) -> ClusterRecord:
    """Return the record of which ``to_dict`` was taken; raise ConnectionFileError if it is something else."""
    if not isinstance(saved, Mapping) or saved.get("format") != connection.FORMAT:
        raise ConnectionFileError("not a cluster of ippmpi")
    return msgspec.convert(saved, ClusterRecord)


def write(file: Path, record: ClusterRecord) -> None:
    """Write a cluster file for its owner only."""
    connection.write_private(file, _encode(record))


def claim(file: Path, record: ClusterRecord, on_stale: Callable[[ClusterRecord], None]) -> None:
    """Create the file for a cluster that is about to start; a stale one is replaced after *on_stale* got it.

    Raises:
        ClusterError: a cluster of that id runs.
        ConnectionFileError: the file is another tool's.
    """
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    connection.write_private(draft, _encode(record))
    try:
        for _ in range(10):  # another starter may remove the same stale file
            with contextlib.suppress(FileExistsError):
                os.link(draft, file)  # fails if it exists, on network file systems too
                return
            _remove_stale(file, on_stale)
    finally:
        draft.unlink()
    raise ClusterError(f"several processes start cluster {record.cluster_id!r} at the same time; try again")


def _remove_stale(file: Path, on_stale: Callable[[ClusterRecord], None]) -> None:
    with contextlib.suppress(FileNotFoundError):
        found = read(file)
        if found.alive():
            who = found.controller or found.starter
            what = "controller" if found.controller else "starting"
            raise ClusterError(
                f"cluster {found.cluster_id!r} is already running ({what} pid {who.pid} on {who.host}); "
                "stop it with 'ippmpi cluster stop', or choose another cluster id"
            )
        on_stale(found)
        file.unlink()


def _encode(record: ClusterRecord) -> bytes:
    return msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"
