"""The glue, with real conversations and a real spool, and a brain that follows the test's script."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from controller.fakes import Brain, Bytes, Caching, FakeLoop, Pair, Post, Records
from ippmpi.controller.absences import Patience
from ippmpi.controller.contents import REPEAT_S
from ippmpi.controller.controller import HUNG_S, Controller
from ippmpi.core.effects import Effect, Keep, Release, Replay, Send, Stop
from ippmpi.core.restoring import Past, PastTask
from ippmpi.errors import ProtocolError
from ippmpi.handed import HandedFile, take, write
from ippmpi.ids import Peer, TaskId
from ippmpi.net.conversation import Conversation, Delivery
from ippmpi.store.spool import Spool
from ippmpi.wire.messages import (
    Abort,
    Answer,
    Content,
    Deliver,
    EngineLost,
    EngineRecord,
    EnginesChanged,
    Farewell,
    Message,
    Query,
    RegisterEngines,
    Replies,
    Reply,
    Run,
    SendSignal,
    StillWaiting,
    StopEngines,
    Submit,
)

CLIENT, AGENT = Peer("client:ab12"), Peer("agent:w@host")
TASK = TaskId("ab12-1")
BIG = os.urandom(3_000_000)


class Scene:
    """A controller with one client and one agent."""

    def __init__(self, folder: Path, spool_bytes: int = 10_000_000, *, away_bytes: int = 16 << 20) -> None:
        self.loop, self.brain, self.records, self.post = FakeLoop(), Brain(), Records(), Post()
        self.spool, self.caching = Spool(folder, spool_bytes), Caching()
        self.ends = 0
        patience = Patience(away_bytes=away_bytes)
        self.controller = Controller(
            self.loop, self.brain, self.records, self.spool, self.caching, patience=patience, on_end=self._on_end
        )
        self.controller.attach(self.post)
        self.client = self.post.add(Pair(CLIENT, "client"))
        self.agent = self.post.add(Pair(AGENT, "agent"))

    def _on_end(self) -> None:
        self.ends += 1

    def on(self, kind: object, answer: Callable[..., list[Effect]]) -> None:
        self.brain.script[kind] = answer

    def pump(self) -> None:
        self.post.pump(self.loop, self.controller)

    def submit(self, *contents: Content) -> Submit:
        """Let the client submit a task; the brain keeps it and runs it on the agent's engine 0."""
        self.on(Submit, lambda peer, m: [Keep(m.task, m), Send(AGENT, Run(m.task, m.op, [0], m.contents))])
        message = Submit(TASK, "push", [0], list(contents))
        self.client.say(message)
        self.pump()
        return message

    def offer(self, pair: Pair, data: bytes = BIG, available: int | None = None) -> tuple[Content, Bytes]:
        source = Bytes(data[:available], len(data))
        return Content(size=len(data), transfer=pair.far.offer(source)), source

    def pull(self, pair: Pair, content: Content) -> tuple[Bytes, list[bool]]:
        """Let the peer pull a content that it was told of."""
        sink, ends = Bytes(size=content.size), []
        pair.far.accept(content.transfer, sink, ends.append)
        self.pump()
        return sink, ends


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.spool.close()


def only(deliveries: list[Delivery]) -> Message:
    (delivery,) = deliveries
    return delivery.message


# --- acknowledgement -----------------------------------------------------------------------------


def test_a_request_is_acknowledged_when_it_is_in_the_store(scene: Scene) -> None:
    message = scene.submit(Content(b"blob", 4))
    assert only(scene.agent.got) == Run(TASK, "push", [0], message.contents)
    assert scene.client.acked == []
    scene.records.commit()
    scene.pump()
    assert scene.client.acked == [message]
    assert [k.task for k in scene.records.kept] == [TASK]


def test_what_needs_no_keeping_is_acknowledged_at_once(scene: Scene) -> None:
    scene.on(Query, lambda peer, m: [Send(peer, Answer(m.request, b"\x01"))])
    scene.client.say(Query(3, "status"))
    scene.pump()
    assert scene.client.acked == [Query(3, "status")]
    assert only(scene.client.got) == Answer(3, b"\x01")


def test_a_message_that_ends_several_tasks_waits_for_all_their_records(scene: Scene) -> None:
    replies = [Reply(f"ab12-{n}", 0, Content()) for n in range(3)]
    scene.on(EngineLost, lambda peer, m: [Keep(TaskId(r.task), r) for r in replies])
    scene.agent.say(EngineLost("w", 0, "killed"))
    scene.pump()
    assert scene.agent.acked == []
    scene.records.commit()
    scene.pump()
    assert len(scene.agent.acked) == 1


@pytest.mark.parametrize("error", [ProtocolError("no such thing"), KeyError("a bug of ours")])
def test_a_message_that_the_hub_refuses_is_dropped_and_acknowledged(
    scene: Scene, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> list[Effect]:
        raise error

    content, _ = scene.offer(scene.client)
    scene.on(Submit, refuse)
    scene.client.say(Submit(TASK, "push", [0], [content]))
    scene.pump()
    assert len(scene.client.acked) == 1
    assert "dropped a Submit of client:ab12" in caplog.text
    assert len(scene.spool) == 0
    scene.submit(Content(b"x", 1))  # it serves on
    assert len(scene.agent.got) == 1


def test_a_peer_cannot_fill_the_log(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(*_: object) -> list[Effect]:
        raise ProtocolError("no")

    scene.on(Query, refuse)
    for number in range(200):
        scene.client.say(Query(number, "x"))
    scene.pump()
    assert len(scene.client.acked) == 200
    assert len(caplog.records) <= 21


# --- large contents ------------------------------------------------------------------------------


def test_a_content_goes_through_the_spool_to_the_agent(scene: Scene) -> None:
    content, _ = scene.offer(scene.client)
    message = scene.submit(content)
    run = only(scene.agent.got)
    assert isinstance(run, Run)
    sink, ends = scene.pull(scene.agent, run.contents[0])
    assert (bytes(sink.data), ends) == (BIG, [True])
    scene.records.commit()
    scene.pump()
    assert scene.client.acked == [message]
    # the hub lets go when the task has ended, the agent acknowledges when its engines have it
    scene.on(Abort, lambda peer, m: [Release(c) for c in scene.brain.heard(Submit)[0][1].contents])
    scene.client.say(Abort(1))
    scene.pump()
    assert len(scene.spool) == 1
    scene.agent.got[0].done()
    scene.pump()
    assert len(scene.spool) == 0


def test_a_request_is_not_acknowledged_before_its_content_is_here(scene: Scene) -> None:
    content, source = scene.offer(scene.client, available=1_000_000)
    scene.submit(content)
    assert scene.records.kept == []  # what is stored is whole
    source.data += BIG[1_000_000:]
    scene.client.far.more(content.transfer)
    scene.pump()
    assert scene.client.acked == []
    scene.records.commit()
    scene.pump()
    assert len(scene.client.acked) == 1


def test_a_content_is_passed_on_while_it_still_arrives(scene: Scene) -> None:
    content, source = scene.offer(scene.client, available=1_000_000)
    scene.submit(content)
    run = only(scene.agent.got)
    assert isinstance(run, Run)
    sink, ends = scene.pull(scene.agent, run.contents[0])
    assert bytes(sink.data) == BIG[:1_000_000]
    source.data += BIG[1_000_000:]
    scene.client.far.more(content.transfer)
    scene.pump()
    assert (bytes(sink.data), ends) == (BIG, [True])


def test_several_nodes_pull_one_content(scene: Scene) -> None:
    other = scene.post.add(Pair("agent:w@other", "agent"))
    content, _ = scene.offer(scene.client)
    scene.on(
        Submit,
        lambda peer, m: [Send(Peer(a), Run(m.task, m.op, [0], m.contents)) for a in (AGENT, other.near.name)],
    )
    scene.client.say(Submit(TASK, "push", [0, 1], [content]))
    scene.pump()
    for pair in (scene.agent, other):
        run = only(pair.got)
        assert isinstance(run, Run)
        assert bytes(scene.pull(pair, run.contents[0])[0].data) == BIG
    assert len(scene.spool) == 1


def test_a_reply_s_content_is_freed_when_the_client_has_it(scene: Scene) -> None:
    content, _ = scene.offer(scene.agent)
    scene.on(Reply, lambda peer, m: [Keep(TaskId(m.task), m), Send(CLIENT, m)])
    scene.agent.say(Reply(TASK, 0, content))
    scene.pump()
    reply = only(scene.client.got)
    assert isinstance(reply, Reply)
    sink, _ = scene.pull(scene.client, reply.content)
    assert bytes(sink.data) == BIG
    assert len(scene.spool) == 1
    scene.client.got[0].done()
    scene.pump()
    assert len(scene.spool) == 0
    assert scene.agent.acked == []  # that is the store's business
    scene.records.commit()
    scene.pump()
    assert len(scene.agent.acked) == 1


def break_off(scene: Scene) -> None:
    """Let the agent die; another one takes its place."""
    scene.agent.near.session.restart()
    scene.agent.near.transfers.lose_incoming()
    scene.agent.far = Conversation("controller", "controller", lambda _: None)
    scene.agent.connect()


def interrupted_reply(scene: Scene) -> Reply:
    """Let the agent die in the middle of a reply's content that the client pulls already."""
    content, _ = scene.offer(scene.agent, available=1_500_000)
    scene.on(Reply, lambda peer, m: [Keep(TaskId(m.task), m), Send(CLIENT, m)] if m.content.transfer else [])
    scene.agent.say(Reply(TASK, 0, content))
    scene.pump()
    break_off(scene)
    reply = only(scene.client.got)
    assert isinstance(reply, Reply)
    return reply


def test_a_reply_s_content_goes_on_when_its_engine_sends_it_again_by_another_agent(scene: Scene) -> None:
    reply = interrupted_reply(scene)
    sink, ends = scene.pull(scene.client, reply.content)
    assert len(sink.data) == 1_500_000
    content, _ = scene.offer(scene.agent)
    scene.agent.say(Reply(TASK, 0, content))
    scene.pump()
    assert bytes(sink.data) == BIG
    assert ends == [True]
    assert scene.agent.acked == []  # nobody else has it yet
    assert [k.task for k in scene.records.kept] == [TASK]
    scene.records.commit()
    scene.pump()
    assert len(scene.agent.acked) == 1
    assert len(scene.client.got) == 1
    scene.loop.pass_time(100.0)
    assert len(scene.spool) == 1
    scene.client.got[0].done()
    scene.pump()
    assert len(scene.spool) == 0


def test_a_reply_s_content_that_does_not_come_again_fails(scene: Scene) -> None:
    reply = interrupted_reply(scene)
    _, ends = scene.pull(scene.client, reply.content)
    scene.loop.pass_time(REPEAT_S + 0.1)
    scene.pump()
    assert ends == [False]
    assert len(scene.spool) == 0


def test_a_reply_s_content_has_its_whole_time_after_each_break(scene: Scene) -> None:
    reply = interrupted_reply(scene)
    _, ends = scene.pull(scene.client, reply.content)
    scene.loop.pass_time(REPEAT_S - 1.0)
    content, _ = scene.offer(scene.agent, available=2_000_000)
    scene.agent.say(Reply(TASK, 0, content))
    scene.pump()
    break_off(scene)
    scene.loop.pass_time(2.0)
    scene.pump()
    assert ends == []
    scene.loop.pass_time(REPEAT_S)
    scene.pump()
    assert ends == [False]


def test_a_reply_s_content_fails_at_once_when_its_engine_is_lost_too(scene: Scene) -> None:
    reply = interrupted_reply(scene)
    _, ends = scene.pull(scene.client, reply.content)
    scene.on(EngineLost, lambda peer, m: [Keep(TaskId(""), EnginesChanged([], [0], ["killed"]))])
    scene.agent.say(EngineLost("w", 0, "killed"))
    scene.pump()
    assert ends == [False]
    assert len(scene.spool) == 0


@pytest.mark.parametrize("message", [Reply(TASK, 0, Content()), Replies(TASK, [Reply(TASK, 0, Content())])])
def test_what_comes_twice_is_not_acknowledged_before_the_first_one_is_in_the_store(
    scene: Scene, message: Message
) -> None:
    scene.on(type(message), lambda peer, m: [Keep(TASK, m)])
    scene.agent.say(message)
    scene.pump()
    break_off(scene)
    scene.on(type(message), lambda peer, m: [])
    scene.agent.say(message)
    scene.pump()
    assert scene.agent.acked == []
    scene.records.commit()
    scene.pump()
    assert scene.agent.acked == [message]


JOINED = EnginesChanged([EngineRecord(0, 0, "w", "h", 7)], [], [])


def test_the_hub_goes_on_with_new_engines_when_the_store_has_them(scene: Scene) -> None:
    scene.on(RegisterEngines, lambda peer, m: [Keep(TaskId(""), JOINED)])
    scene.agent.say(RegisterEngines("w", 1, JOINED.joined))
    scene.pump()
    assert scene.brain.heard("stored") == []
    scene.records.commit()
    scene.pump()
    assert scene.brain.heard("stored") == [[JOINED]]
    assert len(scene.agent.acked) == 1


def test_new_engines_do_not_wait_for_a_disk_that_hangs(scene: Scene) -> None:
    scene.on(RegisterEngines, lambda peer, m: [Keep(TaskId(""), JOINED)])
    scene.agent.say(RegisterEngines("w", 1, JOINED.joined))
    scene.pump()
    scene.loop.pass_time(HUNG_S)
    scene.pump()
    assert scene.brain.heard("stored") == [[JOINED]]
    assert scene.agent.acked == []


def test_a_reply_without_a_receiver_frees_its_content(scene: Scene) -> None:
    content, _ = scene.offer(scene.agent)
    scene.on(Reply, lambda peer, m: [Send(Peer("client:gone"), m)])
    scene.agent.say(Reply(TASK, 0, content))
    scene.pump()
    assert len(scene.spool) == 0
    assert len(scene.agent.acked) == 1


def test_an_aborted_upload_is_stopped_and_acknowledged(scene: Scene) -> None:
    content, _ = scene.offer(scene.client, available=1_000_000)
    scene.on(Submit, lambda peer, m: [])
    scene.client.say(Submit(TASK, "push", [0], [content]))
    scene.pump()
    assert scene.client.acked == []
    scene.on(Abort, lambda peer, m: [Release(c) for c in scene.brain.heard(Submit)[0][1].contents])
    scene.client.say(Abort(1))
    scene.pump()
    assert len(scene.client.acked) == 2
    assert len(scene.spool) == 0
    assert not scene.client.far.transfers.active


def test_a_content_whose_sender_fails_fails_for_everybody(scene: Scene) -> None:
    content, _ = scene.offer(scene.client, available=1_000_000)
    scene.submit(content)
    run = only(scene.agent.got)
    assert isinstance(run, Run)
    _, ends = scene.pull(scene.agent, run.contents[0])
    scene.client.far.fail(content.transfer)
    scene.pump()
    scene.records.commit()
    scene.pump()
    assert ends == [False]
    ((task, failed, why),) = scene.brain.heard("content_failed")
    assert (task, failed) == (TASK, Content(size=len(BIG), transfer=1))
    assert "cannot send the rest" in str(why)
    assert len(scene.client.acked) == 1
    assert len(scene.spool) == 0


def test_what_the_spool_cannot_take_fails_with_the_reason(scene: Scene) -> None:
    content = Content(size=20_000_000, transfer=scene.client.far.offer(Bytes(b"", 20_000_000)))
    scene.submit(content)
    scene.records.commit()
    scene.pump()
    ((task, _, why),) = scene.brain.heard("content_failed")
    assert task == TASK
    assert "spool_bytes" in str(why)
    assert len(scene.client.acked) == 1
    run = only(scene.agent.got)  # told in the same breath; what it pulls fails
    assert isinstance(run, Run)
    assert scene.pull(scene.agent, run.contents[0])[1] == [False]


def test_a_full_disk_fails_the_content_not_the_controller(scene: Scene) -> None:
    content, source = scene.offer(scene.client, available=1_000_000)
    scene.submit(content)
    (file,) = scene.spool._files
    full = os.open("/dev/full", os.O_RDWR)
    os.dup2(full, file._fd)
    os.close(full)
    source.data += BIG[1_000_000:]
    scene.client.far.more(content.transfer)
    scene.pump()
    scene.records.commit()
    scene.pump()
    ((_, _, why),) = scene.brain.heard("content_failed")
    assert "No space left" in str(why)
    assert len(scene.client.acked) == 1
    assert len(scene.spool) == 0


@pytest.mark.parametrize(
    "contents",
    [
        [Content(size=0, transfer=1)],
        [Content(size=-5, transfer=1)],
        [Content(size=1 << 60, transfer=1)],
        [Content(size=5, transfer=-1)],
        [Content(size=5, transfer=1), Content(size=5, transfer=1)],
    ],
)
def test_sizes_and_numbers_that_cannot_be_are_refused(scene: Scene, contents: list[Content]) -> None:
    scene.client.say(Submit(TASK, "push", [0], contents))
    scene.pump()
    assert scene.brain.heard(Submit) == []
    assert len(scene.client.acked) == 1


def test_a_number_that_is_under_way_does_not_disturb_the_first(scene: Scene) -> None:
    content, source = scene.offer(scene.client, available=1_000_000)
    scene.submit(content)
    scene.submit(content)
    assert len(scene.brain.heard("content_failed")) == 1
    source.data += BIG[1_000_000:]
    scene.client.far.more(content.transfer)
    scene.pump()
    run = scene.agent.got[0].message
    assert isinstance(run, Run)
    assert bytes(scene.pull(scene.agent, run.contents[0])[0].data) == BIG


# --- peers come and go ---------------------------------------------------------------------------


def test_the_hub_hears_of_peers(scene: Scene) -> None:
    scene.client.near.about = {"user": "ann"}
    scene.controller.on_peer(scene.client.near, True)
    scene.controller.on_peer(scene.client.near, False)
    assert scene.brain.heard("connected") == [[CLIENT, {"user": "ann"}]]
    assert scene.brain.heard("disconnected") == [[CLIENT]]


def test_an_agent_that_stays_away_is_gone_after_12_s(scene: Scene) -> None:
    content, _ = scene.offer(scene.client)
    scene.submit(content)
    scene.controller.on_peer(scene.agent.near, False)
    scene.loop.pass_time(11.9)
    assert scene.brain.heard("gone") == []
    scene.loop.pass_time(0.2)
    ((peer, reason),) = scene.brain.heard("gone")
    assert (peer, "12 s" in str(reason)) == (AGENT, True)
    assert scene.post.forgotten == [AGENT]


def test_the_silence_before_an_agent_s_connection_was_given_up_counts(scene: Scene) -> None:
    scene.agent.near.heard = scene.loop.now - 8.0
    scene.controller.on_peer(scene.agent.near, False)
    scene.loop.pass_time(3.9)
    assert scene.brain.heard("gone") == []
    scene.loop.pass_time(0.2)
    ((_, reason),) = scene.brain.heard("gone")
    assert "12 s" in str(reason)


def test_an_agent_has_time_to_come_back_however_long_it_was_silent(scene: Scene) -> None:
    scene.agent.near.heard = scene.loop.now - 600.0
    scene.controller.on_peer(scene.agent.near, False)
    scene.loop.pass_time(3.9)
    assert scene.brain.heard("gone") == []


def test_an_agent_that_comes_back_is_not_gone(scene: Scene) -> None:
    scene.controller.on_peer(scene.agent.near, False)
    scene.loop.pass_time(10)
    scene.controller.on_peer(scene.agent.near, True)
    scene.loop.pass_time(100)
    assert scene.brain.heard("gone") == []


def test_a_sleeping_client_keeps_its_work_for_a_week_but_not_half_an_upload(scene: Scene) -> None:
    content, _ = scene.offer(scene.client, available=1000)
    scene.submit(content)
    scene.controller.on_peer(scene.client.near, False)
    scene.loop.pass_time(31)
    ((task, _, why),) = scene.brain.heard("content_failed")
    assert (task, "30 s" in str(why)) == (TASK, True)
    assert scene.brain.heard("gone") == []
    scene.loop.pass_time(7 * 86400)
    assert [peer for peer, _ in scene.brain.heard("gone")] == [CLIENT]


def test_what_a_gone_client_was_to_get_is_freed(scene: Scene) -> None:
    content, _ = scene.offer(scene.agent)
    scene.on(Reply, lambda peer, m: [Keep(TaskId(m.task), m), Send(CLIENT, m)])
    scene.agent.say(Reply(TASK, 0, content))
    scene.pump()
    assert len(scene.spool) == 1
    scene.controller.on_peer(scene.client.near, False)
    scene.loop.pass_time(7 * 86400 + 1)
    assert len(scene.spool) == 0


def test_a_client_that_said_farewell_is_forgotten_soon(scene: Scene) -> None:
    scene.client.say(Farewell())
    scene.pump()
    assert scene.client.acked == [Farewell()]
    assert scene.post.forgotten == []
    scene.loop.pass_time(6)
    assert scene.post.forgotten == [CLIENT]


def test_a_signal_overtakes_what_waits_in_the_link(scene: Scene) -> None:
    scene.on(
        SendSignal, lambda peer, m: [Send(AGENT, Run(TASK, "push", [0], [Content()])), Send(AGENT, Deliver([0], 2))]
    )
    scene.client.say(SendSignal(1, 2))
    scene.pump()
    assert [type(d.message) for d in scene.agent.got] == [Deliver, Run]


# --- time ----------------------------------------------------------------------------------------


def test_the_hub_is_told_the_time_before_a_message_and_at_its_deadline(scene: Scene) -> None:
    def later(*_: object) -> list[Effect]:
        scene.brain.deadline = scene.loop.now + 5
        return []

    def passed(now: float) -> list[Effect]:
        if scene.brain.deadline is not None and now >= scene.brain.deadline:
            scene.brain.deadline = None
        return []

    scene.on(Query, later)
    scene.on("tick", passed)
    scene.client.say(Query(1, "x"))
    scene.pump()
    assert scene.brain.calls[0] == ("tick", 100.0)
    scene.loop.pass_time(60)
    assert scene.brain.heard("tick") == [[100.0], [105.0]]
    assert scene.loop.alarms == []


def test_an_idle_controller_has_no_alarm(scene: Scene) -> None:
    scene.client.say(Query(1, "x"))
    scene.pump()
    assert scene.loop.alarms == []


# --- the end -------------------------------------------------------------------------------------


def test_a_stop_waits_for_the_engines(scene: Scene) -> None:
    scene.brain.engine_count = 2

    def lost(*_: object) -> list[Effect]:
        scene.brain.engine_count -= 1
        return []

    scene.on(EngineLost, lost)
    scene.controller.stop("SIGTERM")
    scene.pump()
    assert only(scene.agent.got) == StopEngines(None)
    scene.agent.say(EngineLost("w", 0, "stopped", True))
    scene.pump()
    assert scene.ends == 0
    scene.agent.say(EngineLost("w", 1, "stopped", True))
    scene.pump()
    assert scene.ends == 1
    scene.loop.pass_time(60)
    assert scene.ends == 1


def test_a_stop_without_engines_ends_at_once(scene: Scene) -> None:
    scene.controller.stop("SIGTERM")
    scene.loop.run()
    assert scene.ends == 1


def test_a_stop_does_not_wait_for_ever(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.brain.engine_count = 1
    scene.controller.stop("SIGTERM")
    scene.loop.pass_time(7.9)
    assert scene.ends == 0
    scene.loop.pass_time(0.2)
    assert scene.ends == 1
    assert "1 engines did not end within 8 s" in caplog.text


def test_the_second_stop_is_at_once(scene: Scene) -> None:
    scene.brain.engine_count = 1
    scene.controller.stop("SIGINT")
    scene.controller.stop("SIGINT")
    assert scene.ends == 1


def test_the_hub_can_stop_the_controller(scene: Scene) -> None:
    scene.on(Query, lambda peer, m: [Send(peer, Answer(m.request)), Stop("asked to")])
    scene.client.say(Query(1, "x"))
    scene.pump()
    assert only(scene.client.got) == Answer(1)
    assert scene.ends == 1


# --- after a restart ---


def test_a_value_in_the_spool_is_sent_again_after_a_restart(scene: Scene) -> None:
    file = scene.spool.create(5, len(BIG))
    file.write(0, memoryview(BIG))
    scene.spool.create(6, 10)  # was still arriving
    value = Reply(TASK, 0, Content(size=len(BIG), transfer=5))
    again = Scene(scene.spool.folder)
    again.records.kept.append(Keep(TASK, value))
    again.controller.restore(Past(spooled=[value]))
    assert [path.name for path in scene.spool.folder.iterdir()] == ["content-5"]
    again.on(StillWaiting, lambda peer, _: [Replay(peer, TASK, [0, 1])])
    again.client.say(StillWaiting([]))
    again.pump()
    found, lost = (mail.message for mail in again.client.got)
    sink, ends = again.pull(again.client, found.content)
    assert (bytes(sink.data), ends) == (BIG, [True])
    assert (lost.engine, lost.failure.kind) == (1, "ResultNotKept")


def test_a_value_that_has_left_the_spool_is_said_to_be_gone_after_a_restart(scene: Scene) -> None:
    scene.records.kept.append(Keep(TASK, Reply(TASK, 0, Content(size=len(BIG), transfer=5))))
    scene.controller.restore(Past())
    scene.on(StillWaiting, lambda peer, _: [Replay(peer, TASK, [0])])
    scene.client.say(StillWaiting([]))
    scene.pump()
    lost = only(scene.client.got)
    assert isinstance(lost, Reply)
    assert lost.failure is not None
    assert lost.failure.kind == "ResultNotKept"


def test_those_who_were_there_are_waited_for_after_a_restart(scene: Scene) -> None:
    past = Past(
        [EngineRecord(0, 0, "w", "far", 7)],
        [PastTask("ee-1", Peer("client:ee"), {}, Submit("ee-1", "apply", [0], [Content(b"x", 1)]))],
    )
    scene.controller.restore(past)
    assert scene.brain.heard("restore") == [[past]]
    assert {"agent:w@far", "client:ee"} <= scene.post.pairs.keys()
    scene.loop.pass_time(Patience().agent_s + 1)
    ((peer, why),) = scene.brain.heard("gone")
    assert peer == "agent:w@far"
    assert "out of reach for 12 s" in str(why)


# --- contents that are handed over as files ------------------------------------------------------


class Placing(Bytes):
    """A source with a file, which has room for *room* bytes; ``sent``: bytes that went by wire."""

    def __init__(self, file: HandedFile, room: int = len(BIG)) -> None:
        super().__init__(BIG)
        self.file, self.room, self.sent = file, room, 0

    def place(self, start: int, stop: int) -> None:
        if stop > self.room:
            raise OSError("full")
        write(self.file.fd, [BIG[start:stop]], start)

    def read(self, start: int, stop: int) -> bytes:
        self.sent += stop - start
        return super().read(start, stop)


class Reading(Bytes):
    """A sink that reads the controller's file at *path*."""

    def __init__(self, content: Content) -> None:
        super().__init__(size=content.size)
        self.fd = take(content.path, content.size, os.getpid())

    def placed(self, offset: int, count: int) -> None:
        self.write(offset, memoryview(os.pread(self.fd, count, offset)))


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HandedFile]:
    monkeypatch.setattr("ippmpi.net.transfers.PLACED_BYTES", len(BIG) // 3)
    file = HandedFile(str(tmp_path), len(BIG))
    yield file
    file.close()


def handing(pair: Pair, source: Placing) -> Content:
    return Content(size=len(BIG), transfer=pair.far.offer(source), path=source.file.path)


def run_content(scene: Scene) -> Content:
    run = only(scene.agent.got)
    assert isinstance(run, Run)
    return run.contents[0]


def read_all(scene: Scene, pair: Pair, content: Content) -> bytes:
    sink, ends = Reading(content), []
    pair.far.accept(content.transfer, sink, ends.append)
    scene.pump()
    os.close(sink.fd)
    assert ends == [True]
    return bytes(sink.data)


def test_a_content_put_into_its_givers_file_is_the_spool_s_own_and_is_handed_on(scene: Scene, file: HandedFile) -> None:
    scene.client.local(os.getpid())
    scene.agent.local(os.getpid())
    scene.client.chunks = 1
    source = Placing(file)
    message = scene.submit(handing(scene.client, source))
    (stored,) = scene.spool.folder.glob("content-*")
    assert stored.stat().st_size > 0
    assert not scene.records.kept, "what is stored is whole"
    scene.client.chunks = 1000
    scene.pump()
    scene.records.commit()
    scene.pump()
    assert scene.client.acked == [message]
    file.close()  # as a client that was killed would
    assert read_all(scene, scene.agent, run_content(scene)) == BIG
    assert stored.read_bytes() == BIG
    sink, ends = scene.pull(scene.agent, run_content(scene))  # it may be pulled as well
    assert (bytes(sink.data), ends, source.sent) == (BIG, [True], 0)


def test_a_content_is_read_from_the_spool_while_it_still_comes(scene: Scene, file: HandedFile) -> None:
    scene.client.local(os.getpid())
    scene.agent.local(os.getpid())
    scene.client.chunks = 1
    scene.submit(handing(scene.client, Placing(file)))
    content = run_content(scene)
    sink = Reading(content)
    scene.agent.far.accept(content.transfer, sink, lambda _: None)
    scene.pump()
    assert 0 < len(sink.data) < len(BIG)
    scene.client.chunks = 1000
    scene.pump()
    assert sink.data == BIG
    os.close(sink.fd)


def test_a_peer_on_another_host_pulls_what_was_handed_over(scene: Scene, file: HandedFile) -> None:
    scene.client.local(os.getpid())
    scene.submit(handing(scene.client, Placing(file)))
    content = run_content(scene)
    assert content.path == ""
    sink, ends = scene.pull(scene.agent, content)
    assert (bytes(sink.data), ends) == (BIG, [True])


def test_a_peer_on_this_host_reads_what_came_by_wire(scene: Scene) -> None:
    scene.agent.local(os.getpid())
    content, _ = scene.offer(scene.client)
    scene.submit(content)
    assert read_all(scene, scene.agent, run_content(scene)) == BIG


@pytest.mark.parametrize("what", ["remote", "dead", "other", "elsewhere", "full"])
def test_what_cannot_be_taken_over_arrives_all_the_same(scene: Scene, file: HandedFile, what: str) -> None:
    """A path from another host, of a process that has died, of another one, on another file system; a full disk."""
    scene.client.local({"remote": 0, "other": os.getppid()}.get(what, os.getpid()))
    source = Placing(file, 2_000_000 if what == "full" else len(BIG))
    content = handing(scene.client, source)
    if what == "dead":
        file.close()
    if what == "elsewhere":
        os.close(file.detach())
        file.fd = os.memfd_create("x")
        content = msgspec.structs.replace(content, path=file.path)
    scene.submit(content)
    sink, ends = scene.pull(scene.agent, run_content(scene))
    assert (bytes(sink.data), ends) == (BIG, [True])
    assert source.sent == {"elsewhere": 0, "full": len(BIG) - 2_000_000}.get(what, len(BIG))
    assert len(scene.spool) == 1


def test_a_content_without_room_in_the_spool_fails_whoever_has_it_in_a_file(tmp_path: Path, file: HandedFile) -> None:
    scene = Scene(tmp_path / "small", 1_000_000)
    scene.client.local(os.getpid())
    scene.submit(handing(scene.client, Placing(file)))
    ((_, _, why),) = scene.brain.heard("content_failed")
    assert "at most 1000000 bytes" in str(why)
    assert not list((tmp_path / "small").iterdir())


@pytest.mark.parametrize("again", ["same", "new", "wire"])
def test_the_rest_of_a_result_comes_from_another_agent_of_its_engine(
    scene: Scene, file: HandedFile, tmp_path: Path, again: str
) -> None:
    """The engine's file is the spool's already, or it has another one now, or the new agent cannot hand it on."""
    scene.agent.local(os.getpid())
    scene.on(Reply, lambda peer, m: [Keep(TaskId(m.task), m), Send(CLIENT, m)])
    scene.agent.chunks = 1
    scene.agent.say(Reply(TASK, 0, handing(scene.agent, Placing(file))))
    scene.pump()
    reply = only(scene.client.got)
    assert isinstance(reply, Reply)
    scene.agent.near.open_control(scene.agent.near.control, known=False, received=0)  # another process
    scene.agent = scene.post.add(Pair(AGENT, "agent"))
    scene.agent.local(os.getpid())
    other = HandedFile(str(tmp_path), len(BIG)) if again == "new" else file
    content = handing(scene.agent, Placing(other))
    if again == "wire":
        content = msgspec.structs.replace(content, path="")
    scene.on(Reply, lambda peer, m: [])
    scene.agent.say(Reply(TASK, 0, content))
    sink, ends = scene.pull(scene.client, reply.content)
    assert (bytes(sink.data), ends) == (BIG, [True])
    assert len(scene.spool) == 1
    other.close()


def test_a_result_that_was_handed_over_is_restored(scene: Scene, file: HandedFile) -> None:
    scene.agent.local(os.getpid())
    scene.on(Reply, lambda peer, m: [Keep(TaskId(m.task), m), Send(CLIENT, m)])
    scene.agent.say(Reply(TASK, 0, handing(scene.agent, Placing(file))))
    scene.pump()
    stored = scene.records.kept[0].message
    assert isinstance(stored, Reply)
    assert stored.content.path == ""
    again = Scene(scene.spool.folder)
    again.records.kept.append(Keep(TASK, stored))
    again.controller.restore(Past(spooled=[stored]))
    again.on(StillWaiting, lambda peer, _: [Replay(peer, TASK, [0])])
    again.client.local(os.getpid())
    again.client.say(StillWaiting([]))
    again.pump()
    found = only(again.client.got)
    assert isinstance(found, Reply)
    assert read_all(again, again.client, found.content) == BIG


def test_what_an_earlier_controller_took_over_is_copied_by_the_next_one(scene: Scene, file: HandedFile) -> None:
    scene.client.local(os.getpid())
    scene.client.chunks = 1
    scene.submit(handing(scene.client, Placing(file)))
    again = Scene(scene.spool.folder)
    again.controller.restore(Past())
    again.client.local(os.getpid())
    source = Placing(file)
    again.submit(handing(again.client, source))
    sink, ends = again.pull(again.agent, run_content(again))
    assert (bytes(sink.data), ends, source.sent) == (BIG, [True], 0)
    again.spool.close()
