"""What a broken or hostile peer may say: records and messages of the right types with wrong values, and noise."""

from __future__ import annotations

import dataclasses
import random
import struct
from collections.abc import Iterator

import msgspec
from hypothesis import strategies as st

from ippmpi.wire.frames import encode, encode_link
from ippmpi.wire.messages import (
    Abort,
    Batch,
    Chunk,
    Content,
    Dependency,
    Display,
    EngineLost,
    EngineReady,
    EngineRecord,
    Failure,
    Grant,
    Interrupt,
    LinkRecord,
    Message,
    Output,
    Placement,
    Published,
    Query,
    RegisterEngines,
    Reply,
    SendSignal,
    Submit,
)

HEAD = struct.Struct("<II")

numbers = st.one_of(
    st.integers(-3, 5),
    st.sampled_from([-(2**63), -(2**31), 2**31, 2**32, 2**40, 2**53, 2**62, 2**63 - 1, 2**64 - 1]),
)
floats = st.sampled_from([0.0, -1.0, 1e-9, 1e9, 1e300, float("inf"), float("-inf"), float("nan")])
blobs = st.one_of(st.binary(max_size=40), st.just(b"\x91" * 2000), st.just(b"x" * 100_000))
texts = st.one_of(
    st.text(max_size=10), st.sampled_from(["", "\0", "\n", "x" * 10_000, "../../etc", "stdout", "apply", "nobody-1"])
)


def strategy_for(tasks: list[str], worlds: list[str]) -> st.SearchStrategy[Message]:
    """Return messages that name *tasks* and *worlds*, which exist, and others, which do not.

    Shutdown and Farewell are left out: they would do what they say. So are signals that end a process.
    """
    names = st.one_of(st.sampled_from([*tasks, "nobody-1", "000000000bad-1"]), texts)
    contents = st.builds(Content, inline=blobs, size=numbers, transfer=numbers, path=texts)
    dependencies = st.builds(Dependency, st.lists(names, max_size=3), st.booleans(), st.booleans(), st.booleans())
    placements = st.builds(
        Placement,
        candidates=st.none() | st.lists(numbers, max_size=4),
        after=st.none() | dependencies,
        follow=st.none() | dependencies,
        timeout_s=floats,
        retries=st.integers(-(2**63), 5),
    )
    failures = st.builds(Failure, texts, texts, texts, texts, st.none() | numbers, st.none() | numbers, texts, texts)
    records = st.builds(EngineRecord, numbers, numbers, st.sampled_from(worlds), texts, numbers, numbers)
    targets = st.one_of(st.none(), st.lists(numbers, max_size=4))
    wanted = st.one_of(
        st.lists(st.integers(7, 2**63 - 1), max_size=4), st.just(list(range(200_000))), st.just([7] * 1000)
    )
    return st.one_of(
        st.builds(Submit, names, texts, wanted, st.lists(contents, max_size=3), texts, st.none() | placements),
        st.builds(Abort, numbers, st.lists(names, max_size=3), targets),
        st.builds(Interrupt, numbers, st.lists(names, max_size=3)),
        st.builds(SendSignal, numbers, st.sampled_from([-1, 0, 65, 10**6]), targets),
        st.builds(Query, numbers, st.sampled_from(["status", "queue_status", "result_status", "x"]), blobs),
        st.builds(RegisterEngines, st.sampled_from(worlds), numbers, st.lists(records, max_size=3)),
        st.builds(EngineLost, st.sampled_from(worlds), numbers, texts, st.booleans(), st.none() | numbers),
        st.builds(Reply, names, numbers, contents, st.none() | failures, floats, floats),
        st.builds(Output, names, numbers, texts, blobs),
        st.builds(Display, names, numbers, blobs),
        st.builds(Published, names, numbers, st.dictionaries(texts, blobs, max_size=3)),
        st.builds(
            EngineReady,
            st.sampled_from(worlds), numbers, numbers, numbers, st.sampled_from([-1, 0, 2**22 + 1, 2**63 - 1]),
            texts, numbers, numbers, numbers, st.booleans(),
        ),
    )  # fmt: skip


def records_for(messages: st.SearchStrategy[Message]) -> st.SearchStrategy[tuple[LinkRecord, bytes]]:
    """Return link records, mostly with a message in them, and the bytes that follow."""
    carried = st.lists(st.one_of(messages.map(encode), blobs), max_size=3)
    batches = st.builds(Batch, numbers, numbers, numbers, carried)
    return st.one_of(
        st.tuples(batches, st.just(b"")),
        st.tuples(st.builds(Grant, numbers, numbers, numbers, st.booleans()), blobs),
        st.tuples(st.builds(Chunk, numbers, numbers, st.booleans(), numbers), blobs),
    )


def framed(frame: bytes, data: bytes = b"") -> bytes:
    """Return a frame as it travels over a Unix socket."""
    return HEAD.pack(len(frame), len(data)) + frame + data


@dataclasses.dataclass
class Noise:
    """Bytes that are nearly right. ``seed`` decides all."""

    seed: int

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)

    def frames(self, good: list[bytes]) -> Iterator[bytes]:
        """Yield, without end, frames that are random, or *good* ones cut, changed, or sent again."""
        dice = self._dice
        while True:
            frame = bytearray(dice.choice(good))
            match dice.randrange(5):
                case 0:
                    yield dice.randbytes(dice.randrange(200))
                case 1:
                    yield bytes(frame[: dice.randrange(len(frame) + 1)])
                case 2:
                    for _ in range(dice.randrange(1, 4)):
                        frame[dice.randrange(len(frame))] = dice.randrange(256)
                    yield bytes(frame)
                case 3:
                    yield bytes(frame)
                case 4:
                    yield msgspec.msgpack.encode([dice.choice(["batch", "hello", "grant", "chunk", 7]), dice.random()])

    def stream(self, good: list[bytes]) -> bytes:
        """Return what a mad peer writes to a Unix socket at once: frames, some with wrong lengths."""
        dice, out = self._dice, bytearray()
        frames = self.frames(good)
        for _ in range(dice.randrange(1, 6)):
            frame = next(frames)
            head = HEAD.pack(len(frame), 0)
            if dice.random() < 0.1:
                head = dice.randbytes(8)
            elif dice.random() < 0.1:
                head = HEAD.pack(len(frame) // 2, dice.choice([0, len(frame), 2**24, 2**32 - 1]))
            out += head + frame
        return bytes(out)


def carried(message: Message, first: int = 1) -> bytes:
    """Return the frame of a batch with one message."""
    return encode_link(Batch(first, 0, 0, [encode(message)]))
