"""One part: its value is unpickled when it is asked for, by whoever asks."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from ippmpi.client.parts import Part, State
from ippmpi.errors import RemoteError
from ippmpi.wire import pickling


def part_with(value: object) -> Part:
    part = Part("t", 3, "apply", "", 1.0)
    part.succeed(pickling.pack(value).join())
    return part


def test_a_value_is_unpickled_once_and_kept() -> None:
    part = part_with([1])
    assert part.read(lambda _, pickled: pickling.unpack(pickled)) is None
    first = part.value
    assert first == [1]
    assert part.read(lambda _, pickled: pickling.unpack(pickled)) is None
    assert part.value is first


def test_none_is_known_without_unpickling() -> None:
    part = part_with(None)
    assert part.done
    assert part.status == "ok"
    assert part.read(lambda *_: 1 / 0) is None
    assert part.value is None


def test_threads_that_unpickle_at_the_same_time_get_the_same_object() -> None:
    part, both = part_with(0), threading.Barrier(2, timeout=10)

    def slow(*_: object) -> object:
        both.wait()  # neither has a value before the other has begun
        return object()

    def read() -> object:
        assert part.read(slow) is None
        return part.value

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.submit(read), pool.submit(read)
        assert one.result(10) is other.result(10)


def test_a_value_that_cannot_be_unpickled_is_the_same_error_for_all_threads() -> None:
    part, both = part_with(0), threading.Barrier(2, timeout=10)

    def broken(*_: object) -> object:
        both.wait()
        raise ValueError("no such class")

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.submit(part.read, broken).result, pool.submit(part.read, broken).result
        error = one(10)
        assert isinstance(error, RemoteError)
        assert "no such class" in str(error)
        assert error is other(10)
    assert part.state is State.FAILED
    assert part.value is None


def test_what_was_printed_and_displayed_is_kept_in_order() -> None:
    part = Part("t", 3, "apply", "", 1.0)
    assert (part.text("stdout"), part.text("stderr"), part.field("outputs")) == ("", "", [])
    for text in (b"a", b"b"):
        part.add_text("stdout", text)
        part.add_text("stderr", text * 2)
        part.add_output({"kind": text.decode()})
    assert (part.text("stdout"), part.text("stderr")) == ("ab", "aabb")
    assert part.field("outputs") == [{"kind": "a"}, {"kind": "b"}]
    part.clear_outputs()
    assert part.field("outputs") == []
