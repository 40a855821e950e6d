from __future__ import annotations

import msgspec
import pytest

from core.house import ALICE, BOB, INLINE, House, agent, small_house
from ippmpi.core.hub import Hub
from ippmpi.core.limits import Limits
from ippmpi.core.restoring import Past, PastTask
from ippmpi.errors import ProtocolError
from ippmpi.policies.leastload import LeastLoad
from ippmpi.wire.messages import Content, Failure, Fetch, Fetched, Free, Placement, RegisterEngines, Submit

QUESTION = Fetch(0, 1, 2, "alice-1")
ANSWER = Fetched(0, 1, INLINE)


def two_hosts() -> House:
    """Alice, engines 0 and 1 on one host and engine 2 on another."""
    house = House()
    house.client(ALICE)
    house.node([0, 1], 3)
    house.node([2], 3, host="h2", pid=200)
    return house


def test_a_question_goes_to_the_agent_of_the_holder_and_its_answer_to_that_of_who_asked() -> None:
    house = two_hosts()
    house.handle(agent(), QUESTION)
    assert house.sent(Fetch, to=agent("h2")) == [QUESTION]
    house.handle(agent("h2"), ANSWER)
    assert house.sent(Fetched, to=agent()) == [ANSWER]
    assert not house.kept()


def test_a_question_for_an_engine_that_is_not_there_is_answered_with_the_reason() -> None:
    house = two_hosts()
    house.lose(2, "signal 9", host="h2")
    house.handle(agent(), QUESTION)
    (answer,) = house.sent(Fetched, to=agent())
    assert answer.failure.kind == "HandleError"
    assert "engine 2 (rank 2 of w on h2, pid 202) was lost: signal 9" in answer.failure.evalue
    house.handle(agent(), Fetch(0, 2, 7, "alice-1"))
    (answer,) = house.sent(Fetched)
    assert "there is no engine 7" in answer.failure.evalue


def test_a_question_of_an_engine_that_was_lost_meanwhile_is_dropped() -> None:
    house = two_hosts()
    house.lose(0)
    assert house.handle(agent(), QUESTION) == []


def test_the_loss_of_the_holder_answers_the_question() -> None:
    house = two_hosts()
    house.handle(agent(), QUESTION)
    house.handle(agent(), Fetch(1, 1, 0, "alice-1"))
    house.lose(2, host="h2")
    (answer,) = house.sent(Fetched)
    assert (answer.engine, answer.number) == (0, 1)
    assert "was lost" in answer.failure.evalue
    house.handle(agent("h2"), Fetched(0, 1, Content(size=5, transfer=4)))
    assert house.sent(Fetched) == []
    assert house.released() == [4]


def test_a_late_answer_is_dropped_with_its_content_also_when_who_asked_is_lost() -> None:
    house = two_hosts()
    house.handle(agent(), QUESTION)
    house.handle(agent(), Fetch(0, 2, 2, "alice-1"))
    house.handle(agent("h2"), Fetched(0, 1, Content(size=5, transfer=4)))
    assert (house.sent(Fetched), house.released()) == ([], [4])
    house.lose(0)
    house.handle(agent("h2"), Fetched(0, 2, Content(size=5, transfer=5)))
    assert (house.sent(Fetched), house.released()) == ([], [5])
    assert not house.hub.exchange.asked


def test_an_agent_may_not_ask_or_answer_for_the_engines_of_others() -> None:
    house = two_hosts()
    with pytest.raises(ProtocolError, match="speaks for engine 0"):
        house.handle(agent("h2"), QUESTION)
    house.handle(agent(), QUESTION)
    with pytest.raises(ProtocolError, match="answers for engine 2"):
        house.handle(agent(), ANSWER)
    house.handle(agent("h2"), ANSWER)
    assert house.sent(Fetched, to=agent()) == [ANSWER]


def test_what_may_be_let_go_is_told_to_the_agents_of_the_engines_that_are_there() -> None:
    house = two_hosts()
    house.handle(ALICE, Free(["a-1", "a-1", "a-2", "a-3"], [0, 2, 1, 9]))
    assert house.sent(Free, to=agent()) == [Free(["a-1", "a-2"], [0, 1])]
    assert house.sent(Free, to=agent("h2")) == [Free(["a-1"], [2])]


@pytest.mark.parametrize("wrong", [Free(["a"], []), Free([], [], "bob"), Free(["a"] * 9, [0] * 9)])
def test_a_client_may_not_let_go_in_a_way_that_cannot_be(wrong: Free) -> None:
    house = small_house(2, Limits(targets=8))
    with pytest.raises(ProtocolError, match="lets go of"):
        house.handle(ALICE, wrong)


def test_a_client_that_has_kept_something_leaves_nothing_behind() -> None:
    house = two_hosts()
    house.client(BOB)
    house.handle(ALICE, Submit("alice-1", "keep", [0], [INLINE]))
    house.took(house.hub.gone(BOB, "closed"))
    assert house.sent(Free) == []
    house.took(house.hub.gone(ALICE, "closed"))
    assert house.sent(Free, to=agent()) == house.sent(Free, to=agent("h2")) == [Free([], [], "alice")]


def test_after_a_restart_anybody_may_have_kept_something_and_agents_hear_of_it_when_they_are_back() -> None:
    before = two_hosts()
    engines = [e.record(3) for _, e in sorted(before.hub.ledger.engines.items())]
    house = House()
    house.hub = Hub(LeastLoad(), Limits())
    house.took(house.hub.restore(Past(engines, [PastTask("alice-1", ALICE, {0: True})])))
    house.client(ALICE)
    house.took(house.hub.gone(ALICE, "closed"))
    assert house.sent(Free) == []
    house.took(house.hub.connected(agent("h2"), {}))
    house.handle(agent("h2"), RegisterEngines("w", 3, [msgspec.structs.replace(engines[2], id=-1)]))
    assert house.sent(Free, to=agent("h2")) == [Free([], [], "alice")]


# --- where balanced tasks go ---------------------------------------------------------------------


def place(house: House, near: list[int], **options: object) -> list[int]:
    """Submit a task with data on the engines *near*; return where it was sent."""
    house.submit(placement=Placement(near=near, **options))  # type: ignore[arg-type]
    return [engine for _, _, engines in house.runs() for engine in engines]


def test_a_task_goes_to_the_idle_engine_with_most_of_its_data() -> None:
    house = small_house(4)
    assert place(house, [3]) == [3]
    assert place(house, [3, 2]) == [2]
    assert place(house, [3, 2, 9]) == [0]
    assert place(house, [0]) == [1]


def test_a_task_goes_where_it_may_whoever_has_its_data() -> None:
    house = small_house(4)
    assert place(house, [3, 1], candidates=[0, 1]) == [1]
    assert place(house, [1], candidates=[0, 1]) == [0]


def test_an_engine_with_direct_work_is_not_idle() -> None:
    house = small_house(2)
    house.submit([1])
    assert place(house, [1]) == [0]


def test_a_task_that_failed_where_its_data_are_is_tried_elsewhere() -> None:
    house = small_house(2)
    task = house.submit(placement=Placement(near=[1], retries=1))
    house.fail(task, 1)
    assert house.runs() == [(agent(), task, [0])]


def test_a_waiting_task_with_data_on_the_free_engine_overtakes_others_a_few_times() -> None:
    house = small_house(2)
    running = {0: house.submit(), 1: house.submit()}
    patient = house.submit(placement=Placement(near=[1], candidates=None))
    others = [house.submit(placement=Placement(near=[0])) for _ in range(40)]
    started = []
    while patient not in started:
        task = running.pop(0)
        house.reply(task, 0, Failure("Oops", "so that it takes long", kind="code"))
        ((_, started_now, _),) = house.runs()
        running[0] = started_now
        started.append(started_now)
    assert started == [*others[:32], patient]


def test_a_task_without_data_is_not_overtaken() -> None:
    house = small_house(1)
    first = house.submit()
    plain, near = house.submit(), house.submit(placement=Placement(near=[0]))
    house.reply(first, 0)
    assert house.runs()[0][1] == plain
    assert near in [task for _, task, _ in house.runs(ever=True)] or house.live(near)
