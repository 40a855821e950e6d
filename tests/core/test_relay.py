from __future__ import annotations

import pytest

from core.house import ALICE, agent, small_house
from ippmpi.core.limits import Limits
from ippmpi.errors import ProtocolError
from ippmpi.wire.messages import Content, Display, Output, Published, Reply


def test_output_and_displays_go_to_the_owner_of_the_task_also_after_its_end() -> None:
    house = small_house(1)
    task = house.submit([0])
    text, picture = Output(task, 0, "stdout", b"hello"), Display(task, 0, b"\x80")
    for _ in range(2):
        for message in (text, picture):
            house.handle(agent(), message)
            assert house.sent(type(message), to=ALICE) == [message]
        house.reply(task, 0)


def test_output_of_nobodys_task_is_dropped() -> None:
    house = small_house(1)
    task = house.submit([0])
    assert house.handle(agent(), Output("", 0, "stdout", b"hello")) == []
    assert house.handle(agent(), Output("x-1", 0, "stdout", b"hello")) == []
    house.reply(task, 0)
    house.took(house.hub.gone(ALICE, "gone"))
    assert house.handle(agent(), Output(task, 0, "stdout", b"hello")) == []


def test_output_is_stored_also_when_its_client_is_gone() -> None:
    house = small_house(1)
    task = house.submit([0])
    text, picture = Output(task, 0, "stdout", b"hello"), Display(task, 0, b"\x80")
    house.handle(agent(), text)
    assert house.kept() == [text]
    house.took(house.hub.gone(ALICE, "gone"))
    house.handle(agent(), picture)
    assert house.kept() == [picture]
    assert house.sent(Display) == []


def test_stored_output_has_a_limit_of_its_own_and_a_notice_for_the_rest() -> None:
    house = small_house(1, Limits(stored_output=10))
    task = house.submit([0])
    house.handle(agent(), Output(task, 0, "stdout", b"0123456789"))
    house.handle(agent(), Output(task, 0, "stdout", b"x"))
    assert house.sent(Output) == [Output(task, 0, "stdout", b"x")]
    (notice,) = house.kept()
    assert isinstance(notice, Output)
    assert b"beyond 10 bytes is not stored" in notice.text
    house.handle(agent(), Output(task, 0, "stdout", b"y"))
    assert house.kept() == []


def test_output_beyond_the_limit_is_replaced_by_one_notice() -> None:
    house = small_house(1, Limits(output_bytes=10))
    task = house.submit([0])
    house.handle(agent(), Output(task, 0, "stdout", b"0123456789"))
    assert len(house.sent(Output)) == 1
    house.handle(agent(), Display(task, 0, b"\x80"))
    (notice,) = house.sent(Output)
    assert (notice.stream, notice.engine) == ("stderr", 0)
    assert b"beyond 10 bytes is not shown" in notice.text
    house.reply(task, 0)
    house.handle(agent(), Output(task, 0, "stdout", b"more"))
    assert house.sent(Output) == []


def test_what_a_task_shows_goes_to_those_who_wait_while_it_runs_and_is_not_stored() -> None:
    house = small_house(1, Limits(output_bytes=0, stored_output=0))
    task = house.submit([0])
    shown = Published(task, 0, {"step": b"\x01"})
    house.handle(agent(), shown)
    assert house.sent(Published, to=ALICE) == [shown]
    assert house.kept() == []
    house.reply(task, 0)
    house.handle(agent(), shown)
    house.handle(agent(), Published("x-1", 0, {}))
    assert house.sent(Published) == []


def test_an_agent_speaks_for_its_own_engines_only() -> None:
    house = small_house(1)
    task = house.submit([0])
    stranger = agent("h9")
    house.took(house.hub.connected(stranger, {}))
    shown = (Output(task, 0, "stdout", b"x"), Display(task, 0, b"\x80"), Published(task, 0, {}))
    for wrong in (*shown, Reply(task, 0, Content())):
        with pytest.raises(ProtocolError, match="agent:w@h9 speaks for engine 0"):
            house.handle(stranger, wrong)
    house.reply(task, 0)
    assert [reply.failure for reply in house.sent(Reply)] == [None]
