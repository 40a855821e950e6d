from __future__ import annotations

import msgspec
import pytest

from core.house import ALICE, BOB, House, agent, small_house
from ippmpi.core.archive import MOST_LISTED, MOST_REPLAYED
from ippmpi.core.effects import (
    Consult,
    Effect,
    History,
    Keep,
    Look,
    Originals,
    Purge,
    Retell,
    Search,
    Send,
    Shelve,
    Wanted,
)
from ippmpi.ids import TaskId
from ippmpi.wire.messages import Answer, Content, Output, Query, Replies, Reply


def ask(house: House, what: str, arguments: object) -> list[Effect]:
    house.client(BOB)
    return house.handle(BOB, Query(5, what, msgspec.msgpack.encode(arguments)))


def test_a_list_of_results_is_read_from_the_store() -> None:
    house = small_house(1)
    assert ask(house, "results", {"label": "x", "state": "ok"}) == [Look(BOB, 5, Wanted(label="x", state="ok"))]
    assert ask(house, "results", {"limit": -1}) == [Look(BOB, 5, Wanted(limit=0))]
    assert ask(house, "results", {"limit": 1 << 60}) == [Look(BOB, 5, Wanted(limit=MOST_LISTED))]


def test_who_fetches_a_task_that_ended_gets_what_is_stored() -> None:
    house = small_house(1)
    task = house.submit([0])
    house.reply(task, 0)
    assert ask(house, "fetch", [task, "x-1", task]) == [Retell(BOB, 5, (task, "x-1"), frozenset())]
    assert not house.hub.ledger.followers


def test_who_fetches_a_task_that_runs_hears_all_that_its_owner_hears_until_it_ends() -> None:
    house = small_house(1)
    task, other = house.submit([0]), house.submit([0])
    assert ask(house, "fetch", [task]) == [Retell(BOB, 5, (task,), frozenset({task}))]
    text = Output(task, 0, "stdout", b"hello")
    assert house.handle(agent(), text) == [Keep(task, text), Send(ALICE, text), Send(BOB, text)]
    house.handle(agent(), Output(other, 0, "stdout", b"hello"))
    assert house.sent(Output, to=BOB) == []
    reply = Reply(task, 0, Content())
    assert house.reply(task, 0) == [Keep(task, reply), Send(ALICE, reply), Send(BOB, reply)]
    assert not house.hub.ledger.followers


def test_who_fetches_its_own_task_hears_it_once() -> None:
    house = small_house(1)
    task = house.submit([0])
    house.handle(ALICE, Query(5, "fetch", msgspec.msgpack.encode([task])))
    house.reply(task, 0)
    assert len(house.sent(Reply)) == 1


def test_a_follower_hears_the_end_when_the_owner_is_gone_and_large_values_are_shelved_first() -> None:
    house = small_house(1)
    task = house.submit([0])
    ask(house, "fetch", [task])
    house.took(house.hub.gone(ALICE, "gone"))
    reply = Reply(task, 0, Content(size=9, transfer=1))
    assert house.reply(task, 0, content=reply.content) == [Keep(task, reply), Shelve(reply.content), Send(BOB, reply)]


def test_a_follower_hears_replies_that_came_together_together() -> None:
    house = small_house(2)
    task = house.submit([0, 1])
    ask(house, "fetch", [task])
    house.took(house.hub.gone(ALICE, "gone"))
    both = Replies(task, [Reply(task, 0, Content()), Reply(task, 1, Content())])
    assert house.handle(agent(), both) == [Keep(TaskId(task), both), Send(BOB, both)]
    assert not house.hub.ledger.followers


def test_a_follower_that_is_gone_is_forgotten() -> None:
    house = small_house(1)
    task = house.submit([0])
    ask(house, "fetch", [task])
    house.took(house.hub.gone(BOB, "gone"))
    assert not house.hub.ledger.followers
    house.reply(task, 0)
    assert house.sent(Reply, to=BOB) == []


def test_what_makes_no_sense_gets_an_error() -> None:
    house = small_house(1)
    for what, arguments, text in (
        ("results", [1], "Expected"),
        ("fetch", "a", "Expected"),
        ("fetch", [f"x-{n}" for n in range(MOST_REPLAYED + 1)], f"{MOST_REPLAYED} are the limit"),
    ):
        ask(house, what, arguments)
        (answer,) = house.sent(Answer)
        assert text in answer.error


def test_some_questions_are_for_the_store_alone() -> None:
    house = small_house(1)
    assert ask(house, "history", {}) == [Consult(BOB, 5, History())]
    assert ask(house, "purge", {"tasks": None, "engines": [1]}) == [Consult(BOB, 5, Purge(None, [1]))]
    assert ask(house, "originals", {"tasks": ["a-1"]}) == [Consult(BOB, 5, Originals(["a-1"]))]
    search = {"query": {"label": {"$in": ["x"]}}, "keys": ["label"]}
    assert ask(house, "search", search) == [Consult(BOB, 5, Search({"label": {"$in": ["x"]}}, ("label",)))]


@pytest.mark.parametrize(
    ("what", "arguments", "text"),
    [
        ("search", {"query": {"nope": 1}}, "no key 'nope'"),
        ("search", {"query": {}, "keys": ["nope"]}, "no key 'nope'"),
        ("search", {"query": {"label": {"$le": 1}}}, "no operator"),
        ("search", {"query": 1}, "Expected `object`"),
        ("purge", {"tasks": [1]}, "Expected `str`"),
        ("originals", {}, "tasks"),
    ],
)
def test_what_the_store_cannot_be_asked_is_answered_with_why(what: str, arguments: object, text: str) -> None:
    (effect,) = ask(small_house(1), what, arguments)
    assert isinstance(effect, Send)
    assert isinstance(effect.message, Answer)
    assert text in effect.message.error
