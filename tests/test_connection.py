from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from ippmpi import connection, identity
from ippmpi.connection import Connection
from ippmpi.errors import ConnectionFileError


def make(**changes: object) -> Connection:
    fields: dict[str, object] = {
        "role": "client",
        "cluster_id": "",
        "token": connection.new_token(),
        "controller": identity.identify(os.getpid()),
        "location": "here",
        "socket": "/tmp/nowhere",
        "address": "",
        "server_public": "s" * 40,
        "public": "p" * 40,
        "secret": "x" * 40,
        "folder_key": "01234567",
    }
    return Connection(**(fields | changes))  # type: ignore[arg-type]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return connection.path(tmp_path, "client")


def test_what_is_written_is_read_again(file: Path) -> None:
    written = make(cluster_id="a")
    connection.write(written, file)
    assert connection.load(file, "client") == written
    assert json.loads(file.read_text())["format"] == "ippmpi"


def test_files_are_for_their_owner_only(file: Path) -> None:
    before = os.umask(0)
    try:
        connection.write(make(), file)
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert [p.name for p in file.parent.iterdir()] == [file.name]


def test_an_open_security_folder_is_closed(file: Path) -> None:
    file.parent.mkdir(mode=0o755)
    file.parent.chmod(0o755)
    connection.write(make(), file)
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_failed_write_leaves_the_old_file_and_nothing_else(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = make()
    connection.write(old, file)

    def full(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        connection.write(make(), file)
    assert connection.load(file, "client") == old
    assert len(list(file.parent.iterdir())) == 1


def test_the_repr_does_not_tell_the_secret() -> None:
    assert "x" * 40 not in repr(make()) + str(make())


def test_names_follow_the_profile_rules(tmp_path: Path) -> None:
    security = tmp_path / "security"
    assert connection.path(tmp_path, "client") == security / "ipcontroller-client.json"
    assert connection.path(tmp_path, "engine", "two") == security / "ipcontroller-two-engine.json"


@pytest.mark.parametrize("bad", ["a/b", "..\0", "ä", "x" * 65, "a b"])
def test_a_cluster_id_that_is_no_file_name_is_refused(tmp_path: Path, bad: str) -> None:
    with pytest.raises(ValueError, match="cluster id"):
        connection.path(tmp_path, "client", bad)


def test_find_says_which_clusters_there_are(tmp_path: Path) -> None:
    connection.write(make(cluster_id="b"), connection.path(tmp_path, "client", "b"))
    connection.write(make(), connection.path(tmp_path, "client"))
    assert connection.find("client", profile_dir=tmp_path, cluster_id="b").name == "ipcontroller-b-client.json"
    with pytest.raises(ConnectionFileError, match=r"no connection file .*-c-client.json; there are files .* '', 'b'"):
        connection.find("client", profile_dir=tmp_path, cluster_id="c")


def test_a_missing_file_is_named(file: Path) -> None:
    with pytest.raises(ConnectionFileError, match=f"no connection file {file}.*is a cluster running"):
        connection.load(file, "client")


def test_half_a_file_is_recognised(file: Path) -> None:
    connection.write(make(), file)
    with file.open("r+b") as f:
        f.truncate(100)
    with pytest.raises(ConnectionFileError, match=r"only half of a file \(100 bytes\)"):
        connection.load(file, "client")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"ssh": "", "registration": 1, "key": "k", "control": 2}, "belongs to ipyparallel"),
        ({"shell_port": 1, "transport": "tcp"}, "not a connection file of ippmpi"),
        ([1, 2], "not a connection file of ippmpi"),
    ],
)
def test_another_tools_file_is_named_as_such(file: Path, content: object, text: str) -> None:
    connection.write_private(file, json.dumps(content).encode())
    with pytest.raises(ConnectionFileError, match=text):
        connection.load(file, "client")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"role": "engine"}, "is for the role 'engine'; 'client' is needed"),
        ({"version": 99}, "protocol version 99, this is version"),
        ({"controller": 3}, "Expected `object`, got `int`"),
    ],
)
def test_a_file_of_ours_that_does_not_fit_is_explained(file: Path, change: dict[str, object], text: str) -> None:
    fields = json.loads(msgspec.json.encode(make())) | change
    connection.write_private(file, json.dumps(fields).encode())
    with pytest.raises(ConnectionFileError, match=text):
        connection.load(file, "client")


def test_a_file_open_to_others_is_refused_with_the_command_to_run(file: Path) -> None:
    connection.write(make(), file)
    file.chmod(0o640)
    with pytest.raises(ConnectionFileError, match=f"0640.*run 'chmod 600 {file}'"):
        connection.load(file, "client")


def test_stale_is_decided_by_the_process_and_only_by_its_own_machine() -> None:
    me = identity.identify(os.getpid())
    assert not connection.stale(make())
    assert connection.stale(make(controller=replace(me, started=me.started - 1)))
    assert not connection.stale(make(controller=replace(me, boot="another", started=1)))


def test_only_the_file_of_the_same_start_is_removed(file: Path) -> None:
    mine = make()
    connection.write(mine, file)
    connection.remove(file, "other")
    assert file.exists()
    connection.remove(file, mine.token)
    assert not file.exists()
    connection.remove(file, mine.token)


def test_two_worlds_of_a_cluster_have_different_node_folders() -> None:
    found = make()
    keys = {connection.for_world(found, "a").folder_key, connection.for_world(found, "b").folder_key, found.folder_key}
    assert len(keys) == 3
    assert all(len(key) == 8 for key in keys)


@pytest.fixture
def key() -> Iterator[str]:
    key = connection.folder_key(connection.new_token())
    yield key
    folder = connection.node_folder_path(key)
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    elif folder.exists():
        folder.rmdir()


def test_a_node_folder_is_private_and_made_once(key: str) -> None:
    folder = connection.node_folder(key)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert connection.node_folder(key) == folder


def test_a_node_folder_that_others_could_enter_is_refused(key: str) -> None:
    connection.node_folder_path(key).mkdir()
    connection.node_folder_path(key).chmod(0o755)
    with pytest.raises(ConnectionFileError, match="mode 0700, but is drwxr-xr-x"):
        connection.node_folder(key)


def test_a_link_in_place_of_the_node_folder_is_refused(key: str, tmp_path: Path) -> None:
    connection.node_folder_path(key).symlink_to(tmp_path)
    with pytest.raises(ConnectionFileError, match="somebody else made it"):
        connection.node_folder(key)


def test_names_in_a_node_folder_stay_short() -> None:
    assert connection.host_prefix("h" * 200) == "h" * 40
    assert connection.host_prefix() == identity.host_name()[:40]


def test_a_lock_is_held_as_long_as_its_file_is_open(tmp_path: Path) -> None:
    path = tmp_path / "host.lock"
    assert connection.lock_held(path) is None
    path.touch()
    assert connection.lock_held(path) is False
    fd = connection.take_lock(path)
    assert connection.lock_held(path) is True
    os.close(fd)
    assert connection.lock_held(path) is False
