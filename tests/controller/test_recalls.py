"""Cached results on their way through the controller: small ones as they are, large ones by way of the spool."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from controller.test_controller import BIG, CLIENT, TASK, Scene
from ippmpi.core.effects import Cached, Consult, Effect, Found, Keep, Recall, Remember, Send
from ippmpi.ids import TaskId
from ippmpi.store.cachefile import Value
from ippmpi.wire.messages import Answer, CacheKey, Content, Placement, Query, Reply, Submit

KEY = CacheKey("aa", "f")
OTHER = TaskId("ab12-2")


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    scene.on(Submit, lambda peer, m: [Keep(m.task, m), Recall(m.task, "aa")])
    scene.on(Reply, lambda peer, m: [Remember(KEY, m.content), Keep(m.task, m), Send(CLIENT, m), Recall(OTHER, "aa")])
    yield scene
    scene.spool.close()


def submit(scene: Scene, content: Content) -> None:
    scene.client.say(Submit(TASK, "apply", [], [content], placement=Placement(), cache=KEY))
    scene.pump()


def answer(scene: Scene, value: Value | None) -> None:
    _, _, found = scene.caching.questions.pop(0)
    found(value)
    scene.pump()


def hit(task: TaskId, content: Content | None) -> list[Effect]:
    """Do what the hub does with a value that is found."""
    return [] if content is None else [Keep(task, r := Reply(task, -1, content)), Send(CLIENT, r)]


def cached_file(scene: Scene, data: bytes = BIG) -> Value:
    _, folder, _ = scene.caching.questions[0]
    path = folder / "content-cached-1"
    path.write_bytes(data)
    return Value(len(data), None, path)


def test_a_task_with_a_key_is_looked_for_and_the_hub_hears_what_was_found(scene: Scene) -> None:
    scene.on("recalled", hit)
    submit(scene, Content(b"blob", 4))
    assert [question[0] for question in scene.caching.questions] == ["aa"]
    answer(scene, Value(5, b"value"))
    assert scene.brain.heard("recalled") == [[TASK, Content(b"value")]]
    assert [d.message for d in scene.client.got] == [Reply(TASK, -1, Content(b"value"))]
    assert [type(k.message) for k in scene.records.kept] == [Submit, Reply]


def test_the_hub_hears_that_nothing_was_found(scene: Scene) -> None:
    submit(scene, Content(b"blob", 4))
    answer(scene, None)
    assert scene.brain.heard("recalled") == [[TASK, None]]


def test_a_small_value_is_cached_at_once(scene: Scene) -> None:
    scene.agent.say(Reply(TASK, 0, Content(b"value")))
    scene.pump()
    assert scene.caching.values == {"aa": b"value"}
    assert len(scene.caching.questions) == 1


def test_a_large_value_is_cached_when_it_is_whole_and_only_then_looked_for_by_those_that_wait(scene: Scene) -> None:
    content, source = scene.offer(scene.agent, available=1_000_000)
    scene.agent.say(Reply(TASK, 0, content))
    scene.pump()
    assert (scene.caching.values, scene.caching.questions) == ({}, [])
    source.data[:] = BIG
    scene.agent.far.more(content.transfer)
    scene.pump()
    assert scene.caching.values == {"aa": BIG}
    assert len(scene.caching.questions) == 1


def test_a_large_value_that_never_becomes_whole_is_not_cached_but_still_looked_for(scene: Scene) -> None:
    content, _ = scene.offer(scene.agent, available=1_000_000)
    scene.agent.say(Reply(TASK, 0, content))
    scene.pump()
    scene.agent.far.fail(content.transfer)
    scene.pump()
    scene.loop.pass_time(100)
    scene.pump()
    assert scene.caching.values == {}
    assert len(scene.caching.questions) == 1


def test_a_large_cached_value_goes_to_the_client_and_its_copy_is_freed_then(scene: Scene) -> None:
    scene.on("recalled", hit)
    submit(scene, Content(b"blob", 4))
    answer(scene, cached_file(scene))
    (reply,) = [d.message for d in scene.client.got]
    assert isinstance(reply, Reply)
    assert (reply.engine, reply.content.size) == (-1, len(BIG))
    sink, ends = scene.pull(scene.client, reply.content)
    assert (bytes(sink.data), ends) == (BIG, [True])
    scene.client.got[0].done()
    scene.pump()
    assert (len(scene.spool), list(scene.spool.folder.iterdir())) == (0, [])


def test_a_large_cached_value_for_which_the_spool_has_no_room_counts_as_not_found(tmp_path: Path) -> None:
    scene = Scene(tmp_path, spool_bytes=1000)
    scene.on(Submit, lambda peer, m: [Recall(m.task, "aa")])
    submit(scene, Content(b"blob", 4))
    answer(scene, cached_file(scene))
    assert scene.brain.heard("recalled") == [[TASK, None]]
    assert list(scene.spool.folder.iterdir()) == []


def test_a_cached_value_is_looked_for_before_large_arguments_are_here(scene: Scene) -> None:
    content, _ = scene.offer(scene.client, available=1_000_000)
    submit(scene, content)
    assert len(scene.caching.questions) == 1


def test_questions_about_the_cache_are_answered_by_it(scene: Scene) -> None:
    scene.on(Query, lambda peer, m: [Consult(peer, m.request, Cached())])
    scene.client.say(Query(3, "cached"))
    scene.pump()
    ((job, found),) = scene.caching.jobs
    found(Found({"entries": []}))
    scene.pump()
    assert job == Cached()
    assert [d.message for d in scene.client.got] == [Answer(3, msgspec.msgpack.encode({"entries": []}))]
    assert scene.records.jobs == []
