"""``Client(sshserver=...)`` with a real sshd on loopback and the real ssh."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from helpers import alive, eventually
from ippmpi import connection
from ippmpi.client.client import Client
from ippmpi.client.tunnel import Server
from ippmpi.cluster import Cluster
from testbed.tunnel import free_port, missing, sshd


class Place(NamedTuple):
    """An sshd that lets ``key`` in, and a cluster that is reached by it."""

    folder: Path
    port: int
    file: str

    @property
    def server(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def key(self) -> str:
        return str(self.folder / "user")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    if reason := missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("ssh")
    with sshd(folder) as port, Cluster(n=1, engines="local", profile_dir=folder / "p", cluster_id="") as rc:
        assert rc.ids == [0]
        yield Place(folder, port, str(folder / "p/security/ipcontroller-client.json"))


@pytest.fixture(autouse=True)
def known_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the real ssh take any host key, as if it was known, and no configuration of who runs this."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "ssh"
    options = "-F none -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
    program.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} {options} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")


def tunnels(port: int) -> list[int]:
    """Return the ssh processes that go to *port*."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if words[0].endswith(b"ssh") and b"-p" in words and str(port).encode() in words:
                found.append(int(process.name))
    return found


def test_a_client_goes_through_ssh_and_takes_its_tunnel_along(place: Place) -> None:
    with Client(place.file, sshserver=place.server, sshkey=place.key) as rc:
        assert rc[:].apply_sync(len, "abc") == [3]
        assert rc.requests.transport.peer_pid == 0, "it is not the socket of this host"
        large = bytes(5_000_000)
        assert rc[0].apply_sync(len, large) == len(large)
        (ssh,) = tunnels(place.port)
    assert not alive(ssh)
    assert rc.requests.transport.folder == ""


def test_without_a_server_the_host_of_the_controller_is_logged_in_to(place: Place) -> None:
    location = connection.load(place.file, "client").location
    with pytest.raises(ConnectionError, match=f"the ssh tunnel by way of '{re.escape(location)}' "):
        Client(place.file, sshkey=place.key, paramiko=False, timeout=20)


def test_a_tunnel_ends_with_its_program_however_that_ends(place: Place) -> None:
    code = (
        "import sys, time\nfrom ippmpi.client.client import Client\n"
        "rc = Client(sys.argv[1], sshserver=sys.argv[2], sshkey=sys.argv[3])\n"
        "print('there', flush=True)\ntime.sleep(60)"
    )
    argv = [sys.executable, "-P", "-c", code, place.file, place.server, place.key]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "there\n"
        (ssh,) = tunnels(place.port)
        program.send_signal(signal.SIGKILL)
    eventually(lambda: not alive(ssh), what="ssh ends with it")


def test_ctrl_c_at_the_prompt_does_not_reach_ssh(place: Place) -> None:
    with Client(place.file, sshserver=place.server, sshkey=place.key) as rc:
        (ssh,) = tunnels(place.port)
        assert os.getpgid(ssh) != os.getpgid(0)
        assert rc.ids == [0]


@pytest.mark.parametrize(
    ("server", "key", "text"),
    [
        ("{server}", None, "no key of yours is accepted there; 'ssh 127.0.0.1 true' must work without a question"),
        ("127.0.0.1:{nobody}", "{key}", "no sshd answers there; ssh said: .*Connection refused"),
        ("no.such.host.invalid", "{key}", "there is no host of that name"),
    ],
)
def test_why_a_tunnel_does_not_open_is_said(place: Place, server: str, key: str | None, text: str) -> None:
    fields = {"server": place.server, "nobody": free_port(), "key": place.key}
    with pytest.raises(ConnectionError, match=text):
        Client(place.file, sshserver=server.format(**fields), sshkey=None if key is None else key.format(**fields))
    assert tunnels(place.port) == []


def test_what_cannot_be_is_refused_before_anything_starts(place: Place) -> None:
    with pytest.raises(ValueError, match=r"password= is not possible: use a key"):
        Client(place.file, sshserver=place.server, password="secret")
    with pytest.raises(FileNotFoundError, match="no such key: sshkey='/no/key'"):
        Client(place.file, sshserver=place.server, sshkey="/no/key")


def test_a_port_that_nobody_listens_on_is_a_timeout_that_names_the_controller(place: Place) -> None:
    fields = json.loads(Path(place.file).read_text())
    fields["address"] = f"tcp://127.0.0.1:{free_port()}"
    with pytest.raises(TimeoutError, match=r"<Connection client '' at tcp://.* did not answer within 3 s"):
        Client(fields, sshserver=place.server, sshkey=place.key, timeout=3)
    assert tunnels(place.port) == []


@pytest.mark.parametrize(
    ("text", "login", "port"),
    [("host", "host", ""), ("me@host:2222", "me@host", "2222"), ("me@[::1]:22", "me@[::1]", "22")],
)
def test_a_server_is_user_host_and_port(text: str, login: str, port: str) -> None:
    assert Server.parse(text) == Server(login, port)


@pytest.mark.parametrize("text", ["-oProxyCommand=x", "a b", "host:port", ""])
def test_what_is_no_server_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"sshserver must be \[user@\]host\[:port\]"):
        Server.parse(text)
