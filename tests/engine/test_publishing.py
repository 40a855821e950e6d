from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from ippmpi.engine.publishing import EVERY_S, MOST_BYTES, Publishing
from ippmpi.wire.messages import Published
from ippmpi.wire.pickling import unpack


class Stage:
    """Stands for the loop: timers fire when the test says so."""

    def __init__(self) -> None:
        self.runner = SimpleNamespace(engine=3, task="c-1")
        self.sent: list[Published] = []
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.publishing = Publishing(
            self.runner, self.sent.append, lambda call: call(), lambda s, call: self.timers.append((s, call))
        )

    def values(self) -> list[dict[str, object]]:
        return [{name: unpack(value) for name, value in message.values.items()} for message in self.sent]

    def wait(self) -> float:
        (after, call), *self.timers = self.timers
        call()
        return after


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_values_leave_at_once_and_then_together(stage: Stage) -> None:
    publish = stage.publishing.publish
    publish({"step": 1})
    assert stage.sent[0].task == "c-1"
    assert stage.sent[0].engine == 3
    for step in range(2, 100):
        publish({"step": step, f"name{step % 3}": step})
    assert stage.values() == [{"step": 1}]
    assert 0 < stage.wait() <= 2 * EVERY_S
    assert stage.values() == [{"step": 1}, {"step": 99, "name0": 99, "name1": 97, "name2": 98}]
    assert stage.timers == []


def test_what_waits_leaves_before_the_reply_and_once(stage: Stage) -> None:
    stage.publishing.publish({"a": 1})
    stage.publishing.publish({"a": 2})
    stage.publishing.flush()
    assert stage.values() == [{"a": 1}, {"a": 2}]
    stage.wait()
    assert len(stage.sent) == 2


def test_values_of_two_tasks_are_not_mixed(stage: Stage) -> None:
    stage.publishing.publish({"a": 1})
    stage.publishing.publish({"a": 2})
    stage.runner.task = "c-2"
    stage.publishing.publish({"b": 3})
    stage.publishing.flush()
    assert [(m.task, v) for m, v in zip(stage.sent, stage.values(), strict=True)] == [
        ("c-1", {"a": 1}),
        ("c-1", {"a": 2}),
        ("c-2", {"b": 3}),
    ]


def test_values_are_those_of_the_moment(stage: Stage) -> None:
    changing = [1]
    stage.publishing.publish({"a": 0})
    stage.publishing.publish({"a": changing})
    changing.append(2)
    stage.publishing.flush()
    assert stage.values()[-1] == {"a": [1]}


def test_what_is_too_large_or_belongs_to_no_task_is_refused(stage: Stage) -> None:
    with pytest.raises(ValueError, match="at most 1000000"):
        stage.publishing.publish({"a": bytes(MOST_BYTES)})
    with pytest.raises(UnicodeEncodeError):
        stage.publishing.publish({"\udcff": 1})
    stage.runner.task = ""
    with pytest.raises(RuntimeError, match="none runs now"):
        stage.publishing.publish({"a": 1})
    assert stage.sent == []


def test_large_values_make_the_next_ones_wait_longer_and_messages_stay_below_the_limit(stage: Stage) -> None:
    for name in "abc":
        stage.publishing.publish({name: bytes(400_000)})
    assert [set(message.values) for message in stage.sent] == [{"a"}]
    stage.publishing.publish({"d": bytes(400_000)})
    assert [set(message.values) for message in stage.sent] == [{"a"}, {"b", "c"}]
    assert 0.1 < stage.wait() < 0.7
    assert set(stage.sent[-1].values) == {"d"}
