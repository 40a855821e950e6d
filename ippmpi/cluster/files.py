"""Cluster files: which cluster runs, as its starter wrote it down, for other processes.

A file is only believed as far as the processes that it names live (pid, start time, machine). It is
claimed before the controller is started, so that of two starters one is refused.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from ippmpi import connection, identity
from ippmpi.errors import ClusterError, ConnectionFileError
from ippmpi.identity import ProcessIdentity


class ClusterRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a cluster file holds. ``controller`` is None while it is being started by ``starter``.

    ``supervisor``, if there is one, starts the controller again when it was killed.

    ``engine_sets`` holds what ``Launcher.to_dict`` gave, by engine set id; ``folders`` all private
    folders in ``/tmp`` that the cluster has used.
    """

    format: str = connection.FORMAT
    kind: str = "cluster"
    cluster_id: str
    profile_dir: str
    starter: ProcessIdentity
    controller: ProcessIdentity | None = None
    supervisor: ProcessIdentity | None = None
    controller_log: str = ""
    token: str = ""
    folders: list[str] = []
    engine_sets: dict[str, dict[str, object]] = {}
    settings: dict[str, object] = {}

    def alive(self) -> bool:
        """Say whether it runs or is being started; what another machine's processes do is taken for yes."""
        processes = (self.controller or self.starter, self.supervisor)
        return any(identity.alive(each) is not False for each in processes if each is not None)


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


OnStale = Callable[[ClusterRecord], None]


def claim(file: Path, record: ClusterRecord, on_stale: OnStale) -> None:
    """Create the file for a cluster that is about to start; a stale one is replaced after *on_stale* got it.

    Raises:
        ClusterError: a cluster of that id runs.
        ConnectionFileError: the file is another tool's.
    """
    with _locked(file):
        found = _remove_stale(file, on_stale)
        if found is not None:
            who = found.controller or found.starter
            what = "controller" if found.controller else "starting"
            raise ClusterError(
                f"cluster {found.cluster_id!r} is already running ({what} pid {who.pid} on {who.host}); "
                "stop it with 'ippmpi cluster stop', or choose another cluster id"
            )
        write(file, record)


def read_running(file: Path, on_stale: OnStale) -> ClusterRecord:
    """Read the file of a cluster that runs; a stale one is removed after *on_stale* got it.

    Raises:
        FileNotFoundError: there is no such file.
        ClusterError: it was stale.
        ConnectionFileError: it is another tool's.
    """
    record = read(file)
    if record.alive():
        return record
    with _locked(file):
        found = _remove_stale(file, on_stale)
    if found is not None:  # it was started again meanwhile
        return found
    raise ClusterError(
        f"cluster {record.cluster_id!r} of {record.profile_dir} is not running: its controller has ended without a "
        "stop; what it left behind was removed"
    )


def _remove_stale(file: Path, on_stale: OnStale) -> ClusterRecord | None:
    """Remove *file* if its cluster has ended, else return what it says; None without a file. The lock is held."""
    try:
        found = read(file)
    except FileNotFoundError:
        return None
    if found.alive():
        return found
    on_stale(found)
    file.unlink(missing_ok=True)
    return None


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Let one process at a time decide about *file*; the lock file is gone afterwards."""
    lock = file.with_name(f".{file.name}.lock")
    connection.make_private_folder(file.parent)
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with contextlib.suppress(OSError):  # a file system without locks: the moment of danger is short
            fcntl.flock(handle, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(lock)):
                break
        os.close(handle)  # the one who had it has removed it
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(handle)


def _encode(record: ClusterRecord) -> bytes:
    return msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"
