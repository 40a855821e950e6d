"""Somebody sets the clock while a cluster works: back and forth by hours and days, for all of its processes at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clusters import script

JUMPING = """
import os, sys, time

def jumped(time_of, unit):
    def jump():
        try:
            with open(os.environ["TEST_CLOCK_OFFSET"]) as file:
                return time_of() + int(float(file.read()) * unit)
        except (OSError, ValueError, KeyError):
            return time_of()
    return jump

time.time, time.time_ns = jumped(time.time, 1), jumped(time.time_ns, 10**9)
if "ippmpi.controller" in sys.orig_argv:
    import ippmpi.store.keeper
    ippmpi.store.keeper.PRUNE_EVERY_S = 0.0  # at every write, not once a minute
"""

SCRIPT = """
import json, os, signal, sqlite3, sys, time
from pathlib import Path

sys.path.insert(0, sys.argv[1])
folder, offset = Path(sys.argv[2]), Path(os.environ["TEST_CLOCK_OFFSET"])

import ippmpi as ipp
from clusters import running
from helpers import eventually

HOUR, said = 3600, {}
os.environ["IPPMPI_CONTROLLER_STORE_DIR"] = str(folder / "store")
os.environ["IPPMPI_CONTROLLER_STORE_AGE_S"] = str(6 * HOUR)


def set_clock(to):
    new = offset.with_suffix(".new")
    new.write_text(str(to))
    new.rename(offset)


def rows():
    (records,) = (folder / "store").glob("*/records.sqlite")
    with sqlite3.connect(records) as db:
        return db.execute("SELECT count(*), sum(finished IS NOT NULL), sum(lost) FROM requests").fetchone()


def nap(seconds):
    import time
    time.sleep(seconds)
    return time.time()


with running(folder / "profile", 2, "local") as (cluster, rc):
    balanced = rc.load_balanced_view()
    pids, here = rc[:].apply_sync(os.getpid), time.time()
    set_clock(72 * HOUR)
    said["jumps are seen"] = rc[0].apply_sync(nap, 0) - here > 71 * HOUR and time.time() - here > 71 * HOUR
    set_clock(0)
    long = rc[1].apply_async(nap, 3.0)
    limited = balanced.apply_async(nap, 0.1)
    with balanced.temp_flags(timeout=30.0):
        timed = [balanced.apply_async(nap, 0.01) for _ in range(40)]
    late = rc[0].apply_async(nap, 2.5)
    jumps = 0
    for to in [-72, 72, -5, 5, -240, 240] * 3:
        set_clock(to * HOUR)
        jumps += 1
        rc.queue_status()
        balanced.apply_sync(nap, 0.02)
    said["timed"] = sum(r.get(timeout=20) is not None for r in timed)
    said["waits"] = limited.get(timeout=20) is not None and late.get(timeout=20) is not None
    said["long"] = long.get(timeout=20) is not None
    said["times"] = [long.serial_time, long.elapsed]
    began = time.monotonic()
    with balanced.temp_flags(timeout=0.5, after=[stuck := rc[0].apply_async(nap, 1.5)]):
        doomed = balanced.apply_async(nap, 0.0)
    set_clock(-100 * HOUR)
    said["doomed"] = isinstance(doomed.exception(timeout=20), ipp.TaskTimeout)
    said["doomed after"] = time.monotonic() - began
    stuck.get(timeout=10)
    set_clock(100 * HOUR)
    os.kill(cluster.controller.identity.pid, signal.SIGKILL)
    eventually(lambda: not cluster.running)
    set_clock(-100 * HOUR)
    cluster.restore_controller_sync()
    more = [balanced.apply_async(nap, 0.0) for _ in range(20)]
    said["restored"] = sum(r.get(timeout=20) is not None for r in more)
    said["pids"] = rc[:].apply_sync(os.getpid) == pids
    goal = len(timed) + 20 + jumps
    eventually(lambda: rows()[1] >= goal, what="all are recorded")
    said["rows"] = rows()
    said["goal"] = goal
    said["log"] = Path(cluster.controller_log).read_text()
print("said:" + json.dumps(said))
"""


def test_nothing_ends_early_or_late_and_nothing_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(JUMPING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "hook"))
    monkeypatch.setenv("TEST_CLOCK_OFFSET", str(tmp_path / "offset"))
    with script(SCRIPT, str(Path(__file__).parent), str(tmp_path)) as process:
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    (line,) = [line for line in output.splitlines() if line.startswith("said:")]
    said = json.loads(line.removeprefix("said:"))
    assert said["jumps are seen"]
    assert said["timed"] == 40, "a task's time limit of 30 s struck early"
    assert said["waits"]
    assert said["long"]
    assert 3.0 <= said["times"][0] < 6
    assert 3.0 <= said["times"][1] < 20
    assert said["doomed"]
    assert 0.4 < said["doomed after"] < 2.0
    assert said["restored"] == 20
    assert said["pids"]
    count, finished, lost = said["rows"]
    assert count >= finished >= said["goal"]
    assert lost == 0
    assert " ERROR " not in said["log"]
    assert "given up" not in said["log"]
