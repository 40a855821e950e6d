from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ippmpi import clock
from ippmpi.store.database import ROW_BYTES, SMALL, Database, Kept
from ippmpi.store.records import StoreLimits
from ippmpi.wire.messages import Content, Failure, Output, Placement, Reply, Submit

LIMITS = StoreLimits(requests=10_000, bytes=1 << 30)
SIZES = st.sampled_from([0, 10, SMALL - 100, SMALL, SMALL + 1])
RECORDS = st.sampled_from(["submit", "reply", "failure", "output"])


def record(kind: str, task: str, targets: int, size: int) -> Kept:
    if kind == "submit":
        placement = Placement() if not targets else None
        return Submit(task, "apply", [*range(targets)], [Content(b"x" * size, size)], "label", placement)
    if kind == "output":
        return Output(task, 0, "stdout", "text")
    return Reply(task, 0, Content(b"value", 5), Failure("Oops", "", kind="code") if kind == "failure" else None)


def rows(path: Path, transactions: list[list[Kept]]) -> list[tuple[object, ...]]:
    database = Database(path, LIMITS)
    for records in transactions:
        database.write([(1.0, each) for each in records])
    columns = "task, op, label, targets, expected, submitted, finished IS NULL, lost, size, message"
    found = database.connection.execute(f"SELECT {columns} FROM requests ORDER BY task").fetchall()
    counted = (database._count, database._bytes)
    database._recount()
    assert counted == (database._count, database._bytes)
    database.close()
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kinds=st.lists(st.tuples(RECORDS, st.integers(0, 2), st.integers(0, 2), SIZES), max_size=12))
def test_it_does_not_matter_what_is_written_in_one_transaction(
    tmp_path: Path, kinds: list[tuple[str, int, int, int]]
) -> None:
    submitted: set[int] = set()
    records: list[Kept] = []
    for kind, number, targets, size in kinds:
        if (kind == "submit") != (number in submitted):  # a request comes once, and first
            submitted.add(number)
            records.append(record(kind, f"c-{number}", targets, size))
    folder = tmp_path / str(clock.now())
    folder.mkdir()
    together = rows(folder / "a", [records])
    assert together == rows(folder / "b", [[each] for each in records])
    assert all(row[8] >= ROW_BYTES for row in together)
