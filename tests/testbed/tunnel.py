"""A real ``ssh -L``: an sshd of our own on loopback, and a client that reaches it by way of any port."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from helpers import eventually
from testbed.hosts import SSHD

PRIVATE_RUN = 'mount -t tmpfs tmpfs /run && mkdir /run/sshd && exec "$@"'
"""sshd of root wants /run/sshd: it gets one that nobody else sees."""


def missing() -> str:
    """Say why there can be no tunnel here, or return an empty text."""
    if os.geteuid() != 0:
        return "cannot be had here: an sshd that certainly lets its own user in is one of root"
    return "" if SSHD else "an ssh tunnel needs sshd (apt-get install openssh-server)"


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextlib.contextmanager
def _program(argv: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as output:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    with process:
        try:
            yield process
        finally:
            process.terminate()


@contextlib.contextmanager
def sshd(folder: Path) -> Iterator[int]:
    """Run sshd with keys in *folder*; give its port."""
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    port = free_port()
    settings = folder / "sshd_config"
    settings.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n"
        "StrictModes no\nUsePAM no\nUseDNS no\nPidFile none\n"
    )
    argv = [str(SSHD), "-D", "-e", "-f", str(settings)]
    if os.geteuid() == 0:
        argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", PRIVATE_RUN, "sh", *argv]
    log = folder / "sshd.log"
    with _program(argv, log) as process:
        eventually(lambda: answers(port) or process.poll() is not None, 10, "sshd listens")
        assert process.poll() is None, log.read_text()
        yield port


@contextlib.contextmanager
def tunnel(folder: Path, port: int, target: int) -> Iterator[int]:
    """Lead to *target* on loopback with the keys of ``sshd``'s *folder*, by way of *port*; give the near end's port."""
    near = free_port()
    options = ("BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "ExitOnForwardFailure=yes")
    argv = ["ssh", "-F", "none", "-N", "-p", str(port), "-i", str(folder / "user")]
    argv += [word for option in options for word in ("-o", option)]
    argv += ["-L", f"127.0.0.1:{near}:127.0.0.1:{target}", "127.0.0.1"]
    log = folder / "ssh.log"
    with _program(argv, log) as process:
        eventually(lambda: answers(near) or process.poll() is not None, 20, "the tunnel is open")
        assert process.poll() is None, log.read_text() + (folder / "sshd.log").read_text()
        yield near
