"""Another user on the same host, while a cluster works: what they can reach, read, and learn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import ippmpi as ipp
from clusters import running
from helpers import PROC, eventually
from ippmpi import connection
from ippmpi.connection import Connection

NOBODY = 65534

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="cannot be had here: only root can be another user")

INTRUDER = """
sockets, folders, files, pids, address = json.loads(sys.stdin.read())
done, seen = [], {}


def attempt(what, call):
    try:
        call()
    except OSError:
        return
    done.append(what)


def connect(path):
    socket.socket(socket.AF_UNIX).connect(path)


def read(path, size=100):
    with open(path, "rb") as f:
        if not f.read(size):
            raise OSError("nothing in it")


for path in sockets:
    attempt(f"connect to {path}", lambda: connect(path))
for path in folders:
    attempt(f"list {path}", lambda: os.listdir(path))
    attempt(f"write into {path}", lambda: open(os.path.join(path, "intruder"), "w"))
for path in files:
    attempt(f"read {path}", lambda: read(path))
    attempt(f"remove {path}", lambda: os.unlink(path))
for pid in pids:
    attempt(f"signal {pid}", lambda: os.kill(pid, 0))
    attempt(f"list descriptors of {pid}", lambda: os.listdir(f"/proc/{pid}/fd"))
    for fd in range(64):
        attempt(f"open descriptor {fd} of {pid}", lambda: os.open(f"/proc/{pid}/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK))
    for name in ("environ", "mem", "maps", "auxv", "stack"):
        attempt(f"read {name} of {pid}", lambda: read(f"/proc/{pid}/{name}"))
    seen[pid] = open(f"/proc/{pid}/cmdline", "rb").read().replace(b"\\0", b" ").decode(errors="replace")
if address:
    host, port = address
    null = b"\\xff" + bytes(8) + b"\\x7f\\3\\0NULL" + bytes(48)  # ZeroMQ's greeting without encryption
    for greeting in (b"", null, b"GET / HTTP/1.1\\r\\n\\r\\n", os.urandom(500)):
        with socket.create_connection((host, port), 5) as sock:
            sock.sendall(greeting)
print(json.dumps([done, seen, open("/proc/net/unix").read()]))
"""


def as_nobody(code: str, given: str = "") -> str:
    """Run *code* as another user; return what it printed. (Python itself may be in a folder that is closed to them.)"""
    ids = f"{NOBODY}, {NOBODY}, {NOBODY}"
    become = f"import encodings.idna, json, os, socket, sys; os.setgroups([]); os.setresgid({ids}); os.setresuid({ids})"
    process = subprocess.run(
        [sys.executable, "-I", "-c", f"{become}\n{code}"],
        input=given,
        cwd="/",
        env={},
        text=True,
        capture_output=True,
        timeout=60,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, ipp.Client]]:
    folder = tmp_path_factory.mktemp("profile")
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)  # as a careless user would; what is ours must be closed by itself
    with running(folder, 2, "local") as (_, client):
        yield folder, client


def families(folder: Path) -> list[int]:
    """Return the processes of the cluster whose profile folder this is."""
    found = []
    for process in PROC.glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if b"ippmpi" in command and os.fsencode(folder) in command:
            found.append(int(process.name))
    return found


def test_another_user_gets_nowhere_and_learns_nothing(cluster: tuple[Path, ipp.Client]) -> None:
    folder, client = cluster
    at: Connection = connection.load(connection.path(folder, "client"), "client")
    engines: Connection = connection.load(connection.path(folder, "engine"), "engine")
    view = client[:]
    view.push({"secret": np.arange(400_000.0)}, block=True)  # by memory files
    pids = eventually(lambda: len(found := families(folder)) >= 4 and found, what="controller, agent, two engines")
    worlds = [connection.load(file, "engine").folder_key for file in (folder / "security").glob("ipengine-*.json")]
    nodes = [connection.node_folder_path(key) for key in (connection.private_key(at.folder_key), *worlds)]
    sockets = [str(path) for node in nodes for path in node.iterdir() if path.is_socket()]
    files = [str(path) for top in (folder, *nodes) for path in top.rglob("*") if path.is_file() or path.is_socket()]
    folders = [str(path) for top in (folder / "security", *nodes) for path in (top, *top.rglob("*")) if path.is_dir()]
    host, _, port = at.address.removeprefix("tcp://").rpartition(":")
    address = (host, int(port)) if at.address else None
    assert at.socket in sockets
    assert len(sockets) >= 2

    done, seen, unix = json.loads(as_nobody(INTRUDER, json.dumps([sockets, folders, files, pids, address])))

    assert done == []
    said = json.dumps(seen)
    for secret in (at.secret, at.token, engines.secret, engines.token):
        assert secret not in said
    assert "@ippmpi" not in unix, "an abstract socket has no owner"
    for pid in pids:
        environment = (PROC / str(pid) / "environ").read_bytes()
        assert not [s for s in (at.secret, at.token, engines.secret) if s.encode() in environment]
    assert view.apply_sync(lambda: 6 * 7) == [42, 42]
    assert [array.sum() for array in view.pull("secret", block=True)] == [np.arange(400_000.0).sum()] * 2


def test_a_node_folder_that_another_user_made_first_is_not_used() -> None:
    key = f"{os.getpid():08x}"[-8:]
    folder = connection.node_folder_path(key)
    as_nobody(f"os.mkdir({str(folder)!r}, 0o700)")
    try:
        with pytest.raises(ipp.errors.ConnectionFileError, match="somebody else made it"):
            connection.node_folder(key)
    finally:
        folder.rmdir()
