"""Requests go down, replies go up, and only the next owner's acknowledgement counts."""

from __future__ import annotations

import pytest

from agent.fakes import Node, Parcel, StartChild, Talk
from ippmpi.agent.members import LocalEngine
from ippmpi.agent.relay import RENEW_S
from ippmpi.errors import ProtocolError
from ippmpi.wire.messages import Content, ContentReady, Display, Failure, Held, Output, Published, Reply, Revoke, Run


@pytest.fixture
def engines(node: Node, child: StartChild) -> list[LocalEngine]:
    return [node.join(child(), rank) for rank in range(3)]


def test_a_request_goes_unchanged_to_its_engines_and_is_done_when_all_have_it(
    node: Node, engines: list[LocalEngine]
) -> None:
    run = Parcel(node.controller, Run("t", "apply", [0, 2], [Content(b"abc")]))
    node.relay.on_run(run)
    assert [engine.conversation.raw for engine in engines] == [[run.raw], [], [run.raw]]
    engines[0].conversation.ack()
    assert run.dones == 0
    engines[2].conversation.ack()
    assert run.dones == 1


@pytest.mark.parametrize("acknowledged", [False, True])
def test_the_loss_of_a_target_just_before_and_after_its_acknowledgement_ends_the_wait(
    node: Node, engines: list[LocalEngine], acknowledged: bool
) -> None:
    run = Parcel(node.controller, Run("t", "apply", [0, 1], [Content(b"abc")]))
    node.relay.on_run(run)
    engines[0].conversation.ack()
    if acknowledged:
        engines[1].conversation.ack()
    node.members.remove(engines[1])
    assert run.dones == 1
    engines[1].conversation.ack()
    assert run.dones == 1


def test_a_request_for_engines_that_are_gone_is_done_at_once_and_its_content_refused(node: Node) -> None:
    run = Parcel(node.controller, Run("t", "apply", [8], [Content(size=10, transfer=4)]))
    node.relay.on_run(run)
    assert (run.dones, node.controller.rejected) == (1, [4])


def test_each_engine_gets_only_its_own_content(node: Node, engines: list[LocalEngine]) -> None:
    run = Parcel(node.controller, Run("t", "push", [2, 0], [Content(b"two"), Content(b"zero")]))
    node.relay.on_run(run)
    assert engines[0].conversation.sent == [Run("t", "push", [0], [Content(b"zero")])]
    assert engines[1].conversation.sent == []
    assert engines[2].conversation.sent == [Run("t", "push", [2], [Content(b"two")])]


def test_the_header_of_a_large_request_goes_at_once_and_its_content_later(
    node: Node, engines: list[LocalEngine]
) -> None:
    run = Parcel(node.controller, Run("t", "push", [0, 1], [Content(size=4, transfer=9)]))
    later = Parcel(node.controller, Run("u", "apply", [0, 1], [Content(b"x")]))
    node.relay.on_run(run)
    node.relay.on_run(later)
    (header, second) = engines[0].conversation.sent
    assert (header.task, second.task) == ("t", "u")
    content = header.contents[0]
    assert content.size == 4
    assert engines[0].conversation.raw == engines[1].conversation.raw
    for engine in engines:
        engine.conversation.ack()
    assert (run.dones, later.dones) == (0, 1)
    sink, on_end = node.controller.accepted[9]
    sink.write(0, memoryview(b"data"))
    on_end(True)
    assert engines[1].conversation.sent[-1] == ContentReady(content.transfer)
    with open(content.path, "rb") as file:
        assert file.read() == b"data"
    for engine in engines:
        engine.conversation.ack()
    assert run.dones == 1


def test_separate_large_contents_have_separate_files_and_a_shared_one_is_pulled_once(
    node: Node, engines: list[LocalEngine]
) -> None:
    contents = [Content(size=1, transfer=1), Content(size=2, transfer=2), Content(size=1, transfer=1)]
    run = Parcel(node.controller, Run("t", "push", [0, 1, 2], contents))
    node.relay.on_run(run)
    paths = [engine.conversation.sent[0].contents[0].path for engine in engines]
    assert paths[0] == paths[2] != paths[1]
    assert set(node.controller.accepted) == {1, 2}
    for engine in engines:
        node.members.remove(engine)
    assert run.dones == 1
    assert sorted(node.controller.rejected) == [1, 2]


def test_a_request_whose_contents_do_not_fit_its_engines_is_refused(node: Node) -> None:
    with pytest.raises(ProtocolError, match="2 contents for 3 engines"):
        node.relay.on_run(Parcel(node.controller, Run("t", "push", [0, 1, 2], [Content(b"a"), Content(b"b")])))


def test_taking_back_goes_to_the_engines_it_names(node: Node, engines: list[LocalEngine]) -> None:
    revoke = Parcel(node.controller, Revoke("t", [1], interrupt=True))
    node.relay.on_revoke(revoke)
    assert [engine.conversation.sent for engine in engines] == [[], [revoke.message], []]
    engines[1].conversation.ack()
    assert revoke.dones == 1


def test_a_reply_goes_up_unchanged_and_is_done_when_the_controller_has_it(
    node: Node, engines: list[LocalEngine]
) -> None:
    reply = Parcel(engines[1].conversation, Reply("t", 1, Content(b"value")))
    node.relay.on_reply(reply)
    assert node.controller.raw == [reply.raw]
    assert reply.dones == 0
    node.controller.ack()
    assert reply.dones == 1


def test_output_leaves_before_the_reply_and_belongs_to_its_task(node: Node, child: StartChild) -> None:
    process = child()
    engine = node.join(process)
    for task in ("a", "b"):
        node.relay.on_run(Parcel(node.controller, Run(task, "apply", [0], [Content(b"x")])))
    process.print("from a")
    node.relay.on_reply(Parcel(engine.conversation, Reply("a", 0, Content())))
    process.print("from b", "err")
    node.relay.on_display(Parcel(engine.conversation, Display("b", 0, b"picture")))
    assert node.controller.sent == [
        Output("a", 0, "stdout", b"from a"),
        Reply("a", 0, Content()),
        Output("b", 0, "stderr", b"from b"),
        Display("b", 0, b"picture"),
    ]


def test_what_a_task_shows_is_passed_on(node: Node, engines: list[LocalEngine]) -> None:
    shown = Parcel(engines[1].conversation, Published("t", 1, {"step": b"x"}))
    node.relay.on_published(shown)
    assert node.controller.sent == [shown.message]
    node.controller.ack()
    assert shown.dones == 1


def test_a_large_reply_is_offered_until_the_controller_has_it(node: Node, child: StartChild) -> None:
    process = child()
    engine = node.join(process)
    process.do("f = os.memfd_create('x'); os.write(f, b'result'); os.dup2(f, 77)")
    reply = Parcel(engine.conversation, Reply("t", 0, Content(size=6, transfer=2, path=f"/proc/{process.pid}/fd/77")))
    node.relay.on_reply(reply)
    assert node.controller.sent == [Reply("t", 0, Content(size=6, transfer=1))]
    assert node.controller.offered[1].read(0, 6) == b"result"
    assert reply.dones == 0
    node.controller.ack()
    assert (reply.dones, node.controller.offered) == (1, {1: None})


def test_a_result_that_cannot_be_read_still_ends_its_task(node: Node, engines: list[LocalEngine]) -> None:
    pid = engines[1].ready.pid
    reply = Parcel(engines[1].conversation, Reply("t", 1, Content(size=6, path=f"/proc/{pid}/fd/999")))
    node.relay.on_reply(reply)
    (sent,) = node.controller.sent
    assert (sent.task, sent.content, sent.failure.kind, sent.failure.pid) == ("t", Content(), "EngineError", pid)
    node.controller.ack()
    assert reply.dones == 1


def test_strangers_and_those_who_speak_for_others_are_refused(node: Node, engines: list[LocalEngine]) -> None:
    with pytest.raises(ProtocolError, match="has not introduced itself"):
        node.relay.on_reply(Parcel(Talk("stranger"), Reply("t", 1, Content())))
    with pytest.raises(ProtocolError, match="speaks for engine 1"):
        node.relay.on_display(Parcel(engines[0].conversation, Display("t", 1, b"")))
    with pytest.raises(ProtocolError, match="speaks for engine 1"):
        node.relay.on_published(Parcel(engines[0].conversation, Published("t", 1, {})))
    assert node.controller.sent == []


def test_a_reply_is_named_to_a_new_controller_until_it_is_acknowledged(node: Node, child: StartChild) -> None:
    engine = node.join(child())
    engine.begin("a-1")
    assert engine.has() == [Held("a-1")]
    node.relay.on_reply(Parcel(engine.conversation, Reply("a-1", 0, Content(b"x", 1))))
    assert engine.has() == [Held("a-1")]
    node.controller.ack()
    assert engine.has() == []


def test_attempts_are_named_also_those_whose_failure_may_have_led_to_another(node: Node, child: StartChild) -> None:
    engine = node.join(child())
    failure = Failure("Oops", "it broke", kind="code")
    node.relay.on_run(Parcel(node.controller, Run("a-1", "apply", [0], [Content(b"x")], 1)))
    assert engine.has() == [Held("a-1", 1)]
    node.relay.on_reply(Parcel(engine.conversation, Reply("a-1", 0, Content(), failure, attempt=1)))
    assert engine.has() == [Held("a-1", 1)]
    node.controller.ack()
    assert engine.has() == [Held("a-1", 2, True)]
    node.relay.on_run(Parcel(node.controller, Run("a-1", "apply", [0], [Content(b"x")], 2)))
    assert engine.has() == [Held("a-1", 2)]


def test_a_reply_to_an_attempt_that_a_later_one_has_followed_ends_nothing_here(node: Node, child: StartChild) -> None:
    process = child()
    engine = node.join(process)
    for attempt in (1, 0):
        node.relay.on_run(Parcel(node.controller, Run("a", "apply", [0], [Content(b"x")], attempt)))
    node.relay.on_run(Parcel(node.controller, Run("b", "apply", [0], [Content(b"x")])))
    old = Parcel(engine.conversation, Reply("a", 0, Content(), Failure("Oops", "it has run", kind="code")))
    node.relay.on_reply(old)
    assert node.controller.sent == [old.message]
    assert engine.has() == [Held("a", 1), Held("b")]
    process.print("from a")
    node.relay.on_reply(Parcel(engine.conversation, Reply("a", 0, Content(), attempt=1)))
    assert node.controller.of(Output) == [Output("a", 0, "stdout", b"from a")]
    node.controller.ack()
    node.relay.on_reply(Parcel(engine.conversation, old.message))
    assert engine.has() == [Held("b")]


def large(node: Node, transfer: int) -> None:
    node.relay.on_run(Parcel(node.controller, Run("a-1", "push", [0], [Content(size=10, transfer=transfer)])))


def test_a_content_that_a_restarted_controller_lost_is_fetched_again(node: Node, child: StartChild) -> None:
    engine = node.join(child())
    large(node, 5)
    assert engine.has() == [Held("a-1", 0, True)]
    node.controller.lost[5]()
    assert engine.conversation.of(ContentReady) == []
    large(node, 1)
    node.controller.accepted[1][0].write(0, memoryview(b"0123456789"))
    node.controller.accepted[1][1](True)
    first, second = engine.conversation.of(Run)
    (ready,) = engine.conversation.of(ContentReady)
    assert ready == ContentReady(second.contents[0].transfer)
    assert first.contents[0].transfer != ready.transfer
    node.loop.advance(RENEW_S + 1)
    assert len(engine.conversation.of(ContentReady)) == 1
    engine.conversation.ack()
    assert engine.has() == [Held("a-1")]
    assert engine.waiting == set()


def test_a_content_that_never_comes_again_fails(node: Node, child: StartChild) -> None:
    engine = node.join(child())
    large(node, 5)
    node.controller.lost[5]()
    node.loop.advance(RENEW_S + 1)
    (ready,) = engine.conversation.of(ContentReady)
    assert ready.failed
    engine.conversation.ack()
