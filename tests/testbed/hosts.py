"""Emulate a login node and compute nodes on one machine: ``login``, ``c1``, ``c2``, ...

Each host is a process (its pid 1) in its own network, hostname, process, IPC and mount namespaces, with
its own ``/tmp``, ``/run``, ``/dev/shm`` and sshd; key login works between all of them. What users of
a cluster share (home, checkout, Python) is shared here too. The network is 10.77.0.0/24, on a bridge
inside ``login``; nothing outside the namespaces is touched but one folder, and killing the pid-1
processes removes the rest. Needs root, iproute2, util-linux (unshare, nsenter) and openssh-server.

By hand: ``python tests/testbed/hosts.py up``, ``... on c1 hostname``, ``... down``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO

CHECKOUT = Path(__file__).resolve().parents[2]

INSIDE = Path(__file__).resolve().parent / "inside.py"

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")

START_LIMIT_S = 15.0


def default_folder() -> Path:
    """Return the folder of this checkout's hosts: its name is the unique mark of all they consist of."""
    digest = hashlib.sha256(str(CHECKOUT).encode()).hexdigest()[:8]
    return Path("/tmp") / f"ippmpi-hosts-{digest}"


def missing() -> str:
    """Return why hosts cannot be had here, or an empty text."""
    if sys.platform != "linux":
        return "emulated hosts need Linux"
    if os.geteuid() != 0:
        return "cannot be had here: only root can make hosts"
    tools = [tool for tool in ("ip", "unshare", "nsenter", "ssh", "ssh-keygen") if shutil.which(tool) is None]
    if SSHD is None:
        tools.append("sshd")
    if tools:
        return f"emulated hosts need {', '.join(tools)} (apt-get install iproute2 openssh-server openssh-client)"
    probe = subprocess.run(["unshare", "--net", "--pid", "--fork", "--mount", "true"], capture_output=True, text=True)
    return f"no namespaces here: {probe.stderr.strip()}" if probe.returncode != 0 else ""


class Hosts:
    """``login`` and ``nodes`` compute nodes, up from ``up()`` to ``down()``; also a context manager."""

    def __init__(self, nodes: int = 2, folder: Path | None = None) -> None:
        """Choose how many nodes; starts nothing."""
        self.folder = folder or default_folder()
        self.names = ["login", *(f"c{number}" for number in range(1, nodes + 1))]

    def __enter__(self) -> Hosts:
        self.up()
        return self

    def __exit__(self, *exception: object) -> None:
        self.down()

    @property
    def shared(self) -> Path:
        """Folder that all hosts (and we) see at the same place, like a home directory."""
        return self.folder / "shared"

    # --- up and down ---

    def up(self) -> None:
        """Start what is not running. Raises RuntimeError with a host's log if it does not come up."""
        if all(self.pid(name) for name in self.names):
            return
        self.down()
        self._write_files()
        for name in self.names:
            self._start(name)
        self._connect()
        for name in self.names:
            self._wait(name, partial(self._listens, name), "sshd does not listen")

    def down(self) -> None:
        """Kill every host, remove the folder. Does nothing if there are none."""
        for file in self.folder.glob("*.pid"):
            self.crash(file.stem)
        shutil.rmtree(self.folder, ignore_errors=True)

    def crash(self, name: str) -> None:
        """Cut a host's power: SIGKILL to its pid 1 ends all its processes."""
        pid = self.pid(name)
        if pid:
            os.kill(pid, signal.SIGKILL)
            self._wait(name, lambda: not self.pid(name), "does not die")
        (self.folder / f"{name}.pid").unlink(missing_ok=True)

    def unplug(self, name: str) -> None:
        """Pull a compute node's cable: as in a power cut, not even the end of a connection arrives."""
        self._ip("login", f"link set to-{name} down")

    def pid(self, name: str) -> int:
        """Return the process id (as seen here) of a host's pid 1, 0 if the host is down."""
        try:
            pid = int((self.folder / f"{name}.pid").read_text(encoding="ascii"))
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")  # empty for a zombie
        except (OSError, ValueError):
            return 0
        return pid if {b"init", name.encode(), os.fsencode(self.folder)} <= set(command) else 0

    def address(self, name: str) -> str:
        """Return a host's address in the cluster's network."""
        index = self.names.index(name)
        return f"10.77.0.{10 + index}" if index else "10.77.0.1"

    # --- use ---

    def command(self, name: str, argv: Sequence[str]) -> list[str]:
        """Return the command line that runs *argv* on a host, in the shared folder."""
        pid = self.pid(name)
        if not pid:
            raise RuntimeError(f"host {name} is down")
        return ["nsenter", "-t", str(pid), "-n", "-u", "-p", "-i", "-m", f"--wd={self.shared}", "--", *argv]

    def popen(
        self,
        name: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        output: IO[str] | int | None = None,
    ) -> subprocess.Popen[str]:
        """Start a program on a host; its stderr goes where its stdout goes."""
        return subprocess.Popen(
            self.command(name, argv),
            env=env,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if output is not None else None,
        )

    def run(self, name: str, argv: Sequence[str], timeout_s: float = 30.0) -> str:
        """Run a program on a host, return what it prints. Raises RuntimeError with all its output if it fails."""
        done = subprocess.run(
            self.command(name, argv), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s
        )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(argv)} on {name}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def processes(self, name: str) -> dict[int, str]:
        """Return a host's own processes but for pid 1, sshd and the question: pid -> command line."""
        listed = self.run(name, [sys.executable, str(INSIDE), "processes"])
        return {int(pid): line for pid, line in json.loads(listed).items()}

    # --- how it is made ---

    def _write_files(self) -> None:
        """Write keys and settings that all hosts use."""
        ssh = self.folder / "ssh"
        for folder in (self.folder, ssh, self.shared):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for key in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(ssh / key)], check=True)
        public = (ssh / "host.pub").read_text(encoding="ascii").split()[:2]
        known = [f"{name},{self.address(name)} {' '.join(public)}\n" for name in self.names]
        addresses = ["127.0.0.1 localhost\n", *(f"{self.address(name)} {name}\n" for name in self.names)]
        files = {
            "known_hosts": "".join(known),
            "hosts": "".join(addresses),
            "ssh_config": f"IdentityFile {ssh}/user\nUserKnownHostsFile {ssh}/known_hosts\nBatchMode yes\n",
            "sshd_config": f"Port 22\nHostKey {ssh}/host\nAuthorizedKeysFile {ssh}/user.pub\nStrictModes no\n"
            "PermitRootLogin prohibit-password\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            "UsePAM no\nUseDNS no\nMaxStartups 100\nPrintMotd no\nPrintLastLog no\nPidFile /run/sshd.pid\n",
        }
        for name, text in files.items():
            (ssh / name).write_text(text, encoding="ascii")

    def _start(self, name: str) -> None:
        """Start a host's pid 1 and note its process id."""
        init = [sys.executable, str(INSIDE), "init", name, str(self.folder), str(SSHD)]
        spaces = ["--net", "--uts", "--pid", "--ipc", "--mount", "--propagation", "private"]
        with (self.folder / f"{name}.log").open("w", encoding="utf-8") as log:
            parent = subprocess.Popen(
                ["setsid", "--fork", "unshare", *spaces, "--fork", "--", *init],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        parent.wait()  # setsid has forked: the host lives on when we end, until down()
        wanted = b"\0".join(map(os.fsencode, init))

        def found() -> bool:
            pids = (path for path in Path("/proc").glob("[0-9]*") if _is_first_process(path, wanted))
            for path in pids:
                (self.folder / f"{name}.pid").write_text(path.name, encoding="ascii")
            return bool(self.pid(name)) and (self.folder / f"{name}.ready").exists()

        self._wait(name, found, "does not start")

    def _connect(self) -> None:
        """Make the bridge in ``login`` and a cable to each node."""
        login = self.pid("login")
        self._ip("login", f"link add br0 type bridge\naddr add {self.address('login')}/24 dev br0\nlink set br0 up")
        for name in self.names[1:]:
            cable = ["link", "add", "eth0", "netns", str(self.pid(name)), "type", "veth"]
            subprocess.run(["ip", *cable, "peer", "name", f"to-{name}", "netns", str(login)], check=True)
            self._ip("login", f"link set to-{name} master br0\nlink set to-{name} up")
            self._ip(name, f"addr add {self.address(name)}/24 dev eth0\nlink set eth0 up")
        for name in self.names:
            self._ip(name, "link set lo up")

    def _ip(self, name: str, batch: str) -> None:
        """Run lines of ``ip`` commands in a host's network namespace."""
        command = ["nsenter", "-t", str(self.pid(name)), "-n", "ip", "-batch", "-"]
        subprocess.run(command, input=batch + "\n", text=True, check=True)

    def _listens(self, name: str) -> bool:
        probe = [*self.command(name, ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/22"])]
        return subprocess.run(probe, capture_output=True).returncode == 0

    def _wait(self, name: str, condition: Callable[[], object], complaint: str) -> None:
        """Wait until *condition*() holds; RuntimeError with the host's log at the deadline."""
        deadline = time.monotonic() + START_LIMIT_S
        while not condition():
            if time.monotonic() > deadline:
                log = (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
                raise RuntimeError(f"host {name}: {complaint} within {START_LIMIT_S:.0f} s\n{log}")
            time.sleep(0.02)


def _is_first_process(path: Path, command: bytes) -> bool:
    """Tell whether a process runs exactly *command* as pid 1 of its namespace."""
    try:
        if (path / "cmdline").read_bytes().rstrip(b"\0") != command:
            return False
        status = (path / "status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return any(line.startswith("NSpid:") and line.split()[-1] == "1" for line in status.splitlines())


def main() -> int:
    """Read the command line and obey."""
    parser = argparse.ArgumentParser(description="Emulated hosts: login, c1, c2, ...")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("up").add_argument("--nodes", type=int, default=2)
    verbs.add_parser("down")
    on = verbs.add_parser("on")
    on.add_argument("host")
    on.add_argument("argv", nargs=argparse.REMAINDER)
    chosen = parser.parse_args()
    if chosen.verb == "on":
        return subprocess.run(Hosts().command(chosen.host, chosen.argv)).returncode
    if chosen.verb == "down":
        Hosts().down()
    else:
        hosts = Hosts(chosen.nodes)
        hosts.up()
        print(f"up: {', '.join(hosts.names)}; shared folder {hosts.shared}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
