from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ippmpi.store import missed
from ippmpi.store.database import Database, Kept
from ippmpi.store.missed import Point
from ippmpi.store.records import StoreLimits
from ippmpi.wire.messages import Content, Display, Failure, Output, Replies, Reply, Submit

ME, OTHER = "0123456789ab", "ba9876543210"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "s", StoreLimits())
    write(
        database, *(Submit(f"{client}-{n}", "apply", [0], [Content(b"x")]) for client in (ME, OTHER) for n in range(9))
    )
    yield database
    database.close()


def write(database: Database, *messages: Kept) -> None:
    database.write([(1.0, message) for message in messages])


def text(number: int, client: str = ME) -> Output:
    return Output(f"{client}-{number}", 0, "stdout", b"text %d" % number)


def reply(number: int, client: str = ME, *, size: int = 5) -> Reply:
    return Reply(f"{client}-{number}", 0, Content(b"v" * size, size), None, 1.0, 2.0, 3)


def all_behind(database: Database, point: Point) -> list[list[object]]:
    """Return the pages behind *point*."""
    pages: list[list[object]] = []
    while (found := database.missed(ME, point)).messages:
        pages.append([*found.messages])
        point = found.point
    assert found.point == point
    return pages


def test_what_was_stored_behind_a_point_comes_back_with_output_first(database: Database) -> None:
    failed = Reply(f"{ME}-2", 0, Content(), Failure("E", "v"), 1.0, 2.0)
    picture = Display(f"{ME}-3", 0, b"\x80")
    write(database, text(1), reply(1))
    point = database.latest()
    write(database, text(2), failed, text(8, OTHER), reply(8, OTHER), text(3), picture, reply(3))
    assert all_behind(database, point) == [[text(2), text(3), picture, failed, reply(3)]]


def test_replies_that_came_together_come_back_together(database: Database) -> None:
    both = Replies(f"{ME}-1", [Reply(f"{ME}-1", engine, Content(b"v", 1), None, 1.0, 2.0) for engine in (0, 1)])
    write(database, both, reply(2))
    assert all_behind(database, Point()) == [[both, reply(2)]]


def test_what_is_in_the_spool_is_left_out(database: Database) -> None:
    write(database, Reply(f"{ME}-1", 0, Content(size=1_000_000, transfer=7)), reply(2))
    assert all_behind(database, Point()) == [[reply(2)]]


def test_pages_are_bounded_in_rows_and_bytes(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    write(database, *(text(n) for n in range(4)), *(reply(n) for n in range(4)))
    monkeypatch.setattr(missed, "PAGE_ROWS", 2)
    pages = all_behind(database, Point())
    assert pages == [
        [text(0), text(1)],
        [text(2), text(3)],
        [reply(0), reply(1)],
        [reply(2), reply(3)],
    ]
    monkeypatch.setattr(missed, "PAGE_ROWS", 100)
    monkeypatch.setattr(missed, "PAGE_BYTES", 18)
    pages = all_behind(database, Point())
    assert [len(page) for page in pages] == [3, 4, 1]
    assert [message for page in pages for message in page] == [
        *(text(n) for n in range(4)),
        *(reply(n) for n in range(4)),
    ]
