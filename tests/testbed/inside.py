"""What runs inside an emulated host: its pid 1, and the list of its processes. Called by ``hosts.py``."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


def mount(*arguments: str) -> None:
    """Call mount(8)."""
    subprocess.run(["mount", *arguments], check=True)


def private_tmp(name: str, folder: Path) -> None:
    """Give this host its own ``/tmp``; what must be shared and lies below ``/tmp`` stays visible."""
    own = folder / f"{name}-tmp"
    own.mkdir()
    mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", str(own))
    shared = {folder, CHECKOUT, Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()}
    for path in sorted(path for path in shared if Path("/tmp") in path.parents):
        seen = own / path.relative_to("/tmp")
        seen.mkdir(parents=True, exist_ok=True)
        mount("--bind", str(path), str(seen))
    mount("--rbind", str(own), "/tmp")


def init(name: str, folder: Path, sshd: str) -> None:
    """Be pid 1 of a host: make its surroundings, start sshd, reap for ever."""
    socket.sethostname(name)
    os.chdir("/")
    mount("-t", "proc", "proc", "/proc")
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", "/dev/shm")
    mount("--bind", str(folder / "ssh" / "hosts"), "/etc/hosts")
    mount("--bind", str(folder / "ssh" / "ssh_config"), "/etc/ssh/ssh_config")
    private_tmp(name, folder)
    Path("/run/sshd").mkdir()
    (folder / f"{name}.ready").touch()
    subprocess.Popen([sshd, "-D", "-e", "-f", str(folder / "ssh" / "sshd_config")])
    while True:
        os.wait()  # sshd is a child that stays, so there always is something to wait for


def own_processes() -> dict[int, str]:
    """Return this host's processes but for pid 1, sshd and ourselves."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if command and int(path.name) not in (1, os.getpid()) and Path(command.split()[0].strip(":")).name != "sshd":
            found[int(path.name)] = command
    return found


if __name__ == "__main__":
    if sys.argv[1] == "init":
        init(sys.argv[2], Path(sys.argv[3]), sys.argv[4])
    print(json.dumps(own_processes()))
