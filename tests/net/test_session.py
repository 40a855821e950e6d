"""A session delivers every message once and in order, through any sequence of breaks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ippmpi.errors import ProtocolError
from ippmpi.net.session import BATCH_BYTES, WINDOW_BYTES, Session
from ippmpi.wire.messages import Batch


def leaving(a: Session) -> Iterator[Batch]:
    """Yield all batches that may leave now."""
    while (batch := a.next_batch()) is not None:
        yield batch


def pump(a: Session, b: Session) -> list[bytes]:
    """Carry everything that may leave *a* to *b*; acknowledge it there; return what arrived."""
    arrived = []
    for batch in list(leaving(a)):
        for number, raw in b.take(batch):
            arrived.append(raw)
            b.done(number, b.epoch)
    a.take(b.notice())
    return arrived


def test_what_is_queued_leaves_in_one_batch() -> None:
    a, b = Session(), Session()
    for i in range(10):
        a.send(b"%d" % i)
    batches = list(leaving(a))
    assert [len(batch.messages) for batch in batches] == [10]
    assert [raw for _, raw in b.take(batches[0])] == [b"%d" % i for i in range(10)]


def test_an_acknowledgement_waits_for_the_next_owner_and_for_all_before_it() -> None:
    a, b = Session(), Session()
    acked: list[str] = []
    a.send(b"1", lambda: acked.append("1"))
    a.send(b"2", lambda: acked.append("2"))
    for batch in leaving(a):
        b.take(batch)
    b.done(2, b.epoch)
    a.take(b.notice())
    assert acked == []
    b.done(1, b.epoch)
    a.take(b.notice())
    assert acked == ["1", "2"]
    assert a.idle
    assert a.backlog == 0


def test_a_peer_cannot_resume_where_it_cannot_be() -> None:
    a, b = Session(), Session()
    for _ in range(3):
        a.send(b"1")
    for batch in leaving(a):
        for number, _ in b.take(batch)[:2]:
            b.done(number, b.epoch)
    assert [received for received in range(-2, 6) if a.can_resume(received)] == [0, 1, 2, 3]
    a.take(b.notice())
    assert [received for received in range(-2, 6) if a.can_resume(received)] == [3]


def test_an_urgent_message_overtakes_what_has_not_left() -> None:
    a, b = Session(), Session()
    for _ in range(40):
        a.send(b"x" * (WINDOW_BYTES // 8))
    first = list(leaving(a))
    a.send(b"interrupt", urgent=True)
    assert not list(leaving(a)), "the window is full"
    for batch in first:
        b.take(batch)
    a.take(b.notice())
    assert next(iter(leaving(a))).messages[0] == b"interrupt"


def test_what_overtakes_stays_behind_what_it_needs() -> None:
    a, b = Session(), Session()
    for number in range(40):
        a.send(b"%d " % number + b"x" * (WINDOW_BYTES // 8))
    assert pump(a, b)[0].startswith(b"0 ")
    a.overtake(b"interrupt 20", None, lambda raw: raw.startswith(b"20 "))
    a.overtake(b"interrupt 0", None, lambda raw: raw.startswith(b"0 "))
    rest: list[bytes] = []
    while arrived := pump(a, b):
        rest += arrived
    assert rest[0] == b"interrupt 0", "what it names has left"
    assert rest[rest.index(b"interrupt 20") - 1].startswith(b"20 ")


def test_nothing_is_overtaken_that_leaves_at_once_anyway() -> None:
    a = Session()
    a.send(b"1")
    a.overtake(b"interrupt", None, lambda raw: False)
    assert next(iter(leaving(a))).messages == [b"1", b"interrupt"]


def test_a_session_is_stuck_while_more_waits_to_leave_than_is_under_way() -> None:
    a = Session()
    a.send(b"1")
    assert a.stuck
    assert list(leaving(a))
    assert not a.stuck


def test_bytes_under_way_are_bounded_even_without_acknowledgement() -> None:
    a = Session()
    for _ in range(1000):
        a.send(b"x" * 10_000)
    under_way = sum(len(raw) for batch in leaving(a) for raw in batch.messages)
    assert under_way <= WINDOW_BYTES + BATCH_BYTES + 10_000


def test_a_gap_in_the_numbers_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="expected message 1, got 3"):
        Session().take(Batch(3, 0, 0, [b"x"]))


@pytest.mark.parametrize("batch", [Batch(1, 5, 0), Batch(1, 0, 7)])
def test_acknowledging_what_was_never_sent_is_a_protocol_error(batch: Batch) -> None:
    with pytest.raises(ProtocolError):
        Session().take(batch)


def test_a_message_done_in_an_earlier_life_of_the_session_is_not_counted_in_the_new_one() -> None:
    a, b = Session(), Session()
    a.send(b"1")
    for batch in leaving(a):
        b.take(batch)
    old = b.epoch
    b.restart()
    b.done(1, old)
    assert not b.owes_ack


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 1)),
        st.tuples(st.just("carry"), st.integers(0, 1)),
        st.tuples(st.just("lose"), st.integers(0, 1)),
        st.tuples(st.just("own"), st.integers(0, 1)),
        st.tuples(st.just("resume"), st.just(0)),
    ),
    max_size=80,
)


class Ends:
    """Two sessions and the wire between them, which may lose everything under way."""

    def __init__(self) -> None:
        self.ends = (Session(), Session())
        self.sent: tuple[list[bytes], list[bytes]] = ([], [])
        self.got: tuple[list[bytes], list[bytes]] = ([], [])
        self.acked = [0, 0]
        self.owned: tuple[list[int], list[int]] = ([], [])
        self.broken = False

    def step(self, what: str, end: int) -> None:
        getattr(self, what)(end)
        for side in (0, 1):
            assert self.got[1 - side] == self.sent[side][: len(self.got[1 - side])], "once, and in order"
            assert self.acked[side] <= len(self.got[1 - side]), "nothing is acknowledged before it arrived"

    def send(self, end: int) -> None:
        raw = b"%d" % len(self.sent[end])
        self.sent[end].append(raw)

        def acked() -> None:
            self.acked[end] += 1

        self.ends[end].send(raw, acked)

    def carry(self, end: int) -> None:
        if self.broken:
            return
        a, b = self.ends[end], self.ends[1 - end]
        for batch in [*leaving(a), a.notice()]:
            for number, raw in b.take(batch):
                self.got[1 - end].append(raw)
                self.owned[1 - end].append(number)

    def lose(self, end: int) -> None:
        list(leaving(self.ends[end]))
        self.broken = True

    def own(self, end: int) -> None:
        if self.owned[end]:
            self.ends[end].done(self.owned[end].pop(), self.ends[end].epoch)

    def resume(self, _end: int) -> None:
        received = [end.received for end in self.ends]
        self.ends[0].resume(received[1])
        self.ends[1].resume(received[0])
        self.broken = False


@given(STEPS)
def test_every_message_arrives_once_and_in_order_through_any_breaks(steps: list[tuple[str, int]]) -> None:
    wire = Ends()
    for what, end in steps:
        wire.step(what, end)
    wire.resume(0)
    for _ in range(3):
        for end in (0, 1):
            wire.step("carry", end)
            while wire.owned[1 - end]:
                wire.step("own", 1 - end)
    assert wire.got[0] == wire.sent[1]
    assert wire.got[1] == wire.sent[0]
    assert wire.acked == [len(wire.sent[0]), len(wire.sent[1])]
    assert all(end.idle and end.backlog == 0 for end in wire.ends)


@given(st.integers(0, 30), st.integers(0, 30))
def test_what_a_reborn_peer_has_not_acknowledged_is_sent_again(sent: int, owned: int) -> None:
    a, b = Session(), Session()
    for i in range(sent):
        a.send(b"%d" % i)
    for batch in leaving(a):
        for number, _ in b.take(batch):
            if number <= owned:
                b.done(number, b.epoch)
    a.take(b.notice())
    reborn = Session()
    a.restart()
    reborn.restart()
    assert pump(a, reborn) == [b"%d" % i for i in range(min(owned, sent), sent)]
