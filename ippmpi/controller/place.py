"""Where a controller keeps its things: a private folder, and two connection files that lead to it."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import socket
from pathlib import Path

import msgspec

from ippmpi import connection, identity
from ippmpi.config import ControllerSettings
from ippmpi.connection import Connection, Role
from ippmpi.controller.address import public_address
from ippmpi.errors import ClusterError, ConnectionFileError
from ippmpi.net.keys import ServerKeys, keypair

log = logging.getLogger(__name__)

SOCKET = "controller"
KEY_ROLES: dict[Role, str] = {"client": "client", "engine": "agent"}
"""Which role on a link the keys of a connection file stand for."""


class Place:
    """The folder, the keys and the files of one start of one controller."""

    def __init__(self, settings: ControllerSettings) -> None:
        """Remove what a controller that was killed has left here, and make a new folder and keys.

        Raises:
            ClusterError: a controller of this profile and cluster id runs.
            ConnectionFileError: another program's file is in the way, or the folder is not safe.
        """
        self._settings = settings
        self._files = {role: connection.path(settings.folder, role, settings.cluster_id) for role in KEY_ROLES}
        for role, file in self._files.items():
            _remove_former(file, role)
        self._token = connection.new_token()
        self._key = connection.folder_key(self._token)
        self.folder = connection.node_folder(private_key(self._key))
        # held until the end: those who clean /tmp by age leave locked folders alone
        self._lock = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._pairs = {role: keypair() for role in KEY_ROLES}
        public, secret = keypair()
        known = {pair[0]: KEY_ROLES[role] for role, pair in self._pairs.items()}
        self.keys = ServerKeys(public, secret, known)
        self.socket = str(self.folder / SOCKET)

    @property
    def store_folder(self) -> Path:
        """Where records and large contents go."""
        settings = self._settings
        if not settings.store_dir:
            return self.folder
        # a name that is the same at the next start, and another one for every cluster
        name = f"{settings.cluster_id or 'default'}-{connection.folder_key(f'{settings.folder}:{settings.cluster_id}')}"
        return Path(settings.store_dir).expanduser() / name

    def publish(self, bound: str, port: int) -> str:
        """Write the connection files; return the address in them. *port* 0: there is no TCP port."""
        settings = self._settings
        address = f"tcp://{public_address(bound, settings.location)}:{port}" if port else ""
        me = identity.identify(os.getpid())
        for role, file in self._files.items():
            public, secret = self._pairs[role]
            content = Connection(
                role=role,
                cluster_id=settings.cluster_id,
                token=self._token,
                controller=me,
                location=settings.location or socket.gethostname(),
                socket=self.socket,
                address=address,
                server_public=self.keys.public,
                public=public,
                secret=secret,
                folder_key=self._key,
            )
            connection.write(content, file)
            log.info("wrote %s", file)
        return address

    def remove(self) -> None:
        """Remove the files and the folder."""
        for file in self._files.values():
            connection.remove(file, self._token)
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)


def private_key(folder_key: str) -> str:
    """Return the key of the controller's own folder, which is not that of an agent on its host."""
    return f"{folder_key}c"


def _remove_former(file: Path, role: Role) -> None:
    if not file.exists():
        return
    try:
        former = connection.load(file, role)
    except ConnectionFileError:
        if not _ours(file):
            raise
        log.warning("%s is of another version of ippmpi; it is replaced", file)
        return
    if identity.alive(former.controller):
        raise ClusterError(
            f"a controller of cluster {former.cluster_id!r} runs already (pid {former.controller.pid} on "
            f"{former.location}): stop it, or choose another cluster id"
        )
    if not identity.is_local(former.controller):
        log.warning("%s leads to a controller on %s, which may be running; it is replaced", file, former.location)
        return
    shutil.rmtree(connection.node_folder_path(private_key(former.folder_key)), ignore_errors=True)


def _ours(file: Path) -> bool:
    with contextlib.suppress(OSError, msgspec.DecodeError, AttributeError):
        return bool(msgspec.json.decode(file.read_bytes()).get("format") == connection.FORMAT)
    return False
