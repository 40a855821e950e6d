"""One Unix connection whose other side does not read, or sends what cannot be."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from ippmpi.net import stream
from ippmpi.net.conversation import Conversation
from ippmpi.net.loop import Loop
from ippmpi.net.stream import Stream
from ippmpi.wire.frames import decode_link
from ippmpi.wire.messages import Chunk, Grant
from net.wires import Blob


class Ends:
    """A stream, and the plain socket at its other end."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.frames: list[tuple[bytes, bytes]] = []
        self.broken: list[str] = []
        near, self.far = socket.socketpair()
        self.far.settimeout(5)
        self.stream = Stream(self.loop, near, lambda f, d: self.frames.append((f, bytes(d))), self.broken.append)

    def turn(self) -> None:
        self.loop.work()
        self.loop.call_soon(lambda: None)
        self.loop.sleep()

    def close(self) -> None:
        self.stream.close()
        self.far.close()
        self.loop.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    ends = Ends()
    yield ends
    ends.close()


def test_who_never_reads_is_dropped_before_memory_fills(ends: Ends) -> None:
    for _ in range(1000):
        ends.stream.send(bytes(1 << 20))
    assert ends.stream._pending_bytes <= stream.MOST_PENDING + (2 << 20)
    ends.turn()
    assert "does not read" in ends.broken[0]


def test_chunks_wait_where_they_are_for_one_who_reads_slowly(ends: Ends) -> None:
    conversation = Conversation("c", "client", lambda _: None)
    sources = [Blob(bytes(1 << 20)) for _ in range(64)]
    numbers = [conversation.offer(source) for source in sources]
    conversation.open_data(ends.stream)
    for number in numbers:
        conversation.on_grant(Grant(number, 0, 1 << 20))
    conversation.flush()
    assert stream.FULL_BYTES <= ends.stream._pending_bytes <= stream.FULL_BYTES + (2 << 20)
    rooms: list[bool] = []
    ends.stream.on_room = lambda: (rooms.append(True), conversation.flush())
    reader = Stream(ends.loop, ends.far, lambda f, d: got.append((decode_link(f), len(d))), ends.broken.append)
    got: list[tuple[object, int]] = []
    for _ in range(20_000):  # rounds
        ends.turn()
        if sum(size for _, size in got) == 64 << 20:
            break
    assert sum(size for _, size in got) == 64 << 20
    assert rooms
    assert all(isinstance(chunk, Chunk) for chunk, _ in got)
    reader.close()


def test_a_length_that_cannot_be_breaks_the_connection(ends: Ends) -> None:
    ends.far.sendall(b"\xff" * 8)
    ends.turn()
    assert "at most" in ends.broken[0]


def test_a_length_alone_takes_little_memory(ends: Ends) -> None:
    ends.far.sendall((1 << 24).to_bytes(4, "little") + (1 << 24).to_bytes(4, "little") + bytes(1000))
    ends.turn()
    assert len(ends.stream._body) <= stream.BELIEVED
    ends.far.close()
    ends.turn()
    assert "closed" in ends.broken[0]


def test_a_large_frame_arrives_whole(ends: Ends) -> None:
    data = bytes(range(256)) * (15 << 12)
    whole = (3).to_bytes(4, "little") + len(data).to_bytes(4, "little") + b"abc" + data
    sent = 0
    ends.far.setblocking(False)
    while not ends.frames:
        with contextlib.suppress(BlockingIOError):
            sent += ends.far.send(whole[sent : sent + (1 << 20)])
        ends.turn()
    assert ends.frames == [(b"abc", data)]


def test_frames_in_small_pieces_arrive_whole(ends: Ends) -> None:
    frame = b"abc" * 20_000
    data = b"x" * 70_000
    whole = len(frame).to_bytes(4, "little") + len(data).to_bytes(4, "little") + frame + data
    for start in range(0, len(whole), 1000):
        ends.far.sendall(whole[start : start + 1000])
        ends.turn()
    assert ends.frames == [(frame, data)]
