"""A way to a controller through ssh: one OpenSSH process that forwards one port, as long as its client lives."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import msgspec

from ippmpi.connection import Connection
from ippmpi.errors import ConnectionFileError

LOOK_S = 0.02

# The shell ends ssh when its input is closed: by us, or by the end of this process, whatever ends it.
_KEEPER = 'exec 3<&0; "$@" </dev/null & ssh=$!; (read -r _ <&3; kill $ssh) 2>/dev/null & wait $ssh'

_CAUSES = (
    (r"Permission denied", "no key of yours is accepted there; 'ssh {server} true' must work without a question"),
    (r"Host key verification failed", "its host key is not known here; log in once by hand: 'ssh {server}'"),
    (r"Could not resolve hostname", "there is no host of that name"),
    (r"Connection (refused|timed out)|No route to host", "no sshd answers there"),
    (r"forward", "the server does not forward ports (AllowTcpForwarding)"),
)


class Server(NamedTuple):
    """Where to log in: ``[user@]host[:port]``."""

    login: str
    port: str = ""

    @classmethod
    def parse(cls, text: str) -> Server:
        """Read what a user says; raise ValueError."""
        found = re.fullmatch(r"([\w.@+%-]+?|[\w.+-]+@\[[0-9a-fA-F:]+\])(?::(\d+))?", text)
        if found is None or text.startswith("-"):
            raise ValueError(f"sshserver must be [user@]host[:port], not {text!r}")
        return cls(found[1], found[2] or "")


class Tunnel:
    """A forwarded port. ``near`` is where it begins on this machine."""

    def __init__(self, server: str, key: str | Path | None, far: str, timeout_s: float) -> None:
        """Forward a free port of this machine, by way of *server*, to *far* (``host:port`` as seen from there).

        Raises:
            ConnectionError: it did not open within *timeout_s* seconds; says what ssh said.
            FileNotFoundError: there is no program ssh, or no such key.
        """
        self._server = Server.parse(server)
        program = shutil.which("ssh")
        if program is None:
            raise FileNotFoundError("no program 'ssh' in PATH: Client(sshserver=...) uses OpenSSH")
        if key is not None and not Path(key).expanduser().exists():
            raise FileNotFoundError(f"no such key: sshkey={str(key)!r}")
        port = _free_port()
        self.near = f"127.0.0.1:{port}"
        argv = [program, *_options(self._server, key), "-L", f"{self.near}:{far}", "--", self._server.login]
        self._said = _log()
        # a session of its own: Ctrl-C at the prompt is not for it
        self._process = subprocess.Popen(
            ["sh", "-c", _KEEPER, "sh", *argv],
            stdin=subprocess.PIPE,
            stdout=self._said,
            stderr=self._said,
            start_new_session=True,
        )
        try:
            self._wait(port, time.monotonic() + timeout_s, timeout_s)
        except BaseException:
            self.close()
            raise

    def _wait(self, port: int, deadline: float, timeout_s: float) -> None:
        while not _answers(port):
            ended = self._process.poll() is not None
            if ended or time.monotonic() >= deadline:
                how = "failed" if ended else f"did not open within {timeout_s:g} s"
                raise ConnectionError(f"the ssh tunnel by way of {self._server.login!r} {how}{self._why()}")
            time.sleep(LOOK_S)

    def _why(self) -> str:
        self._said.seek(0)
        said = self._said.read().decode(errors="replace").strip()
        cause = next((text for pattern, text in _CAUSES if re.search(pattern, said)), "")
        meaning = f": {cause.format(server=self._server.login)}" if cause else ""
        return f"{meaning}; ssh said: {said or '(nothing)'}"

    @property
    def open(self) -> bool:
        """Whether ssh still runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """End it. May be repeated."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, 9)
            self._process.wait()
        self._said.close()


@contextlib.contextmanager
def tunnel(
    found: Connection, server: str | None, key: str | Path | None, password: object, timeout_s: float
) -> Iterator[Connection]:
    """Open a tunnel to the controller of *found*; give the record that leads through it.

    Without *server* (only a key is given) the controller's own host is logged in to.

    Raises:
        ValueError: a *password* is given; ssh asks for none here.
        ConnectionFileError: the controller has no port to forward.
        ConnectionError, FileNotFoundError: as ``Tunnel`` does.
    """
    if password:
        raise ValueError("password= is not possible: use a key (sshkey=...), or one that ssh-agent has")
    if not found.address:
        raise ConnectionFileError(
            f"the controller on {found.location} listens only on a socket of its own host: start it with an address "
            "(--ip=127.0.0.1 is enough for a tunnel)"
        )
    opened = Tunnel(server or found.location, key, found.address.removeprefix("tcp://"), timeout_s)
    try:
        yield msgspec.structs.replace(found, address=f"tcp://{opened.near}", socket="")
    finally:
        opened.close()


def _options(server: Server, key: str | Path | None) -> list[str]:
    settings = (
        "BatchMode=yes",
        "ExitOnForwardFailure=yes",
        "ServerAliveInterval=15",
        "ControlMaster=no",
        "ControlPath=none",
    )
    words = ["-N", "-T", "-x", *(word for setting in settings for word in ("-o", setting))]
    words += ["-p", server.port] if server.port else []
    return [*words, "-i", str(Path(key).expanduser())] if key is not None else words


def _log() -> IO[bytes]:
    import tempfile

    return tempfile.TemporaryFile()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
