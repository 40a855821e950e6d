"""The store's thread, on real files."""

from __future__ import annotations

import contextlib
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers import eventually
from ippmpi.core.effects import Found, History, Keep, Originals, Purge, Search
from ippmpi.ids import TaskId
from ippmpi.store import keeper
from ippmpi.store.keeper import Store
from ippmpi.store.records import RequestRecord, RequestState, Selection, StoreLimits
from ippmpi.wire.messages import (
    Content,
    Display,
    EngineLost,
    EngineRecord,
    EnginesChanged,
    Failure,
    Output,
    Placement,
    Replies,
    Reply,
    Submit,
)

CLIENT = "0123456789ab"


def submit(number: int, targets: list[int], *, placement: Placement | None = None, label: str = "") -> Keep:
    task = f"{CLIENT}-{number}"
    return Keep(TaskId(task), Submit(task, "apply", targets, [Content(b"x")], label, placement))


def reply(number: int, engine: int, *, content: Content | None = None, failure: Failure | None = None) -> Keep:
    task = f"{CLIENT}-{number}"
    return Keep(TaskId(task), Reply(task, engine, content or Content(b"value", 5), failure, 1.0, 2.0))


class Dones:
    """Counts the ``done`` calls, as a loop would make them."""

    def __init__(self) -> None:
        self.count = 0
        self.handed = 0
        self._changed = threading.Condition()

    def call_soon(self, call: Callable[[], None]) -> None:
        with self._changed:
            self.handed += 1
            call()
            self._changed.notify_all()

    def one(self) -> None:
        self.count += 1

    def wait(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.count >= count, 10), f"{self.count} of {count} were done"


@pytest.fixture
def dones() -> Dones:
    return Dones()


def replies(store: Store, number: int) -> list[Reply]:
    answers: queue.SimpleQueue[list[Reply]] = queue.SimpleQueue()
    store.replies(f"{CLIENT}-{number}", answers.put)
    return answers.get(timeout=10)


@contextlib.contextmanager
def opened(path: Path, dones: Dones, limits: StoreLimits | None = None, *, restore: bool = False) -> Iterator[Store]:
    store = Store(path, dones.call_soon, limits, restore=restore)
    try:
        yield store
    finally:
        store.close()


def test_what_waits_for_all_that_was_kept_before_is_told_when_that_is_so(tmp_path: Path, dones: Dones) -> None:
    written: list[int] = []
    with opened(tmp_path / "s", dones) as store:
        for number in range(200):
            store.keep(submit(number, [0]), dones.one)
        store.when_written(lambda: written.append(dones.count))
        eventually(lambda: written)
        store.when_written(lambda: written.append(dones.count))  # nothing waits
        eventually(lambda: len(written) == 2)
    assert written == [200, 200]


def keep(store: Store, dones: Dones, *records: Keep) -> None:
    goal = dones.count + len(records)
    for record in records:
        store.keep(record, dones.one)
    dones.wait(goal)


def test_a_request_is_pending_until_all_its_targets_replied(tmp_path: Path, dones: Dones) -> None:
    with opened(tmp_path / "s", dones) as store:
        keep(store, dones, submit(1, [0, 2], label="f"), reply(1, 2))
        found = store.result(f"{CLIENT}-1")
        assert found is not None
        assert (found.state, found.finished) == (RequestState.PENDING, None)
        keep(store, dones, reply(1, 0))
        found = store.result(f"{CLIENT}-1")
        assert found is not None
        assert found.finished is not None
        assert found.state is RequestState.OK
        assert (found.client, found.op, found.label, found.targets) == (CLIENT, "apply", "f", [0, 2])
        assert [(r.engine, r.content, r.size, r.started, r.completed) for r in found.replies] == [
            (0, b"value", 5, 1.0, 2.0),
            (2, b"value", 5, 1.0, 2.0),
        ]


def test_replies_that_came_together_are_replies_like_others(tmp_path: Path, dones: Dones) -> None:
    with opened(tmp_path / "s", dones) as store:
        keep(store, dones, submit(1, [0, 1, 2]))
        whole = [reply(1, engine).message for engine in (0, 2)]
        keep(store, dones, Keep(TaskId(f"{CLIENT}-1"), Replies(f"{CLIENT}-1", whole)))
        found = store.result(f"{CLIENT}-1")
        assert found is not None
        assert ([r.engine for r in found.replies], found.state) == ([0, 2], RequestState.PENDING)
        keep(store, dones, reply(1, 1))
        assert whole[0] in replies(store, 1)
        found = store.result(f"{CLIENT}-1")
        assert found is not None
        assert found.state is RequestState.OK


def test_replies_that_came_together_are_one_row_whatever_their_number(tmp_path: Path, dones: Dones) -> None:
    failure, engines = Failure("E", "no", engine=70), list(range(128))
    ends = [reply(1, engine, failure=failure if engine == 70 else None).message for engine in engines]
    with opened(tmp_path / "s", dones) as store:
        keep(store, dones, submit(1, engines))
        for some in (ends[64:], ends[:64]):
            keep(store, dones, Keep(TaskId(f"{CLIENT}-1"), Replies(f"{CLIENT}-1", some)))
        found = store.result(f"{CLIENT}-1")
        assert found is not None
        assert ([r.engine for r in found.replies], found.state) == (engines, RequestState.FAILED)
        assert [r.engine for r in found.replies if r.failure == failure] == [70]
        assert (found.replies[3].content, found.replies[3].size, found.replies[3].started) == (b"value", 5, 1.0)
        assert sorted(replies(store, 1), key=lambda one: one.engine) == ends
    with contextlib.closing(sqlite3.connect(tmp_path / "s")) as db:
        assert db.execute("SELECT count(*), sum(count) FROM replies").fetchone() == (2, 128)


def test_a_balanced_request_ends_with_one_reply(tmp_path: Path, dones: Dones) -> None:
    with opened(tmp_path / "s", dones) as store:
        keep(store, dones, submit(1, [], placement=Placement()), reply(1, 3))
        found = store.result(f"{CLIENT}-1")
        assert found is not None
        assert found.state is RequestState.OK


def test_a_failure_comes_back_as_it_was(tmp_path: Path, dones: Dones) -> None:
    failure = Failure("ValueError", "no", "traceback", engine=1, rank=1, world="w", host="h", pid=7)
    with opened(tmp_path / "s", dones) as store:
        keep(store, dones, submit(1, [1]), reply(1, 1, failure=failure, content=Content()))
        found = store.result(f"{CLIENT}-1")
        assert found is not None
        assert found.state is RequestState.FAILED
        assert found.replies[0].failure == failure


def test_of_a_transfer_only_the_size_is_kept(tmp_path: Path, dones: Dones) -> None:
    with opened(tmp_path / "s", dones) as store:
        keep(store, dones, submit(1, [1]), reply(1, 1, content=Content(size=10_000_000, transfer=4)))
        found = store.result(f"{CLIENT}-1")
        assert found is not None
        assert (found.replies[0].content, found.replies[0].size) == (None, 10_000_000)


def test_a_record_that_comes_twice_counts_once(tmp_path: Path, dones: Dones) -> None:
    with opened(tmp_path / "s", dones) as store:
        keep(store, dones, submit(1, [0, 1]), submit(1, [0, 1]), reply(1, 0), reply(1, 0))
        (found,) = store.load()
        assert found.state is RequestState.PENDING


def test_an_unknown_request_has_no_result(tmp_path: Path, dones: Dones) -> None:
    with opened(tmp_path / "s", dones) as store:
        keep(store, dones, reply(9, 0))
        assert store.result(f"{CLIENT}-9") is None
        assert store.load() == []


def test_only_requests_and_ends_are_kept(tmp_path: Path, dones: Dones) -> None:
    with opened(tmp_path / "s", dones) as store, pytest.raises(TypeError, match="EngineLost"):
        store.keep(Keep(TaskId("t"), EngineLost("w", 0, "killed")), dones.one)


def test_a_store_without_records_says_that_all_is_done(tmp_path: Path, dones: Dones) -> None:
    with contextlib.closing(Store(tmp_path / "s", dones.call_soon, records=False)) as store:
        keep(store, dones, submit(1, [0]), reply(1, 0))
        assert store.load() == []
        assert store.result(f"{CLIENT}-1") is None
        assert replies(store, 1) == []


def test_a_store_without_records_says_so_when_it_is_asked(tmp_path: Path, dones: Dones) -> None:
    answers: queue.SimpleQueue[Found] = queue.SimpleQueue()
    with contextlib.closing(Store(tmp_path / "s", dones.call_soon, records=False)) as store:
        for job in (History(), Search(), Originals(["a-1"])):
            store.consult(job, answers.put)
            assert answers.get(timeout=10).error == "this controller records no requests: its setting store is 'none'"
        store.consult(Purge(None), answers.put)
        assert answers.get(timeout=10) == Found(0, "", [])


def test_what_is_queued_together_is_one_transaction(tmp_path: Path, dones: Dones) -> None:
    with opened(tmp_path / "s", dones) as store:
        for number in range(500):
            store.keep(submit(number, [0]), dones.one)
        dones.wait(500)
        assert dones.handed < 50
        assert len(store.load()) == 500


def test_closing_writes_what_is_queued_and_calls_done(tmp_path: Path, dones: Dones) -> None:
    store = Store(tmp_path / "s", dones.call_soon)
    for number in range(100):
        store.keep(submit(number, [0]), dones.one)
    store.close()
    store.close()
    assert dones.count == 100
    assert len(store.load()) == 100
    assert not [t for t in threading.enumerate() if t.name == "ippmpi-store"]


def test_what_was_unfinished_is_lost_for_the_next_controller(tmp_path: Path, dones: Dones) -> None:
    with opened(tmp_path / "s", dones) as store:
        keep(store, dones, submit(1, [0]), submit(2, [0]), reply(2, 0))
    with opened(tmp_path / "s", dones) as store:
        assert [r.state for r in store.load()] == [RequestState.LOST, RequestState.OK]


def test_a_file_that_is_no_store_is_an_error(tmp_path: Path, dones: Dones) -> None:
    (tmp_path / "s").write_bytes(b"not a database, and long enough to look at" * 100)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        Store(tmp_path / "s", dones.call_soon)


# --- limits --------------------------------------------------------------------------------------


def wait_until(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not check():
        assert time.monotonic() < deadline, "it did not happen within 10 s"
        time.sleep(0.01)


def test_beyond_the_number_of_requests_the_oldest_finished_go(tmp_path: Path, dones: Dones) -> None:
    with opened(tmp_path / "s", dones, StoreLimits(requests=10)) as store:
        keep(store, dones, submit(0, [0]))
        for number in range(1, 20):
            keep(store, dones, submit(number, [0]), reply(number, 0))
        wait_until(lambda: len(store.load()) <= 10 or bool(keep(store, dones, submit(0, [0]))))
        tasks = [r.task for r in store.load()]
        assert tasks[0] == f"{CLIENT}-0"  # it runs
        assert tasks[-1] == f"{CLIENT}-19"
        assert len(tasks) >= 5


def test_beyond_the_bytes_the_oldest_finished_go_with_their_replies(tmp_path: Path, dones: Dones) -> None:
    big = Content(b"x" * 60_000, 60_000)
    with opened(tmp_path / "s", dones, StoreLimits(bytes=1_000_000)) as store:
        for number in range(40):
            keep(store, dones, submit(number, [0]), reply(number, 0, content=big))
        wait_until(lambda: len(store.load()) <= 16 or bool(keep(store, dones, submit(39, [0]))))
        assert store.result(f"{CLIENT}-0") is None
        last = store.result(f"{CLIENT}-39")
        assert last is not None
        assert last.replies[0].content == big.inline
    with contextlib.closing(sqlite3.connect(tmp_path / "s")) as db:
        assert db.execute("SELECT count(*) FROM replies").fetchone()[0] <= 16


def test_what_is_too_old_goes_at_the_next_look(tmp_path: Path, dones: Dones) -> None:
    from ippmpi.store.database import Database

    with opened(tmp_path / "s", dones) as store:
        keep(store, dones, submit(1, [0]), reply(1, 0), submit(2, [0]))
    with contextlib.closing(sqlite3.connect(tmp_path / "s")) as db, db:
        db.execute("UPDATE requests SET finished = 1.0 WHERE task = ?", (f"{CLIENT}-1",))
    with contextlib.closing(Database(tmp_path / "s", StoreLimits(age_s=3600))) as database:
        assert database.prune() == 1
        assert database.prune() == 0


# --- disk full -----------------------------------------------------------------------------------


def test_a_full_disk_loses_records_but_not_the_work(
    tmp_path: Path, dones: Dones, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "CALM_S", 0.0)
    big = Content(b"x" * 60_000, 60_000)
    with opened(tmp_path / "s", dones, StoreLimits(file_bytes=1 << 20)) as store:
        keep(store, dones, submit(1, [*range(30)]))
        for engine in range(30):
            keep(store, dones, reply(1, engine, content=big))
        (error,) = [r for r in caplog.records if r.levelno == logging.ERROR]
        assert "full" in error.getMessage()
        keep(store, dones, submit(2, [0]))  # small enough
        assert {r.task: r.state for r in store.load()} == {
            f"{CLIENT}-1": RequestState.LOST,
            f"{CLIENT}-2": RequestState.PENDING,
        }
        assert "can be written again" in caplog.text


# --- output, and what is read back ---


def text(number: int, engine: int, data: bytes) -> Keep:
    task = f"{CLIENT}-{number}"
    return Keep(TaskId(task), Output(task, engine, "stdout", data))


def selected(store: Store, selection: Selection, *, whole: bool = False) -> list[RequestRecord]:
    answers: queue.SimpleQueue[list[RequestRecord]] = queue.SimpleQueue()
    store.select(selection, answers.put, whole=whole)
    return answers.get(timeout=10)


def test_output_and_displays_come_back_in_their_order(tmp_path: Path, dones: Dones) -> None:
    picture = Display(f"{CLIENT}-1", 0, b"\x80")
    said = [text(1, 0, b"a"), Keep(TaskId(picture.task), picture), text(1, 1, b"b"), text(1, 0, b"c")]
    with opened(tmp_path / "s", dones) as store:
        keep(store, dones, submit(1, [0, 1]), *said, text(9, 0, b"of nobody's"))
        (found,) = selected(store, Selection(10, (f"{CLIENT}-1", "x-1")), whole=True)
        assert list(found.outputs) == [k.message for k in said]
        assert found.state is RequestState.PENDING


def test_a_selection_sees_all_that_was_kept_before_and_nothing_after(tmp_path: Path, dones: Dones) -> None:
    answers: list[RequestRecord] = []
    with opened(tmp_path / "s", dones) as store:
        store.keep(submit(1, [0]), dones.one)
        store.keep(text(1, 0, b"before"), dones.one)
        store.select(Selection(1, (f"{CLIENT}-1",)), answers.extend, whole=True)
        store.keep(text(1, 0, b"after"), dones.one)
        dones.wait(3)
    assert [o.text for o in answers[0].outputs if isinstance(o, Output)] == [b"before"]


def test_requests_are_selected_by_what_they_are(tmp_path: Path, dones: Dones) -> None:
    bad = Failure("ValueError", "no")
    with opened(tmp_path / "s", dones) as store:
        keep(store, dones, submit(1, [0], label="a"), submit(2, [1], label="b"), submit(3, [], placement=Placement()))
        keep(store, dones, reply(1, 0), reply(2, 1, failure=bad), reply(3, 7))
        keep(store, dones, submit(4, [0, 1], label="a"))

        def numbers(**wanted: object) -> list[int]:
            found = selected(store, Selection(**{"limit": 10, **wanted}))
            return [int(record.task.rpartition("-")[2]) for record in found]

        assert numbers() == [1, 2, 3, 4]
        assert numbers(limit=2) == [3, 4]
        assert numbers(label="a") == [1, 4]
        assert numbers(state="failed") == [2]
        assert numbers(client="other") == []
        assert numbers(client=CLIENT, state="ok") == [1, 3]
        assert numbers(tasks=(f"{CLIENT}-4", f"{CLIENT}-1", "x-1")) == [4, 1]
        assert [list(r.engines) for r in selected(store, Selection(10))] == [[0], [1], [7], [0, 1]]


def test_output_counts_for_the_limit_and_goes_with_its_request(tmp_path: Path, dones: Dones) -> None:
    path = tmp_path / "s"
    with opened(path, dones, StoreLimits(bytes=100_000)) as store:
        keep(store, dones, submit(1, [0]), text(1, 0, b"x" * 90_000), reply(1, 0))
        keep(store, dones, submit(2, [0]), text(2, 0, b"x" * 50_000), reply(2, 0))
        keep(store, dones, submit(3, [0]))
        eventually(lambda: (keep(store, dones, reply(3, 0)), store.result(f"{CLIENT}-1") is None)[1])
        assert store.result(f"{CLIENT}-2") is not None
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT DISTINCT task FROM outputs").fetchall() == [(f"{CLIENT}-2",)]


def test_at_the_brink_of_a_full_disk_the_log_has_one_line(
    tmp_path: Path, dones: Dones, caplog: pytest.LogCaptureFixture
) -> None:
    big = Content(b"x" * 60_000, 60_000)
    with opened(tmp_path / "s", dones, StoreLimits(file_bytes=1 << 20)) as store:
        for number in range(40):
            keep(store, dones, submit(2 * number, [0]))  # small enough, always
            keep(store, dones, reply(2 * number, 0, content=big))
    assert len([r for r in caplog.records if r.levelno >= logging.WARNING]) == 1


def test_engines_that_join_while_the_disk_is_full_are_written_as_soon_as_there_is_room(
    tmp_path: Path, dones: Dones
) -> None:
    path, task = tmp_path / "s", TaskId(f"{CLIENT}-1")
    with opened(path, dones, StoreLimits(file_bytes=1 << 20)) as store:
        keep(store, dones, Keep(task, EnginesChanged([EngineRecord(n, n, "w", "h", 7) for n in range(3)], [], [])))
        records = [EngineRecord(n, n, "w" * 1000, "h", 8) for n in range(3, 2000)]
        keep(store, dones, Keep(task, EnginesChanged(records, [1], ["lost"])))
        keep(store, dones, Keep(task, EnginesChanged([], [*range(5, 2000)], [""] * 1995)))
        keep(store, dones, submit(1, [0]))
    with opened(path, dones, restore=True) as store:
        assert [engine.id for engine in store.past.engines] == [0, 2, 3, 4]
        assert len(store.past.tasks) == 1


def test_whoever_brings_more_than_can_be_written_is_held_up(
    tmp_path: Path, dones: Dones, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "MOST_QUEUED", 100)
    monkeypatch.setattr(keeper, "LONGEST_HOLD_S", 10.0)
    with opened(tmp_path / "s", dones) as store:
        for number in range(3000):
            store.keep(submit(number, [0]), dones.one)
            assert store.queued <= 101
        dones.wait(3000)


def test_a_disk_that_hangs_does_not_stop_the_work(
    tmp_path: Path, dones: Dones, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "MOST_QUEUED", 10)
    monkeypatch.setattr(keeper, "HUNG_S", 0.5)
    with opened(tmp_path / "s", dones) as store:
        with contextlib.closing(sqlite3.connect(tmp_path / "s", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")  # as if the disk took its time
            begin = time.monotonic()
            for number in range(200):
                store.keep(submit(number, [0]), dones.one)
            assert time.monotonic() - begin < 5
            assert store.queued > 10
            other.execute("ROLLBACK")
        dones.wait(200)


def test_what_is_over_a_limit_goes_soon_also_if_nothing_more_is_written(tmp_path: Path, dones: Dones) -> None:
    with opened(tmp_path / "s", dones, StoreLimits(requests=10)) as store:
        for number in range(100):  # each is a transaction of its own, faster than pruning is tried
            keep(store, dones, submit(number, [0]), reply(number, 0))
        eventually(lambda: len(store.load()) <= 10, what="the oldest are dropped")
