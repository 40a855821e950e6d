"""Replies to one request leave as one message, soon, and never after the news that their engine is gone."""

from __future__ import annotations

import pytest

from agent.fakes import Node, Parcel, StartChild
from agent.test_ranks import Staff, staff  # noqa: F401 - a fixture
from ippmpi.agent import together
from ippmpi.agent.members import LocalEngine
from ippmpi.agent.together import MOST_BYTES, TOGETHER_S
from ippmpi.wire.messages import Content, EngineLost, Replies, Reply, Run


def answer(node: Node, engine: LocalEngine) -> Parcel:
    parcel = Parcel(engine.conversation, Reply("t", engine.id, Content(b"%d" % engine.id)))
    node.relay.on_reply(parcel)
    return parcel


@pytest.fixture
def engines(node: Node, child: StartChild) -> list[LocalEngine]:
    engines = [node.join(child(), rank) for rank in range(3)]
    node.relay.on_run(Parcel(node.controller, Run("t", "apply", [0, 1, 2], [Content(b"abc")])))
    return engines


def test_the_replies_of_all_engines_are_one_message_that_does_not_wait(node: Node, engines: list[LocalEngine]) -> None:
    parcels = [answer(node, engine) for engine in engines]
    (sent,) = node.controller.sent
    assert sent == Replies("t", [parcel.message for parcel in parcels])
    assert [parcel.dones for parcel in parcels] == [0, 0, 0]
    node.controller.ack()
    assert [parcel.dones for parcel in parcels] == [1, 1, 1]
    node.loop.advance(TOGETHER_S)
    assert len(node.controller.sent) == 1


def test_those_that_are_ready_do_not_wait_long_for_a_slow_one(node: Node, engines: list[LocalEngine]) -> None:
    early = [answer(node, engine) for engine in engines[:2]]
    assert node.controller.sent == []
    node.loop.advance(TOGETHER_S)
    assert node.controller.sent == [Replies("t", [parcel.message for parcel in early])]
    late = answer(node, engines[2])
    assert node.controller.sent[1:] == [late.message]


def test_one_that_is_alone_leaves_as_it_came(node: Node, engines: list[LocalEngine]) -> None:
    parcel = answer(node, engines[1])
    node.loop.advance(TOGETHER_S)
    assert node.controller.raw == [parcel.raw]
    node.controller.ack()
    assert parcel.dones == 1


def test_a_message_does_not_grow_without_bound(node: Node, engines: list[LocalEngine]) -> None:
    large = [Reply("t", engine.id, Content(b"x" * (MOST_BYTES // 2))) for engine in engines]
    for engine, reply in zip(engines, large, strict=True):
        node.relay.on_reply(Parcel(engine.conversation, reply))
    assert node.controller.sent == [Replies("t", large[:2]), large[2]]
    node.loop.advance(TOGETHER_S)
    assert len(node.controller.sent) == 2


def test_a_reply_that_waits_leaves_before_the_news_of_its_engines_loss(
    staff: Staff,  # noqa: F811
    child: StartChild,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(together, "TOGETHER_S", 60.0)  # so that it is not the timer that lets it go
    process = child()
    staff.join(process, 0, 2, 2)
    staff.join(child(), 1, 2, 2)
    staff.number()
    staff.node.relay.on_run(Parcel(staff.controller, Run("t", "apply", [0, 1], [Content(b"abc")])))
    first = staff.members.of_rank(0)
    assert first is not None
    answer(staff.node, first)
    process.process.kill()
    staff.loop.until(lambda: any(isinstance(message, EngineLost) for message in staff.controller.sent))
    kinds = [type(m) for m in staff.controller.sent if isinstance(m, Reply | EngineLost)]
    assert kinds == [Reply, EngineLost]
