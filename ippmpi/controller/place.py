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
from ippmpi.net.keys import KeyPair, ServerKeys, keypair

log = logging.getLogger(__name__)

SOCKET = "controller"
SECRET = "secret.key"
KEY_ROLES: dict[Role, str] = {"client": "client", "engine": "agent"}
"""Which role on a link the keys of a connection file stand for."""


class Place:
    """The folder, the keys and the files of one start of one controller."""

    def __init__(self, settings: ControllerSettings, *, restore: bool = False) -> None:
        """Remove what a controller that was killed has left here, and make a new folder and keys.

        With *restore*, take them over instead.

        Raises:
            ClusterError: a controller of this profile and cluster id runs; or there is nothing to take over.
            ConnectionFileError: another program's file is in the way, or the folder is not safe.
        """
        self._settings = settings
        self._files = {role: connection.path(settings.folder, role, settings.cluster_id) for role in KEY_ROLES}
        self.restored = restore
        self.published = False
        self.port = 0
        if restore:
            self._take_over()
        else:
            self._begin()
        self.socket = str(self.folder / SOCKET)

    def _begin(self) -> None:
        for role, file in self._files.items():
            _remove_former(file, role, self._settings.folder)
        self._token = connection.new_token()
        self._key = connection.folder_key(self._token)
        self._enter()
        self._pairs = {role: KeyPair(*keypair()) for role in KEY_ROLES}
        public, secret = keypair()
        self._use(public, secret)
        # connection files have what peers need; this is the rest
        connection.write_private(self.folder / SECRET, secret.encode())

    def _take_over(self) -> None:
        found = {role: connection.load(file, role) for role, file in self._files.items()}
        one = found["client"]
        if identity.alive(one.controller):
            raise ClusterError(
                f"the controller of cluster {one.cluster_id!r} runs (pid {one.controller.pid}); "
                "only one that has ended without a stop can be restored"
            )
        secret = connection.controller_folder_path(one.folder_key) / SECRET
        try:
            key = secret.read_text()
        except OSError as error:
            raise ClusterError(
                f"nothing to restore: no {secret} ({error.strerror}); it must be the same host, before anything was "
                "cleaned up. Start without --restore"
            ) from None
        self._token, self._key = one.token, one.folder_key
        self._enter()
        self._pairs = {role: KeyPair(c.public, c.secret) for role, c in found.items()}
        self._use(one.server_public, key)
        self.port = int(one.address.rpartition(":")[2] or 0)

    def _enter(self) -> None:
        self.folder = connection.node_folder(connection.private_key(self._key))
        # held until the end: those who clean /tmp by age leave locked folders alone
        self._lock = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def _use(self, public: str, secret: str) -> None:
        known = {pair.public: KEY_ROLES[role] for role, pair in self._pairs.items()}
        self.keys = ServerKeys(public, secret, known)

    @property
    def store_folder(self) -> Path:
        """Where records and large contents go."""
        settings = self._settings
        if not settings.store_dir:
            return self.folder
        # a name that is the same at the next start, and another one for every cluster
        name = f"{settings.cluster_id or 'default'}-{connection.folder_key(f'{settings.folder}:{settings.cluster_id}')}"
        return Path(settings.store_dir).expanduser() / name

    @property
    def cache_folder(self) -> Path:
        """Where cached results go; it stays when the controller ends."""
        chosen = self._settings.cache_dir or self._settings.store_dir
        if chosen:
            return Path(chosen).expanduser() / "ippmpi-cache"
        return Path(f"/var/tmp/ippmpi-{os.getuid()}-cache")

    def publish(self, bound: str, port: int) -> str:
        """Write the connection files; return the address in them. *port* 0: there is no TCP port."""
        settings = self._settings
        address = f"tcp://{public_address(bound, settings.location)}:{port}" if port else ""
        me = identity.identify(os.getpid())
        for role, file in self._files.items():
            pair = self._pairs[role]
            content = Connection(
                role=role,
                cluster_id=settings.cluster_id,
                token=self._token,
                controller=me,
                location=settings.location or socket.gethostname(),
                socket=self.socket,
                address=address,
                server_public=self.keys.public,
                public=pair.public,
                secret=pair.secret,
                folder_key=self._key,
            )
            connection.write(content, file)
            log.info("wrote %s", file)
        self.published = True
        return address

    def remove(self) -> None:
        """Remove the files and the folder."""
        for file in self._files.values():
            connection.remove(file, self._token)
        for file in connection.world_paths(self._settings.folder, by_hand=True):
            connection.remove(file, self._token)
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)


def _remove_former(file: Path, role: Role, profile_dir: Path) -> None:
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
    for world in connection.world_paths(profile_dir, by_hand=True):
        connection.remove(world, former.token)
    shutil.rmtree(connection.controller_folder_path(former.folder_key), ignore_errors=True)


def _ours(file: Path) -> bool:
    with contextlib.suppress(OSError, msgspec.DecodeError, AttributeError):
        return bool(msgspec.json.decode(file.read_bytes()).get("format") == connection.FORMAT)
    return False
