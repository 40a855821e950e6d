"""A real disk that fills up under a workload: a clear error once, the work goes on, nothing is damaged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="cannot be had here: only root can mount a disk of its own")

TESTS = Path(__file__).parent

SCRIPT = '''
import errno, json, os, signal, sqlite3, subprocess, sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
folder, disk = Path(sys.argv[2]), sys.argv[3]

import ippmpi as ipp
from clusters import running
from helpers import eventually

os.environ["IPPMPI_CONTROLLER_STORE_DIR"] = disk


def work(balanced, numbers):
    results = [balanced.apply_async(lambda n: (n, "x" * 30_000), n) for n in numbers]
    return sum(r.get(timeout=60) == (n, "x" * 30_000) for n, r in zip(numbers, results))


def resize(size):
    subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)


def fill():
    with open(disk + "/somebody-elses", "ab", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError as error:
            assert error.errno == errno.ENOSPC, error


def refusals():
    """Work until the store had to say that it cannot write: what fits depends on how the records are grouped."""
    right = work(balanced, range(40))
    return right == 40 and log.read_text().count("cannot write the store")


def error_of(call):
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


said = {}
with running(folder / "profile", 2, "local") as (cluster, rc):
    log = Path(cluster.controller_log)
    balanced = rc.load_balanced_view()
    said["right before"] = work(balanced, range(20))
    said["right while it fills"] = work(balanced, range(20, 420))
    fill()
    eventually(lambda: refusals() > 0, 30)
    said["full"] = os.statvfs(disk).f_bavail * 4096
    said["push"] = error_of(lambda: rc[0].push({"a": bytes(8_000_000)}, block=True))
    said["after the push"] = rc[0].apply_sync(lambda: "a" in globals())
    known = refusals()
    os.kill(cluster.controller.identity.pid, signal.SIGKILL)
    eventually(lambda: not cluster.running)
    pending = balanced.apply_async(lambda: "pending")
    try:
        cluster.restore_controller_sync()
    except ipp.LaunchError as error:  # without room for SQLite's index it cannot read its store
        said["refused"] = str(error)
        resize("4200k")
        cluster.restore_controller_sync()
    said["pending"] = pending.get(timeout=20)
    said["right when full and restored"] = work(balanced, range(40))
    fill()
    eventually(lambda: refusals() > known, 30)
    resize("64m")
    said["right with room"] = work(balanced, range(20))
    eventually(lambda: error_of(lambda: work(balanced, [1])) == "" and "can be written again" in log.read_text(), 60)
    rc[0].push({"a": bytes(8_000_000)}, block=True)
    said["size"] = rc[0].apply_sync(lambda: len(a))
    last = balanced.apply_async(lambda: "last")
    last.get(timeout=10)
    task = last.msg_ids[0]
    (records,) = Path(disk).glob("*/records.sqlite")

    def state():
        with sqlite3.connect(records) as db:
            return db.execute("SELECT lost, finished IS NOT NULL FROM requests WHERE task = ?", (task,)).fetchone()

    said["last"] = eventually(lambda: (found := state()) and found[1] and found)
    with sqlite3.connect(records) as db:
        said["check"] = db.execute("PRAGMA integrity_check").fetchone()
        said["states"] = db.execute("SELECT lost, count(*) FROM requests GROUP BY lost").fetchall()
    said["log"] = log.read_text()
    said["aside"] = [str(path) for path in Path(disk).rglob("*damaged*")]
print("said:" + json.dumps(said))
'''


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("full")
    disk = folder / "disk"
    disk.mkdir()
    mount = 'mount -t tmpfs -o size=4m tmpfs "$1" && shift && exec "$@"'
    inside = [sys.executable, "-P", "-c", SCRIPT, str(TESTS), str(folder), str(disk)]
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", mount, "sh", str(disk), *inside],
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("said:")]
    found: dict[str, Any] = json.loads(line.removeprefix("said:"))
    return found


def test_the_work_goes_on(said: dict[str, Any]) -> None:
    assert said["right before"] == 20
    assert said["full"] < 100_000
    assert said["right while it fills"] == 400
    assert said["right with room"] == 20


def test_what_needs_the_disk_fails_with_the_reason(said: dict[str, Any]) -> None:
    assert "cannot be written to the controller's spool: [Errno 28] No space left on device" in said["push"]
    assert said["after the push"] is False


def test_a_controller_that_is_killed_meanwhile_goes_on(said: dict[str, Any]) -> None:
    assert said["pending"] == "pending"
    assert said["right when full and restored"] == 40
    if "refused" in said:
        assert "database or disk is full; it is kept as it is; make room, then start again" in said["refused"]


def test_the_log_says_it_clearly_and_once(said: dict[str, Any]) -> None:
    errors = [line for line in said["log"].splitlines() if " ERROR " in line and "cannot go on:" not in line]
    recoveries = said["log"].count("can be written again")
    assert len(errors) == recoveries + 1, errors  # once each time it begins; the first controller did not see the end
    assert all("cannot write the store" in line and "full" in line for line in errors)
    assert "Traceback" not in said["log"]


def test_with_room_again_everything_is_recorded_and_nothing_is_damaged(said: dict[str, Any]) -> None:
    assert said["size"] == 8_000_000
    assert said["last"] == [0, 1]
    assert said["check"] == ["ok"]
    assert said["aside"] == []
    states = dict(said["states"])
    assert states[0] > 50
    assert states[1] > 50  # those of which not all could be kept are named as lost
