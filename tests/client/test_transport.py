from __future__ import annotations

import os
import warnings
from pathlib import Path

import msgspec
import pytest

from ippmpi import identity
from ippmpi.client.connect import find_connection, warn_of_loopback
from ippmpi.client.transport import dial_for
from ippmpi.connection import Connection
from ippmpi.errors import ConnectionFileError


@pytest.fixture
def record(tmp_path: Path) -> Connection:
    socket = tmp_path / "controller"
    socket.touch()
    return Connection(
        role="client",
        cluster_id="mine",
        token="t" * 32,
        controller=identity.identify(os.getpid()),
        location="login",
        socket=str(socket),
        address="tcp://10.0.0.1:5555",
        server_public="s" * 40,
        public="p" * 40,
        secret="x" * 40,
        folder_key="12345678",
    )


def test_on_the_controllers_host_its_socket_is_tried_first(record: Connection) -> None:
    dial = dial_for(record, "abc")
    assert dial.endpoints == (f"unix://{record.socket}", "tcp://10.0.0.1:5555")
    assert dial.peer == "client:abc"
    assert dial.about["pid"] == os.getpid()
    assert dial.keys is not None
    assert dial.keys.secret == record.secret


def test_elsewhere_there_is_only_the_address(record: Connection) -> None:
    elsewhere = msgspec.structs.replace(record, socket="/nonexistent/socket")
    assert dial_for(elsewhere, "abc").endpoints == ("tcp://10.0.0.1:5555",)
    with pytest.raises(ConnectionFileError, match="listens only on a socket of its own host"):
        dial_for(msgspec.structs.replace(elsewhere, address=""), "abc")


def test_a_controller_on_loopback_of_another_host_is_a_warning(record: Connection) -> None:
    other = msgspec.structs.replace(record.controller, host="login", boot="another")
    away = msgspec.structs.replace(record, controller=other, address="tcp://127.0.0.1:5555")
    with pytest.warns(
        RuntimeWarning, match=r"on login listens on tcp://127\.0\.0\.1:5555.* use sshserver=.*--ip"
    ) as said:
        warn_of_loopback(away, stacklevel=1)
    assert said[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_loopback(msgspec.structs.replace(away, address="tcp://10.0.0.1:5555"))
        warn_of_loopback(msgspec.structs.replace(away, address=""))
        warn_of_loopback(msgspec.structs.replace(away, controller=record.controller))


def test_a_controller_that_is_gone_is_not_dialled(record: Connection) -> None:
    gone = msgspec.structs.replace(record.controller, started=record.controller.started + 1)
    with pytest.raises(ConnectionFileError, match="has ended and left its connection file"):
        dial_for(msgspec.structs.replace(record, controller=gone), "abc")


def test_the_fields_of_a_record_are_as_good_as_a_file(record: Connection) -> None:
    fields = msgspec.to_builtins(record)
    found = find_connection(fields, profile=None, profile_dir=None, cluster_id="", timeout_s=0)
    assert found == record
