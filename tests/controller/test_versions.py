"""Clients and agents of another version or another environment: refused within a second, both sides named."""

from __future__ import annotations

import platform
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ippmpi as ipp
from controller.running import Caller, Running
from helpers import eventually
from ippmpi import connection
from ippmpi.client.transport import dial_for
from ippmpi.net import link
from ippmpi.net.link import LinkState

HERE = f"the controller on {socket.gethostname()}"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("versions"))
    assert running.ready, running.text
    yield running
    running.end()


def other_protocol(patch: pytest.MonkeyPatch) -> str:
    patch.setattr(link, "PROTOCOL_VERSION", 99)
    return f"{HERE} speaks protocol version 1, {{}} speaks 99"


def other_python(patch: pytest.MonkeyPatch) -> str:
    patch.setattr(link, "python", lambda: "3.2.1")
    return f"{HERE} runs Python {platform.python_version()}, {{}} runs 3.2.1"


def other_cloudpickle(patch: pytest.MonkeyPatch) -> str:
    patch.setattr("ippmpi.net.compatible.cloudpickle_version", lambda: "99.1")
    return "{} has 99.1: functions are pickled by one side"


@pytest.mark.parametrize("other", [other_protocol, other_python, other_cloudpickle])
def test_a_client_that_does_not_fit_is_refused(
    running: Running, monkeypatch: pytest.MonkeyPatch, other: Callable[[pytest.MonkeyPatch], str]
) -> None:
    text = other(monkeypatch).format("client:")[:-1].split("client:")
    begin = time.monotonic()
    with pytest.raises(ipp.errors.Refused) as refused:
        ipp.Client(str(connection.path(running.profile_dir, "client", "t")), timeout=10)
    assert time.monotonic() - begin < 1
    assert all(part in str(refused.value) for part in text), refused.value


@pytest.mark.parametrize("tcp", [False, True])
@pytest.mark.parametrize("other", [other_protocol, other_python])
def test_an_agent_that_does_not_fit_is_refused(
    running: Running, monkeypatch: pytest.MonkeyPatch, other: Callable[[pytest.MonkeyPatch], str], tcp: bool
) -> None:
    text = other(monkeypatch).format("agent:w@here")
    at = running.connection("engine")
    begin = time.monotonic()
    agent = Caller(at, "agent", "agent:w@here", endpoint=at.address if tcp else "")
    eventually(lambda: agent.states, what="a verdict")
    agent.close()
    assert time.monotonic() - begin < 1
    assert agent.states[0][0] is LinkState.REFUSED
    assert text in agent.states[0][1]


def test_a_file_of_another_version_is_refused_before_anything_is_dialled(running: Running, tmp_path: Path) -> None:
    file = connection.path(running.profile_dir, "client", "t")
    other = tmp_path / "other.json"
    other.write_text(file.read_text().replace('"version": 1', '"version": 99'))
    other.chmod(0o600)
    with pytest.raises(ipp.errors.ConnectionFileError, match=r"version 99, this is version 1"):
        ipp.Client(str(other))


def test_what_a_client_says_about_its_pickles_is_true(running: Running) -> None:
    import cloudpickle

    assert dial_for(running.connection("client"), "ab").about["cloudpickle"] == cloudpickle.__version__
