"""Connection files: where a controller is, and the keys of one role; readable by their owner only.

One file per role and cluster, in the profile's ``security`` folder. It is written completely under
another name and then renamed, so a reader sees a whole file or none.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from pathlib import Path
from typing import Literal

import msgspec

from ippmpi import config, identity
from ippmpi.errors import ConnectionFileError
from ippmpi.identity import ProcessIdentity
from ippmpi.wire.messages import PROTOCOL_VERSION

FORMAT = "ippmpi"

Role = Literal["client", "engine"]
ROLES: tuple[Role, ...] = ("client", "engine")


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """All that one role needs to reach a controller.

    ``token`` names one start of one cluster. ``socket`` is the controller's Unix socket for peers
    on its host; ``address`` is ``tcp://ip:port``, or "" when it listens on no TCP port.
    ``location`` is the name by which others know the controller's host. Keys are CURVE keys in Z85
    text; ``public`` and ``secret`` belong to the role (the engine file's pair is the agents').
    ``folder_key`` (8 hex) names the node folders, see ``node_folder`` and ``for_world``.
    """

    format: str = FORMAT
    version: int = PROTOCOL_VERSION
    role: Role
    cluster_id: str
    token: str
    controller: ProcessIdentity
    location: str
    socket: str
    address: str
    server_public: str
    public: str
    secret: str
    folder_key: str

    def __repr__(self) -> str:
        """Show where it leads, never the secret."""
        where = self.address or self.socket
        return f"<Connection {self.role} {self.cluster_id!r} at {where}, controller pid {self.controller.pid}>"


# --- where the files are -------------------------------------------------------------------------


def security_folder(profile_dir: Path) -> Path:
    """Return the folder of the connection and cluster files of a profile."""
    return profile_dir / "security"


def path(profile_dir: Path, role: Role, cluster_id: str = "") -> Path:
    """Return where the file of *role* of a cluster is, or would be."""
    middle = f"-{check_cluster_id(cluster_id)}" if cluster_id else ""
    return security_folder(profile_dir) / f"ipcontroller{middle}-{role}.json"


def world_path(profile_dir: Path, world: str, cluster_id: str = "", *, by_hand: bool = False) -> Path:
    """Return where the file of the engines of *world* is, or would be; *by_hand*: no ``Cluster`` has started them."""
    middle = f"-{check_cluster_id(cluster_id)}" if cluster_id else ""
    return security_folder(profile_dir) / f"{_WORLD_FILES[by_hand]}{middle}-{check_cluster_id(world)}.json"


_WORLD_FILES = ("ipengine", "ipworld")


def world_paths(profile_dir: Path, *, by_hand: bool | None = None) -> list[Path]:
    """Return all files of engines of a profile, or of those that were started by hand, or were not."""
    kinds = _WORLD_FILES if by_hand is None else (_WORLD_FILES[by_hand],)
    return [file for kind in kinds for file in security_folder(profile_dir).glob(f"{kind}-*.json")]


def check_cluster_id(cluster_id: str) -> str:
    """Return *cluster_id*, or raise ValueError if it cannot be part of a file name."""
    allowed = all(c.isascii() and (c.isalnum() or c in "-_.") for c in cluster_id)
    if not allowed or len(cluster_id) > 64:
        raise ValueError(f"cluster id {cluster_id!r}: at most 64 letters, digits, '-', '_' and '.' are possible")
    return cluster_id


def find(
    role: Role,
    *,
    profile: str | None = None,
    profile_dir: str | Path | None = None,
    cluster_id: str = "",
) -> Path:
    """Return the existing file of *role*; raise ConnectionFileError saying what was looked for and what there is."""
    folder = config.profile_folder(profile, profile_dir)
    wanted = path(folder, role, cluster_id)
    if wanted.exists():
        return wanted
    raise missing(wanted, role)


def missing(wanted: Path, role: Role) -> ConnectionFileError:
    """Return the error for a file that is not there."""
    prefix, suffix = "ipcontroller", f"-{role}.json"
    have = sorted(p.name[len(prefix) : -len(suffix)].lstrip("-") for p in wanted.parent.glob(f"{prefix}*{suffix}"))
    hint = f"; there are files of cluster id {', '.join(map(repr, have))}" if have else ""
    return ConnectionFileError(f"no connection file {wanted}{hint} (is a cluster running? see 'ippmpi cluster list')")


# --- writing -------------------------------------------------------------------------------------


def new_token() -> str:
    """Return a fresh name for one start of one cluster (32 hex)."""
    return os.urandom(16).hex()


def folder_key(text: str) -> str:
    """Return the 8 hex digits by which node folders of *text* (a token, or a world of it) are named."""
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()[:8]


def for_world(connection: Connection, world: str) -> Connection:
    """Return what the engines of *world* get: the same, with node folders of their own.

    Each world has agents of its own, also where two worlds share a node.
    """
    return msgspec.structs.replace(connection, folder_key=folder_key(f"{connection.token}/{world}"))


def write(connection: Connection, file: Path) -> None:
    """Write the file for its owner only; replaces a file of that name."""
    write_private(file, msgspec.json.format(msgspec.json.encode(connection), indent=2) + b"\n")


def write_private(file: Path, data: bytes) -> None:
    """Write *data* so that a reader sees all of it or the old file, with mode 0600 in a 0700 folder."""
    import tempfile

    make_private_folder(file.parent)
    # mkstemp: O_EXCL, mode 0600, a name nobody can guess or prepare
    handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(name, file)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def remove(file: Path, token: str) -> None:
    """Remove the file if it is still of the cluster start *token*; anybody else's stays."""
    with contextlib.suppress(OSError, msgspec.DecodeError):
        if msgspec.json.decode(file.read_bytes(), type=dict).get("token") == token:
            file.unlink()


def make_private_folder(folder: Path) -> None:
    """Make *folder* (and those above it) if missing; close it for others if it is ours."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid == os.getuid() and stat.S_IMODE(found.st_mode) & 0o077:
        folder.chmod(0o700)


# --- reading -------------------------------------------------------------------------------------


def load(file: str | Path, role: Role) -> Connection:
    """Read and check a file; raise ConnectionFileError saying what is wrong with it and what to do."""
    file = Path(file).expanduser()
    return parse(_read_private(file, role), role, str(file))


def parse(data: bytes, role: Role, file: str) -> Connection:
    """Check what a file held, or would hold; *file* says where it comes from. Raises as ``load`` does."""
    found = _fields(file, data)
    if found.get("role") != role:
        raise ConnectionFileError(f"{file} is for the role {found.get('role')!r}; {role!r} is needed here")
    if found.get("version") != PROTOCOL_VERSION:
        raise ConnectionFileError(
            f"{file} was written by a controller of protocol version {found.get('version')!r}, this is version "
            f"{PROTOCOL_VERSION}: use the same ippmpi on both sides"
        )
    try:
        return msgspec.convert(found, Connection)
    except msgspec.ValidationError as error:
        raise ConnectionFileError(f"{file}: {error}; start the cluster again") from None


def _read_private(file: Path, role: Role) -> bytes:
    try:
        with file.open("rb") as f:
            mode = os.fstat(f.fileno()).st_mode
            data = f.read()
    except FileNotFoundError:
        raise missing(file, role) from None
    except OSError as error:
        raise ConnectionFileError(f"cannot read {file}: {error.strerror}") from error
    if stat.S_IMODE(mode) & 0o077:
        raise ConnectionFileError(
            f"{file} holds secret keys and is open to others (mode {stat.S_IMODE(mode):04o}): run 'chmod 600 {file}'"
        )
    return data


def _fields(file: str, data: bytes) -> dict[str, object]:
    try:
        found = msgspec.json.decode(data)
    except msgspec.DecodeError:
        raise ConnectionFileError(
            f"{file} is not JSON, or only half of a file ({len(data)} bytes): start the cluster again"
        ) from None
    if isinstance(found, dict) and found.get("format") == FORMAT:
        return found
    if isinstance(found, dict) and {"key", "registration"} <= found.keys():
        raise ConnectionFileError(
            f"{file} belongs to ipyparallel, not to ippmpi: use its own client, or another profile or cluster id here"
        )
    raise ConnectionFileError(f'{file} is not a connection file of ippmpi (no \'"format": "{FORMAT}"\' in it)')


def stale(connection: Connection) -> bool:
    """Say whether the controller is gone for certain; only its own machine can tell."""
    return identity.alive(connection.controller) is False


class _Supervised(msgspec.Struct, frozen=True):
    supervisor: ProcessIdentity | None = None


def supervised(file: Path, connection: Connection) -> bool:
    """Say whether somebody starts the controller again when it was killed; *file* is where *connection* was found."""
    cluster = file.with_name(f"cluster-{connection.cluster_id}.json")
    try:
        supervisor = msgspec.json.decode(cluster.read_bytes(), type=_Supervised).supervisor
    except (OSError, msgspec.DecodeError):
        return False
    return supervisor is not None and identity.alive(supervisor) is not False


def on_this_host(connection: Connection) -> bool:
    """Say whether the controller's Unix socket can be reached from here."""
    return identity.is_local(connection.controller) and os.path.exists(connection.socket)


# --- node folders --------------------------------------------------------------------------------


def node_folder_path(key: str) -> Path:
    """Return where the node folder of *key* is; the same text on every node (socket names are limited to 107)."""
    return Path(f"/tmp/ippmpi-{os.getuid()}-{key}")


def private_key(folder_key: str) -> str:
    """Return the key of the controller's own folder, which is not that of an agent on its host."""
    return f"{folder_key}c"


def controller_folder_path(folder_key: str) -> Path:
    """Return where the controller's own folder is."""
    return node_folder_path(private_key(folder_key))


def node_folder(key: str) -> Path:
    """Make the node folder of *key* if missing, and check that nobody else can get in.

    Raises:
        ConnectionFileError: it is not a folder, not ours, or open to others.
    """
    return check_private_folder(node_folder_path(key))


def check_private_folder(folder: Path) -> Path:
    """Make *folder* if missing, and check that nobody else can get in; return it.

    Raises:
        ConnectionFileError: it is not a folder, not ours, or open to others.
    """
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700, parents=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise ConnectionFileError(
            f"{folder} on {identity.host_name()} must be a folder of user {os.getuid()} with mode 0700, but is "
            f"{stat.filemode(found.st_mode)} of user {found.st_uid}: somebody else made it; remove it"
        )
    return folder


AGENT_LOCK = ".agent.lock"
"""After the host's prefix, the name of the file that the one agent of a node folder on this host keeps locked."""


def take_lock(path: Path) -> int:
    """Return a descriptor that holds the lock of the file at *path*, as long as any copy of it is open.

    Raises:
        BlockingIOError: somebody else has it.
    """
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            current = path.stat().st_ino == os.fstat(fd).st_ino
        except FileNotFoundError:
            current = False
        except BaseException:
            os.close(fd)
            raise
        if current:
            return fd
        os.close(fd)  # its last holder has removed it in between


def lock_held(path: Path) -> bool | None:
    """Say whether somebody holds the lock of the file at *path*. None: there is no such file."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def host_prefix(host: str | None = None) -> str:
    """Return what the names of this host's files in a node folder start with."""
    return (identity.host_name() if host is None else host)[:40]
