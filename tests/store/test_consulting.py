from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.test_matching import operand, reference
from ippmpi.core.effects import KEYS, Found, History, Job, Originals, Purge, Search
from ippmpi.core.matching import OPERATORS
from ippmpi.store import consulting
from ippmpi.store.consulting import consult
from ippmpi.store.database import SMALL, Database
from ippmpi.store.records import StoreLimits
from ippmpi.wire.frames import decode
from ippmpi.wire.messages import Content, Display, Failure, Output, Placement, Reply, Submit

FAILURE = Failure("ValueError", "no")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "records.sqlite", StoreLimits())
    yield database
    database.close()


@pytest.fixture
def db(database: Database) -> Database:
    """Three requests: a direct one that ended well, a balanced one that failed, one that runs."""
    direct = Submit("me-1", "apply", [0, 1], [Content(b"call")], "first")
    balanced = Submit("you-1", "apply", [], [Content(b"x" * SMALL)], "second", Placement())
    database.write(
        [
            (1.0, direct),
            (2.0, balanced),
            (3.0, Submit("me-2", "execute", [0], [Content(b"code")], "third")),
            (4.0, Output("me-1", 0, "stdout", b"hel")),
            (4.0, Output("me-1", 0, "stderr", b"err")),
            (4.0, Display("me-1", 1, b"\x80")),
            (4.0, Output("me-1", 1, "stdout", b"lo")),
            (5.0, Reply("me-1", 1, Content(b"v"), None, 10.0, 12.0)),
            (5.0, Reply("me-1", 0, Content(b"v"), None, 11.0, 13.0)),
            (6.0, Reply("you-1", 2, Content(), FAILURE, 14.0, 15.0)),
        ]
    )
    return database


def value(db: Database, job: Job) -> Any:
    found = consult(db, job)
    assert found.error == ""
    return found.value


def test_the_history_is_in_order(db: Database) -> None:
    assert value(db, History()) == ["me-1", "you-1", "me-2"]


def test_a_record_has_all_keys(db: Database) -> None:
    first, second, third = value(db, Search())
    assert tuple(first) == KEYS
    received = first.pop("received")
    assert received > 1e9  # now, not when the test says
    assert first == {
        "msg_id": "me-1", "client_uuid": "me", "label": "first", "op": "apply", "queue": "mux", "state": "ok",
        "submitted": 1.0, "engines": [0, 1], "started": 10.0, "completed": 13.0, "error": None, "stdout": "hello",
        "stderr": "err",
    }  # fmt: skip
    assert (second["queue"], second["engines"], second["error"]) == ("task", [2], "ValueError: no")
    assert [third[key] for key in ("state", "received", "started", "completed", "stdout")] == [
        "pending",
        None,
        None,
        None,
        "",
    ]


@pytest.mark.parametrize(
    ("query", "tasks"),
    [
        ({"msg_id": "me-2"}, ["me-2"]),
        ({"msg_id": "nobody-1"}, []),
        ({"client_uuid": "me", "op": "apply"}, ["me-1"]),
        ({"submitted": {"$gt": 1.0, "$lt": 3.0}}, ["you-1"]),
        ({"stdout": {"$glob": "hel*"}}, ["me-1"]),
        ({"error": {"$exists": True}}, ["you-1"]),
        ({"completed": {"$gte": 13.0}, "label": {"$in": ["first", "second"]}}, ["me-1", "you-1"]),
        ({"engines": {"$all": [0]}}, ["me-1", "me-2"]),
        ({"state": {"$nin": ["ok", "failed"]}}, ["me-2"]),
    ],
)
def test_records_are_found(db: Database, query: dict[str, Any], tasks: list[str]) -> None:
    assert value(db, Search(query, ("msg_id",))) == [{"msg_id": task} for task in tasks]


def test_a_time_that_was_found_can_be_asked_for(database: Database) -> None:
    at = [1732462496.1234567, 1732462496.9999996]
    database.write([(t, Submit(f"me-{i}", "apply", [0], [Content(b"call")])) for i, t in enumerate(at)])
    for record in value(database, Search(keys=("msg_id", "submitted"))):
        again = datetime.fromtimestamp(record["submitted"], UTC).timestamp()
        assert value(database, Search({"submitted": again})) != []
        assert record["msg_id"] not in [r["msg_id"] for r in value(database, Search({"submitted": {"$gt": again}}))]


def test_an_answer_that_is_too_large_is_refused(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consulting, "MOST_BYTES", 2 * consulting.RECORD_BYTES)
    found = consult(db, Search())
    assert (found.value, found.error[:38]) == (None, "the answer has more than 1000 bytes: a")
    assert consult(db, Search({"label": "third"})).error == ""


def test_small_requests_are_kept_as_they_came_and_large_ones_until_they_end(db: Database) -> None:
    small, running = map(decode, value(db, Originals(["me-1", "me-2"])))
    assert (small.task, small.contents, running.op) == ("me-1", [Content(b"call")], "execute")
    assert "too large" in consult(db, Originals(["you-1"])).error
    assert "no task 'nobody-1'" in consult(db, Originals(["me-1", "nobody-1"])).error


def test_what_has_ended_is_forgotten_with_all_that_belongs_to_it(db: Database) -> None:
    assert consult(db, Purge(["me-1"])) == Found(1, "", ["me-1"])
    assert value(db, History()) == ["you-1", "me-2"]
    for table in ("replies", "outputs"):
        assert db.connection.execute(f"SELECT count(*) FROM {table} WHERE task = 'me-1'").fetchone() == (0,)
    assert consult(db, Purge(None)) == Found(1, "", ["you-1"])
    assert value(db, History()) == ["me-2"]
    assert consult(db, Purge(None)).value == 0


def test_nothing_is_forgotten_if_one_has_not_ended_or_is_not_there(db: Database) -> None:
    assert "'me-2' has not ended" in consult(db, Purge(["me-1", "me-2"])).error
    assert "no task 'nobody-1'" in consult(db, Purge(["me-1", "nobody-1"])).error
    assert value(db, History()) == ["me-1", "you-1", "me-2"]


def test_results_of_engines_are_forgotten(db: Database) -> None:
    assert consult(db, Purge(engines=[2, 9])).dropped == ["you-1"]
    assert consult(db, Purge(["me-1"], [0])).dropped == ["me-1"]
    assert value(db, History()) == ["me-2"]


# --- search, by properties -----------------------------------------------------------------------

NAMES = st.sampled_from(["", "x", "xy", "y*", "z"])
TIMES = st.sampled_from([0.5, 1.0, 2.0, 3.25])
REQUESTS = st.tuples(
    NAMES,  # label
    st.sampled_from(["apply", "push"]),
    st.lists(st.integers(0, 3), max_size=3, unique=True),  # targets; none: balanced
    TIMES,
    st.none() | st.tuples(st.booleans(), TIMES, TIMES, NAMES),  # how it ended, and what it printed; None: it runs
)
OF_RECORDS = (
    NAMES | TIMES | st.none() | st.sampled_from(["apply", "mux", "task", "ok", "failed", "pending", "me", "me-1"])
)
OPERATORS_OF_RECORDS = st.sampled_from(sorted(OPERATORS)).flatmap(
    lambda name: st.fixed_dictionaries({name: operand(name, OF_RECORDS)})
)
QUERIES = st.dictionaries(st.sampled_from(KEYS), OF_RECORDS | OPERATORS_OF_RECORDS, max_size=3)


def messages(number: int, request: Any) -> Iterator[tuple[float, Any]]:
    label, op, targets, at, end = request
    task = f"me-{number}"
    yield at, Submit(task, op, targets, [Content(b"call")], label, None if targets else Placement())
    for engine in (targets or [2]) if end is not None else ():
        well, started, completed, text = end
        yield at, Output(task, engine, "stdout", text.encode())
        yield at, Reply(task, engine, Content(b"v"), None if well else FAILURE, started, completed)


@settings(deadline=None, max_examples=150)
@given(st.lists(REQUESTS, max_size=6), QUERIES)
def test_a_search_finds_what_plain_python_finds_among_all_records(requests: list[Any], query: dict[str, Any]) -> None:
    database = Database(Path(":memory:"), StoreLimits(age_s=1e12))
    try:
        database.write([each for number, request in enumerate(requests) for each in messages(number, request)])
        records = value(database, Search())
        assert len(records) == len(requests)
        assert value(database, Search(query)) == [record for record in records if reference(query, record)]
    finally:
        database.close()
