"""Contents arrive whole, within the granted window, through any breaks."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ippmpi.errors import ProtocolError
from ippmpi.net.transfers import CHUNK_BYTES, LARGEST_WINDOW, SMALLEST_CHUNK, SMALLEST_WINDOW, Transfers
from ippmpi.wire.messages import Chunk, Grant


class Bytes:
    """A source and a sink in memory; as a source it may grow."""

    def __init__(self, data: bytes = b"", size: int | None = None) -> None:
        self.data = bytearray(data)
        self.size = len(data) if size is None else size
        self.there = len(data)

    def available(self) -> int:
        return self.there

    def read(self, start: int, stop: int) -> bytes:
        return bytes(self.data[start:stop])

    def place(self, start: int, stop: int) -> None:
        raise OSError(f"no file for bytes {start} to {stop}")

    def write(self, offset: int, data: memoryview) -> None:
        assert offset == len(self.data)
        self.data += data


class Giver(Bytes):
    """A source with a file, which has room for *room* bytes."""

    def __init__(self, data: bytes, file: bytearray, room: int) -> None:
        super().__init__(data)
        self.file, self.room = file, room

    def place(self, start: int, stop: int) -> None:
        if stop > self.room:
            raise OSError("full")
        self.file[start:stop] = self.data[start:stop]


class Taker(Bytes):
    """A sink that takes what is in *file*, of which it can read *readable* bytes."""

    def __init__(self, size: int, file: bytearray, readable: int) -> None:
        super().__init__(size=size)
        self.file, self.readable = file, readable

    def placed(self, offset: int, count: int) -> None:
        if offset + count > self.readable:
            raise OSError("broken")
        self.write(offset, memoryview(self.file)[offset : offset + count])


def carry(sender: Transfers, receiver: Transfers, now: float = 0.0, chunks: int | None = None) -> int:
    """Carry grants one way and chunks the other, once; return how many chunks went."""
    for grant in receiver.take_grants():
        answer = sender.on_grant(grant)
        if answer is not None:
            receiver.on_chunk(answer, memoryview(b""), now)
    count = 0
    for chunk, part in islice(sender.chunks(), chunks):
        receiver.on_chunk(chunk, memoryview(part), now)
        count += 1
    return count


def pattern(size: int) -> bytes:
    return bytes(i * 7 % 251 for i in range(1009)) * (size // 1009) + b"z" * (size % 1009)


def test_a_content_arrives_whole() -> None:
    sender, receiver = Transfers(), Transfers()
    data, sink, ends = pattern(3_000_000), Bytes(size=3_000_000), []
    receiver.accept(sender.offer(Bytes(data)), sink, ends.append)
    while not ends:
        assert carry(sender, receiver)
    assert ends == [True]
    assert sink.data == data


def test_an_empty_content_is_complete_at_once() -> None:
    ends: list[bool] = []
    Transfers().accept(1, Bytes(), ends.append)
    assert ends == [True]


def test_nothing_leaves_before_it_is_granted() -> None:
    sender = Transfers()
    sender.offer(Bytes(b"x" * 100))
    assert list(sender.chunks()) == []


def test_chunks_of_different_contents_interleave() -> None:
    sender, receiver = Transfers(), Transfers()
    for _ in range(2):
        receiver.accept(sender.offer(Bytes(pattern(2_000_000))), Bytes(size=2_000_000), lambda ok: None)
    for grant in receiver.take_grants():
        sender.on_grant(grant)
    order = [chunk.transfer for chunk, _ in sender.chunks()]
    assert order[:4] == [1, 2, 1, 2]


def test_the_window_follows_the_measured_bandwidth() -> None:
    sender, receiver = Transfers(), Transfers()
    size = 64 * 1024 * 1024
    receiver.accept(sender.offer(Bytes(b"x" * size)), Bytes(size=size), lambda ok: None)
    slow = 2.5e6  # bytes/s: a 20 Mbit/s line
    now, largest = 0.0, 0
    for _ in range(30):
        for grant in receiver.take_grants():
            sender.on_grant(grant)
        under_way = 0
        for chunk, part in sender.chunks():
            under_way += len(memoryview(part))
            now += len(memoryview(part)) / slow
            receiver.on_chunk(chunk, memoryview(part), now)
        largest = max(largest, under_way)
    assert SMALLEST_WINDOW <= largest <= slow * 0.3, "about 0.2 s of the line"


def test_a_source_that_grows_is_sent_as_it_grows() -> None:
    sender, receiver = Transfers(), Transfers()
    source, sink, ends = Bytes(pattern(100_000)), Bytes(size=100_000), []
    source.there = 40_000
    receiver.accept(sender.offer(source), sink, ends.append)
    while carry(sender, receiver):
        pass
    assert len(sink.data) == 40_000
    assert not ends
    source.there = 100_000
    while not ends:
        assert carry(sender, receiver)
    assert sink.data == source.data


def test_a_failed_source_ends_the_transfer_on_the_other_side() -> None:
    sender, receiver = Transfers(), Transfers()
    ends: list[bool] = []
    number = sender.offer(Bytes(b"x" * 10, size=20))
    receiver.accept(number, Bytes(size=20), ends.append)
    sender.fail(number)
    carry(sender, receiver)
    assert ends == [False]


def test_a_source_that_cannot_be_read_fails_its_transfer_and_no_other() -> None:
    class Broken(Bytes):
        def read(self, start: int, stop: int) -> bytes:
            raise OSError(f"no bytes {start} to {stop}")

    sender, receiver = Transfers(), Transfers()
    ends: list[bool] = []
    receiver.accept(sender.offer(Broken(b"x" * 10)), Bytes(size=10), ends.append)
    receiver.accept(sender.offer(Bytes(b"y" * 10)), Bytes(size=10), ends.append)
    carry(sender, receiver)
    assert ends == [False, True]


def test_a_content_nobody_offers_fails_instead_of_hanging() -> None:
    ends: list[bool] = []
    receiver = Transfers()
    receiver.accept(77, Bytes(size=5), ends.append)
    carry(Transfers(), receiver)
    assert ends == [False]


def test_a_rejected_content_is_not_sent_any_more() -> None:
    sender, receiver = Transfers(), Transfers()
    number = sender.offer(Bytes(b"x" * SMALLEST_CHUNK * 20))
    receiver.accept(number, Bytes(size=SMALLEST_CHUNK * 20), lambda ok: None)
    receiver.reject(number)
    assert carry(sender, receiver) == 0
    assert not sender.active


def test_more_than_granted_is_a_protocol_error() -> None:
    receiver = Transfers()
    receiver.accept(1, Bytes(size=LARGEST_WINDOW * 4), lambda ok: None)
    with pytest.raises(ProtocolError, match="exceed the grant"):
        receiver.on_chunk(Chunk(1, 0), memoryview(bytes(SMALLEST_WINDOW + 1)), 0.0)


def test_a_fast_link_carries_full_chunks_however_the_grants_come() -> None:
    sender, receiver = Transfers(), Transfers()
    size, sizes, ends, now = 200 * CHUNK_BYTES, [], [], 0.0
    receiver.accept(sender.offer(Bytes(bytes(size))), Bytes(size=size), ends.append)
    while not ends:
        for grant in receiver.take_grants():
            sender.on_grant(grant)
        for chunk, part in sender.chunks():
            now += 0.001
            sizes.append(len(part))
            receiver.on_chunk(chunk, memoryview(part), now)
    assert set(sizes[-100:-2]) == {CHUNK_BYTES}, "all but what the last grant divides"


SIZE = 3 * LARGEST_WINDOW + 11


@pytest.mark.parametrize("room", [0, 10_000_000, SIZE])
@pytest.mark.parametrize("readable", [0, 30_000_000, SIZE])
def test_what_is_put_into_a_file_crosses_no_wire_and_what_cannot_be_does(room: int, readable: int) -> None:
    sender, receiver, file = Transfers(), Transfers(), bytearray()
    data, sink, ends = pattern(SIZE), Taker(SIZE, file, readable), []
    receiver.accept(sender.offer(Giver(data, file, room)), sink, ends.append)
    sent = 0
    while not ends:
        for grant in receiver.take_grants():
            sender.on_grant(grant)
        for chunk, part in sender.chunks():
            sent += len(part)
            receiver.on_chunk(chunk, memoryview(part), 0.0)
    assert ends == [True]
    assert sink.data == data
    assert (sent == 0) == (room == readable == SIZE)


def test_a_chunk_in_a_file_is_taken_again_after_a_break() -> None:
    sender, receiver, file = Transfers(), Transfers(), bytearray()
    data, sink, ends = pattern(SIZE), Taker(SIZE, file, SIZE), []
    receiver.accept(sender.offer(Giver(data, file, SIZE)), sink, ends.append)
    carry(sender, receiver, chunks=1)
    list(sender.chunks())  # lost
    sender.rewind()
    receiver.grant_again()
    while not ends:
        assert carry(sender, receiver)
    assert sink.data == data


@pytest.mark.parametrize(("by_file", "placed"), [(False, 10), (True, -1), (True, LARGEST_WINDOW + 1)])
def test_bytes_in_a_file_that_was_not_asked_for_are_a_protocol_error(by_file: bool, placed: int) -> None:
    receiver, size = Transfers(), LARGEST_WINDOW * 4
    receiver.accept(1, Taker(size, bytearray(), size) if by_file else Bytes(size=size), lambda ok: None)
    with pytest.raises(ProtocolError, match=r"not asked for|exceed the grant"):
        receiver.on_chunk(Chunk(1, 0, placed=placed), memoryview(b""), 0.0)


def test_a_grant_beyond_the_end_is_a_protocol_error() -> None:
    sender = Transfers()
    sender.offer(Bytes(b"abc"))
    with pytest.raises(ProtocolError, match="which has 3"):
        sender.on_grant(Grant(1, 0, 4))


@given(
    sizes=st.lists(st.integers(1, 900_000), min_size=1, max_size=4),
    breaks=st.lists(st.integers(0, 5), max_size=6),
)
def test_contents_arrive_whole_through_any_breaks(sizes: list[int], breaks: list[int]) -> None:
    sender, receiver = Transfers(), Transfers()
    sinks, ends = [Bytes(size=size) for size in sizes], []
    for size, sink in zip(sizes, sinks, strict=True):
        receiver.accept(sender.offer(Bytes(pattern(size))), sink, ends.append)
    for chunks_before_break in breaks:
        carry(sender, receiver, chunks=chunks_before_break)
        list(sender.chunks())  # under way, lost with the connection
        receiver.take_grants()
        sender.rewind()
        receiver.grant_again()
    while len(ends) < len(sizes):
        assert carry(sender, receiver)
    assert all(sink.data == pattern(size) for sink, size in zip(sinks, sizes, strict=True))


def test_a_sender_that_lost_its_memory_is_told_apart_from_a_failure() -> None:
    receiver, ends, lost = Transfers(), [], []
    receiver.accept(1, Bytes(size=5), ends.append)
    receiver.accept(2, Bytes(size=5), ends.append, lambda: lost.append(2))
    receiver.lose_incoming()
    assert (ends, lost) == ([False], [2])
    receiver.accept(2, Bytes(size=5), ends.append)  # it comes again, perhaps with the same number
