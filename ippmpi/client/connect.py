"""From what a user says about a cluster to its connection record."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from ippmpi import connection as files
from ippmpi import identity
from ippmpi.connection import Connection
from ippmpi.errors import ConnectionFileError

POLL_S = 0.1


def find_connection(
    info: str | Path | Mapping[str, Any] | None,
    *,
    profile: str | None,
    profile_dir: str | Path | None,
    cluster_id: str,
    timeout_s: float,
) -> Connection:
    """Return the record in *info* (a file or its fields), or the one of a profile's cluster.

    A file that is named must be there; that of a profile may take *timeout_s* seconds to appear. So may a controller
    that was killed and is being started again.

    Raises:
        ConnectionFileError: no such file, or it is of no use; the text says why.
        TimeoutError: the controller was not started again in time.
    """
    deadline = time.monotonic() + timeout_s
    if isinstance(info, Mapping):
        return _from_fields(info)
    if info is not None:
        if "://" in str(info):
            raise ValueError(f"{str(info)!r} is an address; a client needs the connection file, which holds the keys")
        return _load(Path(info), deadline, timeout_s)
    return _load(_wait_for_file(profile, profile_dir, cluster_id, timeout_s), deadline, timeout_s)


def _load(file: Path, deadline: float, timeout_s: float) -> Connection:
    """Read *file*; if its controller was killed and somebody starts it again, wait for that."""
    while True:
        found = files.load(file, "client")
        if not (files.stale(found) and files.supervised(file, found)):
            return found
        if time.monotonic() >= deadline:
            raise TimeoutError(
                f"the controller of cluster {found.cluster_id!r} (pid {found.controller.pid}) was killed and has not "
                f"been started again within {timeout_s:g} s; what 'ippmpi cluster start' prints says why"
            )
        time.sleep(POLL_S)


def _from_fields(fields: Mapping[str, Any]) -> Connection:
    try:
        return msgspec.convert(dict(fields), Connection)
    except msgspec.ValidationError as error:
        raise ConnectionFileError(f"the connection info given is not that of a client: {error}") from None


def _wait_for_file(profile: str | None, profile_dir: str | Path | None, cluster_id: str, timeout_s: float) -> Path:
    deadline = time.monotonic() + timeout_s
    told = False
    while True:
        try:
            return files.find("client", profile=profile, profile_dir=profile_dir, cluster_id=cluster_id)
        except ConnectionFileError as missing:
            if time.monotonic() >= deadline:
                raise
            if not told:
                print(f"Waiting up to {timeout_s:g} s: {missing}")
                told = True
        time.sleep(POLL_S)


def warn_of_loopback(found: Connection, *, stacklevel: int = 2) -> None:
    """Warn if the controller is on another host and can be reached only from there: a forwarded port may help."""
    host = found.address.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    if (host.startswith("127.") or host in ("localhost", "::1")) and not identity.is_local(found.controller):
        warnings.warn(
            f"the controller on {found.location} listens on {found.address}, which only its own host can reach, and "
            f"this is {identity.host_name()}: use sshserver=..., or start it with an address (--ip)",
            RuntimeWarning,
            stacklevel=stacklevel + 1,
        )
