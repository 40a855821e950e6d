"""Questions for kept values and their answers: between two ranks of this node, and by way of the controller."""

from __future__ import annotations

import pytest

from agent.fakes import Child, Node, Parcel, StartChild
from ippmpi.agent.exchange import Exchange
from ippmpi.agent.members import LocalEngine
from ippmpi.errors import ProtocolError
from ippmpi.wire.messages import Content, ContentReady, Failure, Fetch, Fetched, Free

HERE = Fetch(0, 1, 1, "a-1")
ELSEWHERE = Fetch(0, 1, 7, "a-1")
FROM_ELSEWHERE = Fetch(7, 1, 1, "a-1")
SMALL = Content(b"abc", 3)


@pytest.fixture
def children(child: StartChild) -> list[Child]:
    return [child(), child()]


@pytest.fixture
def engines(node: Node, children: list[Child]) -> list[LocalEngine]:
    return [node.join(child, rank) for rank, child in enumerate(children)]


@pytest.fixture
def exchange(node: Node, engines: list[LocalEngine]) -> Exchange:  # noqa: ARG001 - they are there
    return Exchange(node.controller, node.members, node.contents)


def memory(child: Child, size: int) -> Content:
    """Return a memory file of *child* with *size* bytes."""
    child.do("fd = os.memfd_create('x')")
    child.do(f"os.write(fd, b'x' * {size})")
    child.do("os.write(out[1], str(fd).encode())")
    with open(f"/proc/{child.pid}/fd/{child.stdout_fd}", "rb") as file:
        return Content(size=size, path=f"/proc/{child.pid}/fd/{int(file.read1(10))}")


def test_two_ranks_of_a_node_need_no_controller(node: Node, exchange: Exchange, engines: list[LocalEngine]) -> None:
    asking, holder = engines
    question = Parcel(asking.conversation, HERE)
    exchange.on_fetch(question)
    assert holder.conversation.sent == [HERE]
    holder.conversation.ack()
    answer = Parcel(holder.conversation, Fetched(0, 1, SMALL))
    exchange.on_fetched(answer)
    assert asking.conversation.sent == [answer.message]
    assert (question.dones, answer.dones) == (1, 0)
    asking.conversation.ack()
    assert (answer.dones, node.controller.sent, holder.waiting) == (1, [], set())


def test_a_large_value_goes_as_the_holders_own_file_which_must_be_its_own(
    exchange: Exchange, engines: list[LocalEngine], children: list[Child]
) -> None:
    asking, holder = engines
    content = memory(children[1], 100)
    exchange.on_fetched(Parcel(holder.conversation, Fetched(0, 1, content)))
    assert asking.conversation.sent == [Fetched(0, 1, content)]
    with pytest.raises(ProtocolError, match="content at '/etc/passwd'"):
        exchange.on_fetched(Parcel(holder.conversation, Fetched(0, 1, Content(size=5, path="/etc/passwd"))))


@pytest.mark.parametrize("acknowledged", [False, True])
def test_the_loss_of_a_local_holder_makes_it_a_question_for_the_controller(
    node: Node, exchange: Exchange, engines: list[LocalEngine], acknowledged: bool
) -> None:
    asking, holder = engines
    question = Parcel(asking.conversation, HERE)
    exchange.on_fetch(question)
    if acknowledged:
        holder.conversation.ack()
    node.members.remove(holder)
    assert (node.controller.sent, question.dones) == ([HERE], 1)
    failure = Failure("HandleError", "it was lost", kind="HandleError")
    exchange.hand_on_fetched(Parcel(node.controller, Fetched(0, 1, Content(), failure)))
    assert asking.conversation.of(Fetched)[0].failure == failure


def test_the_loss_of_a_holder_that_has_answered_changes_nothing(
    node: Node, exchange: Exchange, engines: list[LocalEngine]
) -> None:
    asking, holder = engines
    exchange.on_fetch(Parcel(asking.conversation, HERE))
    exchange.on_fetched(Parcel(holder.conversation, Fetched(0, 1, SMALL)))
    node.members.remove(holder)
    assert node.controller.sent == []


def test_a_question_for_an_engine_elsewhere_goes_through_the_controller(
    node: Node, exchange: Exchange, engines: list[LocalEngine]
) -> None:
    question = Parcel(engines[0].conversation, ELSEWHERE)
    exchange.on_fetch(question)
    assert (node.controller.sent, question.dones) == ([ELSEWHERE], 0)
    node.controller.ack()
    answer = Parcel(node.controller, Fetched(0, 1, SMALL))
    exchange.hand_on_fetched(answer)
    assert (engines[0].conversation.sent, question.dones, answer.dones) == ([answer.message], 1, 0)
    engines[0].conversation.ack()
    assert answer.dones == 1


def test_a_large_answer_from_elsewhere_arrives_in_a_file_of_this_node(
    node: Node, exchange: Exchange, engines: list[LocalEngine]
) -> None:
    answer = Parcel(node.controller, Fetched(0, 1, Content(size=3, transfer=9)))
    exchange.hand_on_fetched(answer)
    (header,) = engines[0].conversation.sent
    assert header.content.path.startswith("/proc/")
    sink, on_end = node.controller.accepted[9]
    sink.write(0, memoryview(b"abc"))
    on_end(True)
    assert engines[0].conversation.sent[1:] == [ContentReady(header.content.transfer)]
    assert answer.dones == 0
    engines[0].conversation.ack()
    assert answer.dones == 1


def test_a_controller_that_loses_its_memory_in_the_middle_of_an_answer_makes_it_a_failure(
    node: Node, exchange: Exchange, engines: list[LocalEngine]
) -> None:
    exchange.hand_on_fetched(Parcel(node.controller, Fetched(0, 1, Content(size=3, transfer=9))))
    lost = node.controller.lost[9]
    assert lost is not None
    lost()
    header, ready = engines[0].conversation.sent
    assert ready == ContentReady(header.content.transfer, failed=True)


def test_an_answer_for_an_engine_that_is_gone_is_dropped_with_its_content(node: Node, exchange: Exchange) -> None:
    answers = [Parcel(node.controller, Fetched(9, 1, content)) for content in (SMALL, Content(size=3, transfer=9))]
    for answer in answers:
        exchange.hand_on_fetched(answer)
    assert ([answer.dones for answer in answers], node.controller.rejected) == ([1, 1], [9])


def test_a_new_controller_is_asked_again_what_the_one_before_has_not_answered(
    node: Node, exchange: Exchange, engines: list[LocalEngine]
) -> None:
    exchange.on_fetch(Parcel(engines[0].conversation, ELSEWHERE))
    exchange.on_fetch(Parcel(engines[1].conversation, Fetch(1, 5, 7, "a-2")))
    exchange.hand_on_fetched(Parcel(node.controller, Fetched(1, 5, SMALL)))
    exchange.ask_again()
    assert node.controller.sent[2:] == [ELSEWHERE]
    node.members.remove(engines[0])
    exchange.ask_again()
    assert len(node.controller.sent) == 3


def test_questions_from_elsewhere_are_handed_on_and_answered_through_the_controller(
    node: Node, exchange: Exchange, engines: list[LocalEngine], children: list[Child]
) -> None:
    holder = engines[1]
    question = Parcel(node.controller, FROM_ELSEWHERE)
    exchange.hand_on_fetch(question)
    assert holder.conversation.sent == [FROM_ELSEWHERE]
    small = Parcel(holder.conversation, Fetched(7, 1, SMALL))
    large = Parcel(holder.conversation, Fetched(7, 1, memory(children[1], 100)))
    exchange.on_fetched(small)
    exchange.on_fetched(large)
    first, second = node.controller.sent
    assert (first.content, second.content) == (SMALL, Content(size=100, transfer=1))
    assert node.controller.offered[1].read(0, 100) == b"x" * 100
    assert (small.dones, large.dones) == (0, 0)
    node.controller.ack()
    assert (small.dones, large.dones, node.controller.offered) == (1, 1, {1: None})


def test_a_question_for_an_engine_that_is_gone_is_left_to_the_controller(node: Node, exchange: Exchange) -> None:
    question = Parcel(node.controller, Fetch(7, 1, 9, "a-1"))
    exchange.hand_on_fetch(question)
    assert question.dones == 1


def test_a_file_that_cannot_be_read_is_a_refusal(
    node: Node, exchange: Exchange, engines: list[LocalEngine], children: list[Child]
) -> None:
    path = f"/proc/{children[1].pid}/fd/77"
    answer = Parcel(engines[1].conversation, Fetched(7, 1, Content(size=5, path=path)))
    exchange.on_fetched(answer)
    (refusal,) = node.controller.sent
    assert "cannot be read" in refusal.failure.evalue
    node.controller.ack()
    assert answer.dones == 1


def test_strangers_may_not_ask(node: Node, exchange: Exchange, engines: list[LocalEngine]) -> None:
    with pytest.raises(ProtocolError, match="has not introduced itself"):
        exchange.on_fetch(Parcel(node.controller, HERE))
    with pytest.raises(ProtocolError, match="is engine 1 and asks for engine 0"):
        exchange.on_fetch(Parcel(engines[1].conversation, HERE))


def test_each_engine_hears_what_it_may_let_go(node: Node, exchange: Exchange, engines: list[LocalEngine]) -> None:
    free = Parcel(node.controller, Free(["a-1", "a-1", "a-2", "a-3"], [0, 1, 1, 9]))
    exchange.on_free(free)
    assert engines[0].conversation.sent == [Free(["a-1"], [0])]
    assert engines[1].conversation.sent == [Free(["a-1", "a-2"], [1, 1])]
    engines[0].conversation.ack()
    assert free.dones == 0
    engines[1].conversation.ack()
    assert free.dones == 1
    exchange.on_free(Parcel(node.controller, Free([], [], "a")))
    assert [engine.conversation.sent[-1] for engine in engines] == [Free([], [], "a")] * 2
