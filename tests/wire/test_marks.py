from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ippmpi.wire.marks import LONGEST, START, Marks, mark

TEXTS = st.binary(max_size=30) | st.sampled_from([START, START[:3], b"\x00", b"\x1b\x00"])


def joined(pieces: list[tuple[str | None, bytes]]) -> list[tuple[str | None, bytes]]:
    """Join what follows each other for the same task."""
    result: list[tuple[str | None, bytes]] = []
    for task, data in pieces:
        if result and result[-1][0] == task:
            data = result.pop()[1] + data
        result.append((task, data))
    return result


def test_output_belongs_to_the_task_that_was_marked_last() -> None:
    marks = Marks()
    assert marks.split(b"early" + mark("a-1") + b"one" + mark("a-2") + mark("a-3") + b"three") == [
        (None, b"early"),
        ("a-1", b"one"),
        ("a-3", b"three"),
    ]
    assert marks.split(b"more") == [("a-3", b"more")]


@given(st.lists(st.tuples(st.sampled_from(["a-1", "b-22"]), st.binary(max_size=30)), max_size=6), st.data())
def test_it_does_not_matter_how_the_stream_is_cut(said: list[tuple[str, bytes]], data: st.DataObject) -> None:
    said = [(task, text.replace(b"\x1b", b"")) for task, text in said]
    stream = b"".join(mark(task) + text for task, text in said)
    marks, pieces = Marks(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        pieces += marks.split(stream[:size])
        stream = stream[size:]
    pieces.append((marks.task, marks.rest()))
    assert [p for p in joined(pieces) if p[1]] == joined([(task, text) for task, text in said if text])


@given(st.lists(TEXTS, max_size=8))
def test_nothing_is_lost_of_what_is_no_mark(texts: list[bytes]) -> None:
    marks = Marks()
    got = b"".join(piece for text in texts for task, piece in marks.split(text) if task is None) + marks.rest()
    if marks.task is None:
        assert got == b"".join(texts)


def test_what_only_begins_like_a_mark_is_text() -> None:
    marks = Marks()
    text = START + b"x" * (LONGEST + 10)
    assert joined(marks.split(text)) == [(None, text)]


@given(st.booleans(), st.integers(0, 30))
def test_who_begins_in_the_middle_learns_whose_the_beginning_is(late: bool, size: int) -> None:
    """What is there at the first look is looked at as a whole; *late*: the next task began after that."""
    stream = b"end of a" + mark("b", "a") + b"of b"
    marks = Marks("a" if late else "b")
    first = stream[: min(size, 8)] if late else stream
    pieces = marks.split(first) + marks.split(stream[len(first) :])
    assert joined([p for p in pieces if p[1]]) == [("a", b"end of a"), ("b", b"of b")]
