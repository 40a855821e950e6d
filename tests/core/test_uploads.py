from __future__ import annotations

from core.house import ALICE, House, agent, small_house
from ippmpi.core.effects import Send
from ippmpi.ids import TaskId
from ippmpi.wire.messages import Content, Placement, Reply, Revoke, Run

FIRST, SECOND = Content(size=9, transfer=1), Content(size=8, transfer=2)


def fail_upload(house: House, task: str, content: Content) -> None:
    house.took(house.hub.content_failed(TaskId(task), content))


def test_every_part_fails_when_the_shared_content_does_not_arrive() -> None:
    house = small_house(2)
    task = house.submit([0, 1], contents=[FIRST])
    fail_upload(house, task, SECOND)
    assert house.last == []
    fail_upload(house, task, FIRST)
    assert house.sent(Revoke) == [Revoke(task, [0, 1])]
    assert house.failures() == [(task, 0, "TaskAborted"), (task, 1, "TaskAborted")]
    assert "9 bytes did not arrive" in house.texts()[0]
    assert house.released() == [1]
    fail_upload(house, task, FIRST)
    assert house.last == []


def test_only_the_part_fails_whose_content_does_not_arrive() -> None:
    house = small_house(3)
    task = house.submit([2, 0, 1], contents=[Content(b"x", 1), FIRST, SECOND])
    fail_upload(house, task, SECOND)
    assert house.sent(Revoke) == [Revoke(task, [1])]
    assert house.failures() == [(task, 1, "TaskAborted")]
    house.reply(task, 2)
    assert house.reply(task, 1) == []
    house.reply(task, 0)
    assert house.released() == [1, 2]


def test_a_waiting_task_is_dropped_and_a_running_one_taken_back_before_the_next_starts() -> None:
    house = small_house(1)
    a = house.submit(contents=[FIRST], placement=Placement(retries=3))
    b = house.submit(contents=[SECOND])
    c = house.submit()
    fail_upload(house, b, SECOND)
    assert (house.failures(), house.released()) == ([(b, -1, "TaskAborted")], [2])
    fail_upload(house, a, FIRST)
    to_agent = [s.message for s in house.last if isinstance(s, Send) and s.peer == agent()]
    assert [type(message) for message in to_agent] == [Revoke, Run]
    assert house.runs() == [(agent(), c, [0])]
    fail_upload(house, c, FIRST)
    assert house.live(c)


def test_a_waiting_task_does_not_mind_a_content_of_another() -> None:
    house = small_house(1)
    house.submit()
    task = house.submit(contents=[FIRST])
    fail_upload(house, task, SECOND)
    assert house.live(task)


def test_the_work_of_a_gone_client_is_revoked_where_its_contents_never_arrive() -> None:
    house = small_house(1)
    task = house.submit([0], contents=[FIRST])
    house.took(house.hub.gone(ALICE, "gone"))
    fail_upload(house, task, FIRST)
    assert house.sent(Revoke) == [Revoke(task, [0])]
    assert house.sent(Reply) == []
    assert house.released() == [1]
    assert not house.live(task)
