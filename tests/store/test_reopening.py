"""The store of a controller that was killed, whatever has become of its file."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ippmpi.core.restoring import Past
from ippmpi.store.database import Database
from ippmpi.store.records import StoreLimits
from ippmpi.store.reopening import reopen
from ippmpi.wire.messages import Content, EngineRecord, EnginesChanged, Failure, Placement, Replies, Reply, Submit

LIMITS = StoreLimits()
CLIENT = "0123456789ab"
ENGINES = [EngineRecord(n, n, "w", "h", 100 + n, 3) for n in range(3)]


def submit(number: int, targets: list[int] | None = None) -> Submit:
    placement = Placement(retries=2) if targets is None else None
    return Submit(f"{CLIENT}-{number}", "apply", targets or [], [Content(b"x" * 100, 100)], "label", placement)


def reply(number: int, engine: int, failure: Failure | None = None) -> Reply:
    return Reply(f"{CLIENT}-{number}", engine, Content(b"y" * 100, 100), failure, 1.0, 2.0)


def fill(path: Path, count: int = 40) -> None:
    """Write a store as a controller that was killed leaves it: with its log, not closed."""
    live = path.with_name("live")
    database = Database(live, LIMITS)
    database.write([(1.0, EnginesChanged(ENGINES, [], []))])
    for n in range(1, count + 1):
        database.write([(float(n), submit(n, [0, 1] if n % 2 else None))])
        if n % 3:
            database.write([(float(n), reply(n, 0))])
        elif n % 2:
            database.write([(float(n), Replies(f"{CLIENT}-{n}", [reply(n, engine) for engine in (0, 1)]))])
    database.write([(0.0, EnginesChanged([], [2], ["gone"]))])
    for ending in ("", "-wal", "-shm"):
        shutil.copy(f"{live}{ending}", f"{path}{ending}")
    database.close()


def past_of(path: Path) -> Past:
    database, past = reopen(path, LIMITS)
    database.write([(1.0, submit(999, [0])), (1.0, reply(999, 0))])  # it works
    database.close()
    return past


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    fill(tmp_path / "s", 6)
    past = past_of(tmp_path / "s")
    assert past.engines == ENGINES[:2]
    assert [t.task for t in past.tasks] == [f"{CLIENT}-{n}" for n in range(1, 7)]
    assert {t.owner for t in past.tasks} == {f"client:{CLIENT}"}
    assert [(t.submit is not None, dict(t.ends)) for t in past.tasks] == [
        (True, {0: True}),
        (False, {0: True}),
        (False, {0: True, 1: True}),
        (False, {0: True}),
        (True, {0: True}),
        (True, {}),
    ]
    assert past.tasks[0].submit == submit(1, [0, 1])
    assert past.tasks[5].submit == submit(6)


def test_a_reply_may_come_before_its_request(tmp_path: Path) -> None:
    database = Database(tmp_path / "s", LIMITS)
    failed = msgspec.structs.replace(reply(1, 0, Failure("E", "v")), attempt=2)
    database.write([(1.0, failed)])
    assert database.past().early == [failed]
    large = Submit(f"{CLIENT}-1", "push", [0], [Content(size=10, transfer=7)])
    database.write([(1.0, large)])
    past = database.past()
    database.close()
    assert past.early == []
    assert [(t.submit, dict(t.ends)) for t in past.tasks] == [(None, {0: False})]


def test_replies_that_came_together_are_known_one_by_one(tmp_path: Path) -> None:
    both = Replies(f"{CLIENT}-1", [reply(1, 4), reply(1, 2, Failure("E", "v"))])
    database = Database(tmp_path / "s", LIMITS)
    database.write([(1.0, both)])
    assert database.past().early == both.replies
    database.write([(1.0, submit(1, [2, 3, 4]))])
    assert [(t.submit, dict(t.ends)) for t in database.past().tasks] == [(submit(1, [2, 3, 4]), {2: False, 4: True})]
    database.write([(1.0, reply(1, 3))])
    assert [(t.submit, dict(t.ends)) for t in database.past().tasks] == [(None, {2: False, 3: True, 4: True})]
    database.close()


def test_requests_of_a_client_come_back_in_their_order(tmp_path: Path) -> None:
    database = Database(tmp_path / "s", LIMITS)
    database.write([(1.0, submit(n, [0])) for n in (2, 10, 1)])
    assert [t.task for t in database.past().tasks] == [f"{CLIENT}-{n}" for n in (1, 2, 10)]
    database.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 1), ending=st.sampled_from(["", "-wal", "-shm"]))
def test_a_store_that_was_cut_anywhere_is_opened(tmp_path: Path, cut: float, ending: str) -> None:
    folder = tmp_path / os.urandom(4).hex()
    folder.mkdir()
    fill(folder / "s")
    file = f"{folder / 's'}{ending}"
    os.truncate(file, int(os.path.getsize(file) * cut))
    past = past_of(folder / "s")
    assert len(past.tasks) <= 40
    for task in past.tasks:
        number = int(task.task.rpartition("-")[2])
        assert task.submit in (None, submit(number, [0, 1] if number % 2 else None))
    shutil.rmtree(folder)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 1), junk=st.binary(min_size=1, max_size=64))
def test_a_store_with_wrong_bytes_is_opened(tmp_path: Path, at: float, junk: bytes) -> None:
    folder = tmp_path / os.urandom(4).hex()
    folder.mkdir()
    database = Database(folder / "s", LIMITS)
    database.write([(1.0, submit(n, [0, 1])) for n in range(100)])
    database.close()
    with open(folder / "s", "r+b") as file:
        file.seek(int(os.path.getsize(folder / "s") * at))
        file.write(junk)
    assert len(past_of(folder / "s").tasks) <= 101
    shutil.rmtree(folder)


def test_a_store_whose_columns_have_wrong_names_is_put_aside(tmp_path: Path) -> None:
    database = Database(tmp_path / "s", LIMITS)
    database.write([(1.0, submit(n, [0])) for n in range(20)])
    database.close()
    content = (tmp_path / "s").read_bytes()
    assert content.count(b" expected INTEGER") == 1
    (tmp_path / "s").write_bytes(content.replace(b" expected INTEGER", b" Expected_NTEGER"))
    past_of(tmp_path / "s")
    assert list(tmp_path.glob("s.damaged-*"))


def test_a_damaged_store_is_put_aside_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    database = Database(tmp_path / "s", LIMITS)
    database.write([(1.0, submit(n, [0])) for n in range(2000)])
    database.close()
    os.truncate(tmp_path / "s", os.path.getsize(tmp_path / "s") // 2)
    past = past_of(tmp_path / "s")
    assert 0 < len(past.tasks) < 2000  # what could be read
    (aside,) = tmp_path.glob("s.damaged-*[0-9]")
    assert f"kept as {aside}" in caplog.text


def test_a_store_of_another_version_is_put_aside(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "s") as db:
        db.execute("PRAGMA user_version = 1")
    db.close()
    assert past_of(tmp_path / "s") == Past([], [], [], [])
    assert list(tmp_path.glob("s.damaged-*"))
