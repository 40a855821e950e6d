from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from helpers import eventually
from ippmpi.engine.exchange import LARGE, TRIES, Exchange
from ippmpi.engine.kept import Keeping
from ippmpi.engine.memory import store
from ippmpi.engine.mpi import WorldFacts
from ippmpi.errors import HandleError
from ippmpi.wire.handles import Kept
from ippmpi.wire.messages import Content, ContentReady, Failure, Fetch, Fetched, Free, Message
from ippmpi.wire.pickling import pack, unpack

THERE = Kept("c", "a-1", 7, 4, "w", "node7", 12, "list", 100)


class Parcel:
    """A delivery that counts ``done``."""

    def __init__(self, message: Message) -> None:
        self.message, self.settled, self.dones = message, True, 0

    def done(self) -> None:
        self.dones += 1


class Line:
    """The way to an agent that does what the test says, at the moment when the engine waits for it."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.acks: list[Callable[[], None] | None] = []
        self.soon: list[Callable[[], None]] = []
        self.answers: list[Callable[[Fetch], None]] = []

    def turn(self) -> None:
        while self.soon:
            self.soon.pop(0)()

    def wait(self, until: Callable[[], bool]) -> None:
        self.turn()
        while not until():
            if not self.answers:
                return  # the engine ends
            question = self.sent[-1]
            assert isinstance(question, Fetch)
            self.answers.pop(0)(question)
            self.turn()

    def call_soon(self, call: Callable[[], None]) -> None:
        self.soon.append(call)

    def send(self, message: Message, on_ack: Callable[[], None] | None = None) -> None:
        self.sent.append(message)
        self.acks.append(on_ack)


class Rank:
    """An exchange of engine 3 and what is around it."""

    def __init__(self) -> None:
        self.line = Line()
        self.kept = Keeping("w", WorldFacts(1, 2, 2, "node"), os.getpid(), "c")
        self.kept.engine = 3
        self.exchange = Exchange(self.kept, self.line)
        self.fds: list[int] = []

    def memory(self, value: object, transfer: int = 0) -> Content:
        """Return *value* as a memory file of this process."""
        content, fd = store(pack(value))
        assert fd is not None
        self.fds.append(fd)
        return Content(size=content.size, transfer=transfer, path=content.path)

    def answer(self, content: Content | None = None, failure: Failure | None = None) -> None:
        """Let the next question be answered."""
        self.line.answers.append(lambda question: self.hear(Fetched(3, question.number, content or Content(), failure)))

    def then(self, call: Callable[[], Any]) -> None:
        self.line.answers.append(lambda _: call())

    def hear(self, message: Fetched) -> None:
        parcel = Parcel(message)
        self.exchange.on_fetched(parcel)
        assert parcel.dones == 1

    def resolve(self) -> Any:
        return self.exchange.resolve(THERE)


@pytest.fixture
def rank() -> Iterator[Rank]:
    rank = Rank()
    yield rank
    rank.line.turn()
    assert rank.exchange._question is None, "a question stays"
    for fd in rank.fds:
        os.close(fd)


ARRAY = np.arange(100_000.0)


def test_what_is_here_is_the_object_itself(rank: Rank) -> None:
    value = [1]
    assert rank.exchange.resolve(rank.kept.keep("a-1", value)) is value
    assert rank.line.sent == []


def test_a_small_value_comes_with_the_answer(rank: Rank) -> None:
    rank.answer(Content(pack([1, 2]).join()))
    assert rank.resolve() == [1, 2]
    assert rank.line.sent == [Fetch(3, 1, 7, "a-1")]


def test_a_large_value_of_a_rank_of_this_node_is_mapped_and_writable(rank: Rank) -> None:
    rank.answer(rank.memory(ARRAY))
    found = rank.resolve()
    assert (found == ARRAY).all()
    found[0] = 5


def test_a_large_value_from_elsewhere_is_waited_for(rank: Rank) -> None:
    rank.answer(rank.memory(ARRAY, transfer=6))
    rank.then(lambda: rank.exchange.content_ready(ContentReady(5)))
    rank.then(lambda: rank.exchange.content_ready(ContentReady(6)))
    assert (rank.resolve() == ARRAY).all()
    assert not rank.exchange.content_ready(ContentReady(6))


def test_a_content_that_breaks_off_is_asked_for_again(rank: Rank) -> None:
    rank.answer(rank.memory(ARRAY, transfer=6))
    rank.then(lambda: rank.exchange.content_ready(ContentReady(6, failed=True)))
    rank.answer(Content(size=10, transfer=0, path=f"/proc/{os.getpid()}/fd/999999"))
    rank.answer(Content(size=10, transfer=7, path="/proc/999999999/fd/3"))  # of an agent that is gone
    rank.then(lambda: rank.exchange.content_ready(ContentReady(7)))
    rank.answer(rank.memory(ARRAY))
    assert (rank.resolve() == ARRAY).all()
    assert [question.number for question in rank.line.sent if isinstance(question, Fetch)] == [1, 2, 3, 4]


def test_a_content_that_always_breaks_off_is_an_error(rank: Rank) -> None:
    for _ in range(TRIES):
        rank.answer(Content(size=10, path=f"/proc/{os.getpid()}/fd/999999"))
    with pytest.raises(HandleError, match=r"the list that a-1 has left on engine 7 \(rank 4 .* broke off .* 5 times"):
        rank.resolve()


def test_a_refusal_names_the_value_and_the_reason(rank: Rank) -> None:
    rank.answer(failure=Failure("HandleError", "engine 7 was lost: signal 9", kind="HandleError"))
    with pytest.raises(
        HandleError, match=r"left on engine 7 \(rank 4 of w on node7, pid 12\) cannot be had: .*signal 9"
    ):
        rank.resolve()


def test_an_answer_to_another_question_is_dropped(rank: Rank) -> None:
    rank.then(lambda: rank.hear(Fetched(3, 99, Content(pack("wrong").join()))))
    rank.answer(Content(pack("right").join()))
    assert rank.resolve() == "right"
    rank.hear(Fetched(3, 1, Content(pack("late").join())))


def test_a_new_agent_is_asked_again_and_what_arrived_by_the_old_one_is_let_go(rank: Rank) -> None:
    rank.answer(rank.memory(ARRAY, transfer=6))
    rank.then(rank.exchange.agent_changed)
    rank.then(lambda: rank.exchange.content_ready(ContentReady(6)))  # another content has this number now
    rank.answer(rank.memory(ARRAY, transfer=6))
    rank.answer(rank.memory(ARRAY[:100_000:2], transfer=8))  # twice: the last one counts
    rank.then(lambda: rank.exchange.content_ready(ContentReady(8)))
    assert len(rank.resolve()) == 50_000
    assert rank.line.sent == [Fetch(3, 1, 7, "a-1")] * 2
    rank.exchange.agent_changed()
    assert len(rank.line.sent) == 2


def test_a_new_agent_while_nothing_has_arrived_is_asked_again(rank: Rank) -> None:
    rank.then(rank.exchange.agent_changed)
    rank.answer(Content(pack(1).join()))
    assert rank.resolve() == 1
    assert len(rank.line.sent) == 2


def test_a_wait_that_is_interrupted_leaves_nothing(rank: Rank) -> None:
    def strike() -> None:
        raise KeyboardInterrupt

    before = len(os.listdir("/proc/self/fd"))
    rank.answer(rank.memory(ARRAY, transfer=6))
    rank.then(strike)
    with pytest.raises(KeyboardInterrupt):
        rank.resolve()
    rank.line.turn()
    assert len(os.listdir("/proc/self/fd")) == before + 1  # the test's own memory file


def test_an_engine_that_ends_does_not_wait(rank: Rank) -> None:
    with pytest.raises(HandleError, match="this engine is ending"):
        rank.resolve()


def test_another_thread_may_ask(rank: Rank) -> None:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(rank.resolve()))
    thread.start()
    eventually(lambda: rank.line.soon)
    rank.line.turn()
    rank.hear(Fetched(3, 1, Content(pack(5).join())))
    thread.join(5)
    assert found == [5]


# --- giving --------------------------------------------------------------------------------------


def test_a_small_value_is_given_at_once(rank: Rank) -> None:
    rank.kept.keep("a-1", [1, 2])
    parcel = Parcel(Fetch(7, 4, 3, "a-1"))
    rank.exchange.on_fetch(parcel)
    rank.line.turn()
    (answer,) = rank.line.sent
    assert isinstance(answer, Fetched)
    assert (answer.engine, answer.number, unpack(answer.content.inline), parcel.dones) == (7, 4, [1, 2], 1)


def test_a_large_value_is_given_by_a_thread_and_its_file_closed_when_the_next_owner_has_it(rank: Rank) -> None:
    array = np.zeros(LARGE)
    rank.kept.keep("a-1", array)
    before = len(os.listdir("/proc/self/fd"))
    rank.exchange.on_fetch(Parcel(Fetch(7, 4, 3, "a-1")))
    eventually(lambda: rank.line.soon)
    rank.line.turn()
    (answer,), (ack,) = rank.line.sent, rank.line.acks
    assert isinstance(answer, Fetched)
    assert answer.content.path.startswith(f"/proc/{os.getpid()}/fd/")
    assert ack is not None
    ack()
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_is_not_here_or_cannot_be_pickled_is_refused(rank: Rank) -> None:
    rank.kept.keep("a-1", threading.Lock())
    for task in ("a-1", "a-2"):
        rank.exchange.on_fetch(Parcel(Fetch(7, 4, 3, task)))
    rank.line.turn()
    texts = [m.failure.evalue for m in rank.line.sent if isinstance(m, Fetched) and m.failure is not None]
    assert ["has no value of task a-2" in text for text in texts] == [True, False]
    assert "cannot be sent from engine 3" in texts[1]
    assert "TypeError: cannot pickle" in texts[1]


def test_values_are_let_go_when_they_are_not_needed(rank: Rank) -> None:
    for task in ("a-1", "a-2", "b-1"):
        rank.kept.keep(task, 1)
    parcel = Parcel(Free(["a-1"], [3]))
    rank.exchange.on_free(parcel)
    assert (len(rank.kept), parcel.dones) == (2, 1)
    rank.exchange.on_free(Parcel(Free([], [], "b")))
    assert len(rank.kept) == 1
