from __future__ import annotations

from core.house import ALICE, BOB, agent, small_house
from ippmpi.core.ledger import spans
from ippmpi.wire.messages import Answer, EngineLost, Placement, Query


def test_queue_status_counts_or_lists_the_work_of_every_engine() -> None:
    house = small_house(2)
    direct, balanced = house.submit([0]), house.submit()
    done = house.submit([1])
    house.reply(done, 1)
    waiting = house.submit(placement=Placement(candidates=[1]))
    assert house.query("queue_status") == {
        0: {"queue": 1, "tasks": 0, "completed": 0},
        1: {"queue": 0, "tasks": 1, "completed": 1},
        "unassigned": 1,
    }
    assert house.query("queue_status", {"targets": [1, 0], "verbose": True}) == {
        0: {"queue": [direct], "tasks": [], "completed": []},
        1: {"queue": [], "tasks": [balanced], "completed": [done]},
        "unassigned": [waiting],
    }
    assert set(house.query("queue_status", {"targets": [1]})) == {1, "unassigned"}


def test_engines_that_are_gone_are_not_in_the_queue_status() -> None:
    house = small_house(2)
    house.handle(agent(), EngineLost("w", 1, "killed"))
    assert set(house.query("queue_status")) == {0, "unassigned"}


def test_result_status_sorts_ids() -> None:
    house = small_house(1)
    a, b = house.submit([0]), house.submit([0])
    house.reply(a, 0)
    assert house.query("result_status", [b, "x-1", a]) == {"pending": [b], "completed": [a], "unknown": ["x-1"]}
    assert house.query("result_status") == {"pending": [], "completed": [], "unknown": []}


def test_status_shows_everybody_and_the_tasks() -> None:
    house = small_house(2)
    house.client(BOB, user="bob", host="laptop" * 100, secret="not shown")
    house.took(house.hub.disconnected(BOB))
    house.node([0], 3, world="young", host="h2")
    good, bad = house.submit([0]), house.submit([1])
    house.reply(good, 0)
    house.fail(bad, 1)
    house.submit()
    house.submit(placement=Placement(candidates=[0]))
    status = house.query("status")
    assert status["engines"][1] == {
        "id": 1, "rank": 1, "world": "w", "host": "h1", "pid": 101, "state": "alive",
        "queue": 0, "tasks": 0, "completed": 1,
    }  # fmt: skip
    assert status["clients"] == [
        {"name": ALICE, "connected": True, "tasks": 2},
        {"name": BOB, "connected": False, "tasks": 0, "user": "bob", "host": ("laptop" * 100)[:200]},
    ]
    assert status["agents"][0] == {"name": agent(), "connected": True, "engines": 2}
    assert status["worlds"] == [
        {"name": "w", "size": 2, "base": 0, "registered": 2, "complete": True},
        {"name": "young", "size": 3, "base": None, "registered": 1, "complete": False},
    ]
    assert status["tasks"] == {"waiting": 1, "running": 1, "done": 1, "failed": 1, "aborted": 0, "lost": 0}


def test_questions_that_make_no_sense_get_an_error_that_says_what_would() -> None:
    house = small_house(2)
    for query, text in (
        (Query(1, "weather"), "have status, queue_status, result_status"),
        (Query(1, "queue_status", b"\x93"), ""),
        (Query(1, "result_status", b"\x01"), "Expected"),
        (Query(1, "queue_status", b"\x81\xa7targets\x91\x09"), "no engine 9; have 0-1"),
    ):
        house.handle(ALICE, query)
        (answer,) = house.sent(Answer)
        assert answer.error
        assert text in answer.error


def test_ids_are_written_as_ranges() -> None:
    assert spans([7, 0, 1, 2, 9, 10]) == "0-2, 7, 9-10"
    assert spans([]) == "none"
