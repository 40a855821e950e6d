"""What a user does on the login node, as a program: drives ranks on c1 and c2, prints what was seen as JSON.

``drive.py normal`` works with a cluster and stops it; ``drive.py kill`` loses a rank to SIGKILL;
``drive.py crash FOLDER`` loses a host (it says in the folder when it is ready, and is told when it is done).
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import ippmpi as ipp

NODES = ["c1:2", "c2:2"]


def identity() -> tuple[int, int, str, int]:
    """Say who this rank is: rank, size, host, process."""
    import os
    import socket

    from mpi4py import MPI

    return MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size, socket.gethostname(), os.getpid()


def sum_of_ranks() -> float:
    """Add up the ranks' numbers with a buffer collective that crosses the hosts."""
    import numpy as np
    from mpi4py import MPI

    total = np.zeros(100_000)
    MPI.COMM_WORLD.Allreduce(np.full(100_000, float(MPI.COMM_WORLD.rank)), total)
    return float(total.sum() / total.size)


def greet() -> None:
    """Print on both streams."""
    import sys

    from mpi4py import MPI

    print("out of rank", MPI.COMM_WORLD.rank)
    print("err of rank", MPI.COMM_WORLD.rank, file=sys.stderr)


# --- sockets of the controller ---


def controller_pid() -> int:
    """Find the controller among this host's processes."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"ippmpi.controller" in words:
            return int(path.name)
    raise LookupError("no process with 'ippmpi.controller' on its command line")


def socket_inodes(pid: int) -> set[str]:
    """Return the inodes of all sockets that a process holds."""
    links = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(os.readlink(descriptor))
        except FileNotFoundError:  # closed in the meantime
            continue
    return {link[8:-1] for link in links if link.startswith("socket:[")}


def end_point(text: str) -> tuple[str, int]:
    """Translate ``0100007F:1F90`` of /proc/net/tcp."""
    address, port = text.split(":")
    return socket.inet_ntoa(bytes.fromhex(address)[::-1]), int(port, 16)


def sockets(pid: int) -> dict[str, list[Any]]:
    """Return all sockets of a process: TCP peers, TCP listeners, connected and listening Unix sockets, others."""
    inodes = socket_inodes(pid)
    seen: dict[str, list[Any]] = {"tcp": [], "tcp_listening": [], "unix": [], "unix_listening": []}
    for line in Path(f"/proc/{pid}/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        words = line.split()
        if words[9] in inodes:
            inodes.discard(words[9])
            listening = words[3] == "0A"
            seen["tcp_listening" if listening else "tcp"].append(end_point(words[1 if listening else 2]))
    for line in Path(f"/proc/{pid}/net/unix").read_text(encoding="utf-8").splitlines()[1:]:
        words = line.split()
        if words[6] in inodes:
            inodes.discard(words[6])
            seen["unix_listening" if int(words[3], 16) & 0x10000 else "unix"].append(" ".join(words[7:]))
    seen["other"] = sorted(inodes)
    return seen


def mechanism(address: str, port: int) -> str:
    """Ask a ZeroMQ listener, byte by byte, which security mechanism it speaks (ZMTP 3 greeting)."""
    with socket.create_connection((address, port), timeout=5) as connection:
        connection.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + bytes(32))
        greeting = b""
        while len(greeting) < 64:
            more = connection.recv(64 - len(greeting))
            if not more:
                break
            greeting += more
    return greeting[12:32].rstrip(b"\0").decode("ascii")


# --- the two stories ---


def normal() -> dict[str, Any]:
    """Work on all ranks; return what was seen."""
    facts: dict[str, Any] = {}
    started = time.perf_counter()
    with ipp.Cluster(n=4, engines="mpi", hosts=NODES) as rc:
        facts["start_s"] = time.perf_counter() - started
        ranks = rc[:]
        facts["ids"] = rc.ids
        facts["identities"] = ranks.apply_sync(identity)
        facts["sums"] = ranks.apply_sync(sum_of_ranks)
        array = np.random.default_rng(seed=2).integers(0, 256, 20_000_000, dtype=np.uint8)
        ranks.push({"array": array}, block=True)
        facts["same_arrays"] = [bool(np.array_equal(back, array)) for back in ranks.pull("array", block=True)]
        greeting = ranks.apply_async(greet)
        greeting.get(timeout=20)
        greeting.wait_for_output(timeout=10)
        facts["stdout"], facts["stderr"] = greeting.stdout, greeting.stderr
        facts["sockets"] = sockets(controller_pid())
        address, port = facts["sockets"]["tcp_listening"][0]
        facts["mechanism"] = mechanism(socket.gethostname() if address == "0.0.0.0" else address, port)
    return facts


def kill() -> dict[str, Any]:
    """Kill rank 3 in the middle of its work; return how and when we heard of it."""
    facts: dict[str, Any] = {}
    with ipp.Cluster(n=4, engines="mpi", hosts=NODES) as rc:
        pid = rc[3].apply_sync(os.getpid)
        work = rc[3].apply_async(time.sleep, 120)
        subprocess.run(["ssh", "c2", "kill", "-9", str(pid)], check=True, timeout=20)
        killed = time.perf_counter()
        try:
            work.get(timeout=20)
        except Exception as error:
            facts["error"] = f"{type(error).__name__}: {error}"
        facts["seconds"] = time.perf_counter() - killed
        facts["pid"] = pid
        facts["names_signal"] = bool(re.search(r"SIGKILL|signal 9", facts.get("error", "")))
    return facts


def crash() -> dict[str, Any]:
    """Say when ranks of both hosts work, wait until c2 is lost; return how and when we heard of it."""
    facts: dict[str, Any] = {}
    with ipp.Cluster(n=2, engines="mpi", hosts=["c2:2"]) as rc:
        rc.cluster.start_engines_sync(2, engines="mpi", hosts=["c1:2"])
        rc.wait_for_engines(4, timeout=30)
        facts["hosts"] = rc[:].apply_sync(socket.gethostname)
        lost, safe = rc[1].apply_async(time.sleep, 120), rc[2].apply_async(time.sleep, 12)
        (Path(sys.argv[2]) / "ready").touch()
        while not (Path(sys.argv[2]) / "crashed").exists():
            time.sleep(0.01)
        crashed = time.perf_counter()
        try:
            lost.get(timeout=40)
        except Exception as error:
            facts["error"] = f"{type(error).__name__}: {error}"
        facts["seconds"] = time.perf_counter() - crashed
        facts["safe"] = safe.get(timeout=30) is None
        facts["ids"] = rc.ids
    return facts


if __name__ == "__main__":
    print("\n" + json.dumps({"normal": normal, "kill": kill, "crash": crash}[sys.argv[1]]()), flush=True)
