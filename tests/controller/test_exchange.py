"""A value on its way from one engine to another: in the spool as long as it needs, and no longer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.fakes import Pair
from controller.test_controller import BIG, Scene
from ippmpi.core.effects import Release, Send
from ippmpi.ids import Peer
from ippmpi.wire.messages import Content, Fetched

OTHER = Peer("agent:x@host")


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """The controller with a second agent, to which all answers go."""
    scene = Scene(tmp_path)
    scene.other = scene.post.add(Pair(OTHER, "agent"))  # type: ignore[attr-defined]
    scene.on(Fetched, lambda peer, m: [Send(OTHER, m)])
    yield scene
    scene.spool.close()


def other(scene: Scene) -> Pair:
    found: Pair = scene.other  # type: ignore[attr-defined]
    return found


def answer(scene: Scene, available: int | None = None) -> Fetched:
    """Let the agent answer with a large value; return what the other one is told."""
    content, _ = scene.offer(scene.agent, available=available)
    scene.agent.say(Fetched(3, 1, content))
    scene.pump()
    (delivery,) = other(scene).got
    assert isinstance(delivery.message, Fetched)
    return delivery.message


def test_a_value_goes_through_the_spool_and_is_gone_when_the_agent_has_it(scene: Scene) -> None:
    told = answer(scene)
    sink, ends = scene.pull(other(scene), told.content)
    assert (bytes(sink.data), ends) == (BIG, [True])
    assert len(scene.agent.acked) == 1
    other(scene).got[0].done()
    scene.pump()
    assert len(scene.spool) == 0


def test_a_small_value_is_passed_on_as_it_is(scene: Scene) -> None:
    message = Fetched(3, 1, Content(b"abc", 3))
    scene.agent.say(message)
    scene.pump()
    assert other(scene).got[0].message == message
    assert scene.agent.acked == [message]


def test_a_value_that_breaks_off_breaks_off_for_who_pulls_it(scene: Scene) -> None:
    told = answer(scene, available=1_000_000)
    _, ends = scene.pull(other(scene), told.content)
    scene.controller.on_peer(scene.agent.near, False)
    scene.loop.pass_time(60)
    scene.pump()
    assert ends == [False]
    assert len(scene.spool) == 0


def test_a_value_that_nobody_waits_for_any_more_is_dropped(scene: Scene) -> None:
    scene.on(Fetched, lambda peer, m: [Release(m.content)])
    content, _ = scene.offer(scene.agent)
    scene.agent.say(Fetched(3, 1, content))
    scene.pump()
    assert len(scene.spool) == 0
    assert len(scene.agent.acked) == 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_value_for_an_agent_that_is_gone_is_dropped(scene: Scene, when: str) -> None:
    if when == "before":
        scene.on(Fetched, lambda peer, m: [Send(Peer("agent:gone@host"), m)])
        content, _ = scene.offer(scene.agent)
        scene.agent.say(Fetched(3, 1, content))
        scene.pump()
    else:
        answer(scene)
        assert len(scene.spool) == 1
        scene.controller.on_peer(other(scene).near, False)
        scene.loop.pass_time(60)
    assert len(scene.spool) == 0
