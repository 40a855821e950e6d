from __future__ import annotations

import pytest

from core.house import ALICE, INLINE, House, small_house
from ippmpi.core.limits import Limits
from ippmpi.errors import ProtocolError
from ippmpi.wire.messages import Content, Dependency, Placement, Submit

SPOOLED = [Content(size=9, transfer=1), Content(size=9, transfer=2)]


@pytest.mark.parametrize(
    ("targets", "contents", "placement", "kind", "text"),
    [
        ([], SPOOLED[:1], None, "NoEnginesRegistered", "no target engines"),
        ([0, 1], [], None, "ProtocolError", "0 contents for 2 targets; 1 or 2 would be right"),
        ([0, 1, 2], SPOOLED, None, "ProtocolError", "2 contents for 3 targets"),
        ([0, 0], SPOOLED, None, "ProtocolError", "target 0 is named twice"),
        ([0], SPOOLED[:1], Placement(), "ProtocolError", "candidates would be right"),
        ([], SPOOLED, Placement(), "ProtocolError", "1 would be right"),
        ([], [], Placement(), "ProtocolError", "1 would be right"),
        ([0], [Content(size=9, path="/proc/1/fd/3")], None, "ProtocolError", "a content with a path"),
        ([], [Content(size=9, path="/proc/1/fd/3")], Placement(), "ProtocolError", "a content with a path"),
    ],
)
def test_a_malformed_submit_ends_at_once_with_a_text(
    targets: list[int], contents: list[Content], placement: Placement | None, kind: str, text: str
) -> None:
    house = small_house()
    house.handle(ALICE, Submit("a-1", "apply", targets, contents, placement=placement))
    assert house.failures() == [("a-1", target, kind) for target in dict.fromkeys(targets) or [-1]]
    assert all(text in found for found in house.texts())
    assert house.released() == [content.transfer for content in contents if content.transfer]
    assert house.runs() == []
    assert not house.live("a-1")


@pytest.mark.parametrize(
    ("dependency", "text"),
    [
        (Dependency(["a-1"]), "task a-1 depends on itself"),
        (Dependency(["a-0", "x-9"]), "task x-9 is not known"),
        (Dependency(["a-0"], success=False), "neither success nor failure"),
    ],
)
@pytest.mark.parametrize("name", ["after", "follow"])
def test_a_dependency_that_makes_no_sense_is_named(name: str, dependency: Dependency, text: str) -> None:
    house = small_house()
    house.submit(name="a-0")
    house.submit(name="a-1", placement=Placement(**{name: dependency}))
    assert house.failures() == [("a-1", -1, "InvalidDependency")]
    assert house.texts()[0].startswith(f"{name}: {text}")


@pytest.mark.parametrize("ended", [False, True])
def test_a_task_on_several_engines_cannot_be_followed(ended: bool) -> None:
    house = small_house()
    house.submit([0, 1], name="a-1")
    if ended:
        house.reply("a-1", 0)
        house.reply("a-1", 1)
    house.submit(name="a-2", placement=Placement(follow=Dependency(["a-1"])))
    assert house.failures() == [("a-2", -1, "InvalidDependency")]


def test_a_task_that_was_forgotten_cannot_be_depended_on() -> None:
    house = small_house(limits=Limits(kept_tasks=1))
    for name in ("a-1", "a-2"):
        house.submit(name=name)
        house.reply(name, house.runs()[0][2][0])
    house.submit(placement=Placement(after=Dependency(["a-2"])))
    assert house.failures() == []
    house.submit(placement=Placement(after=Dependency(["a-1"])))
    assert [kind for _, _, kind in house.failures()] == ["InvalidDependency"]


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"targets": list(range(100_001))}, "100001 targets and 1 contents; at most 100000"),
        ({"targets": [-1]}, "no engine id"),
        ({"targets": [2**63]}, "no engine id"),
        ({"contents": [INLINE] * 100_001}, "100001 contents; at most 100000"),
        ({"task": ""}, "a task id of 0 characters"),
        ({"task": "x" * 201}, "a task id of 201 characters; 200 may be printed"),
        ({"task": "a\nb"}, "may be printed"),
        ({"op": "x" * 1_000_000}, "op of 1000000"),
        ({"label": "x" * 1_000_000}, "label of 1000000 characters"),
    ],
)
def test_a_submit_of_no_client_of_ours_is_dropped(wrong: dict, text: str) -> None:
    house = small_house()
    fields = {"task": "a-1", "op": "apply", "targets": [0], "contents": [INLINE]}
    with pytest.raises(ProtocolError, match=text):
        house.handle(ALICE, Submit(**{**fields, **wrong}))
    assert not house.hub.ledger.tasks


def test_more_inline_than_one_frame_can_carry_fails_at_once() -> None:
    house = small_house(limits=Limits(inline_bytes=10))
    task = house.submit([0], contents=[Content(inline=b"12345678901", size=11)])
    assert house.failures() == [(task, 0, "ProtocolError")]
    assert "11 bytes inline; beyond 10 a transfer" in house.texts()[0]


def crowded() -> House:
    house = small_house(limits=Limits(live_tasks=2, held_bytes=10))
    house.submit(contents=[INLINE])
    return house


def test_more_live_tasks_than_the_limit_fail_at_once() -> None:
    house = crowded()
    house.submit([0])
    task = house.submit([0])
    assert house.failures() == [(task, 0, "TaskAborted")]
    assert "holds 2 tasks" in house.texts()[0]


def test_more_waiting_bytes_than_the_limit_fail_at_once() -> None:
    house = crowded()
    task = house.submit(contents=[Content(inline=b"1234567", size=7)])
    assert house.failures() == [(task, -1, "TaskAborted")]
    assert "holds 10 bytes" in house.texts()[0]
    house.submit([0], contents=[Content(inline=b"1234567", size=7)])  # it is not kept
    assert house.failures() == []
