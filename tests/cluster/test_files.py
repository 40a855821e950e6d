from __future__ import annotations

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from msgspec.structs import replace

from ippmpi import identity
from ippmpi.cluster import files
from ippmpi.cluster.files import ClusterRecord
from ippmpi.errors import ClusterError, ConnectionFileError

ME = identity.identify(os.getpid())
GONE = replace(ME, started=ME.started - 1)


def record(**changes: object) -> ClusterRecord:
    fields: dict[str, object] = {"cluster_id": "a", "profile_dir": "/p", "starter": ME}
    return ClusterRecord(**(fields | changes))  # type: ignore[arg-type]


@pytest.fixture
def stale() -> list[ClusterRecord]:
    return []


def test_a_record_survives_the_file_which_is_private(tmp_path: Path) -> None:
    file = files.path(tmp_path, "a")
    written = record(controller=ME, engine_sets={"0": {"launcher": "mpi"}}, settings={"n": 3})
    files.write(file, written)
    assert files.read(file) == written
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert files.from_dict(json.loads(json.dumps(files.to_dict(written)))) == written
    assert files.all_paths(tmp_path) == [file]


def test_of_two_starters_one_is_refused(tmp_path: Path, stale: list[ClusterRecord]) -> None:
    file = files.path(tmp_path, "a")
    files.claim(file, record(), stale.append)
    with pytest.raises(ClusterError, match=f"'a' is already running.*starting pid {ME.pid}"):
        files.claim(file, record(), stale.append)
    files.write(file, record(controller=ME))
    with pytest.raises(ClusterError, match=f"controller pid {ME.pid}.*choose another cluster id"):
        files.claim(file, record(), stale.append)
    assert not stale
    assert [p.name for p in file.parent.iterdir()] == [file.name]


def test_many_starters_at_once_leave_one_winner(tmp_path: Path, stale: list[ClusterRecord]) -> None:
    file = files.path(tmp_path, "a")
    files.write(file, record(starter=GONE))

    def start(i: int) -> bool:
        try:
            files.claim(file, record(token=str(i)), stale.append)
        except ClusterError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(start, range(8))) == 1


def test_a_stale_file_is_replaced_and_handed_out(tmp_path: Path, stale: list[ClusterRecord]) -> None:
    file = files.path(tmp_path, "a")
    old = record(controller=GONE, token="old")
    files.write(file, old)
    files.claim(file, record(token="new"), stale.append)
    assert files.read(file).token == "new"
    assert stale == [old]


def test_a_cluster_on_another_machine_counts_as_running(tmp_path: Path, stale: list[ClusterRecord]) -> None:
    file = files.path(tmp_path, "a")
    files.write(file, record(controller=replace(ME, boot="another", host="elsewhere")))
    with pytest.raises(ClusterError, match="on elsewhere"):
        files.claim(file, record(), stale.append)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b'{"cluster": {}, "controller": {}}', "belongs to another tool"),
        (b'{"format": "ippmpi", "clus', "is damaged"),
        (b'{"format": "ippmpi"}', "is damaged"),
        (b"\xff", "is damaged"),
    ],
)
def test_a_file_that_is_not_ours_or_damaged_is_explained(tmp_path: Path, content: bytes, text: str) -> None:
    file = tmp_path / "cluster-.json"
    file.write_bytes(content)
    with pytest.raises(ConnectionFileError, match=text):
        files.read(file)
    with pytest.raises(ConnectionFileError, match=text):
        files.claim(file, record(), lambda _: None)
    assert file.read_bytes() == content
