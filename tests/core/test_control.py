from __future__ import annotations

import msgspec

from core.house import ALICE, BOB, House, agent, small_house
from ippmpi.core.effects import Send, Stop
from ippmpi.wire.messages import (
    Abort,
    Answer,
    Content,
    Deliver,
    Dependency,
    Interrupt,
    Placement,
    Reply,
    Revoke,
    SendSignal,
    Shutdown,
    StopEngines,
)


def answer(house: House) -> object:
    (found,) = house.sent(Answer)
    return found.error or msgspec.msgpack.decode(found.value)


def two_nodes() -> House:
    house = House()
    house.client()
    house.node([0, 1], 3, host="h1")
    house.node([2], 3, host="h2")
    return house


def test_abort_takes_back_what_waits_and_asks_engines_for_the_rest() -> None:
    house = two_nodes()
    direct = house.submit([0, 2])
    tasks = [house.submit() for _ in range(5)]
    held = house.submit(placement=Placement(after=Dependency([direct])))
    house.handle(ALICE, Abort(1))
    waiting = [task for task in [*tasks, held] if task not in {run[1] for run in house.runs(ever=True)}]
    assert [(task, kind) for task, _, kind in house.failures()] == [(task, "TaskAborted") for task in waiting]
    assert answer(house) == len(waiting)
    assert house.sent(Revoke, to=agent("h2"))[0] == Revoke(direct, [2])
    assert Revoke(direct, [0]) in house.sent(Revoke, to=agent("h1"))
    house.fail(direct, 0, "TaskAborted")
    assert house.failures() == [(direct, 0, "TaskAborted")]
    house.reply(direct, 2)  # it had started
    assert house.sent(Reply)[0].failure is None
    assert not house.live(direct)


def test_abort_can_be_limited_to_tasks_and_targets() -> None:
    house = two_nodes()
    a, b = house.submit([0, 1, 2]), house.submit([0])
    waiting = [house.submit(placement=Placement(candidates=[2])) for _ in range(2)][1]
    house.handle(ALICE, Abort(1, targets=[0, 2]))
    assert answer(house) == 0
    assert house.live(waiting)
    revokes = house.sent(Revoke)
    assert (Revoke(a, [0]) in revokes, Revoke(a, [2]) in revokes, Revoke(b, [0]) in revokes) == (True, True, True)
    house.handle(ALICE, Abort(2, [a, "alice-999"], targets=[1]))
    assert house.sent(Revoke) == [Revoke(a, [1])]


def test_a_task_that_was_asked_back_is_not_tried_again() -> None:
    house = small_house(2)
    task = house.submit(placement=Placement(retries=3))
    house.handle(ALICE, Abort(1, [task]))
    house.fail(task, 0)
    assert house.failures() == [(task, 0, "code")]
    task = house.submit(placement=Placement(retries=3))
    engine = house.runs()[0][2][0]
    house.handle(ALICE, Abort(1, [task]))
    house.lose(engine)
    assert house.failures() == [(task, engine, "EngineError")]


def test_tasks_of_others_are_not_touched() -> None:
    house = small_house(1)
    house.client(BOB)
    mine, theirs = house.submit(), house.submit(peer=BOB)
    house.handle(ALICE, Abort(1, [mine, theirs]))
    assert answer(house) == f"task {theirs} is not a task of this client"
    assert house.sent(Revoke) == []
    house.handle(ALICE, Abort(2))
    assert house.live(theirs)
    house.reply(mine, 0)
    house.reply(theirs, 0)
    house.handle(ALICE, Interrupt(3, [theirs]))
    assert "is not a task of this client" in answer(house)
    house.handle(ALICE, Abort(4, [mine]))
    assert answer(house) == 0


def test_taking_back_releases_contents_and_fails_those_who_wait_for_it() -> None:
    house = small_house(1)
    house.submit()
    waiting = house.submit(contents=[Content(size=9, transfer=4)])
    dependent = house.submit(placement=Placement(after=Dependency([waiting])))
    house.handle(ALICE, Abort(1, [waiting]))
    assert house.released() == [4]
    assert (dependent, -1, "ImpossibleDependency") in house.failures()


def test_interrupt_hits_where_it_runs_and_takes_back_where_it_waits() -> None:
    house = small_house(1)
    running, waiting = house.submit(), house.submit()
    house.handle(ALICE, Interrupt(1, [running, waiting]))
    assert house.sent(Revoke) == [Revoke(running, [0], True)]
    assert house.failures() == [(waiting, -1, "TaskAborted")]
    assert answer(house) == 1
    house.handle(ALICE, Interrupt(2, [running]))
    assert house.sent(Revoke) == [Revoke(running, [0], True)]


def test_a_signal_goes_to_every_agent_of_its_targets() -> None:
    house = two_nodes()
    house.handle(ALICE, SendSignal(1, 2))
    assert house.sent(Deliver, to=agent("h1")) == [Deliver([0, 1], 2)]
    assert house.sent(Deliver, to=agent("h2")) == [Deliver([2], 2)]
    assert answer(house) is None
    house.handle(ALICE, SendSignal(2, 15, [1, 8, 9]))
    assert house.sent(Deliver) == [Deliver([1], 15)]
    assert answer(house) == "no engines 8-9; have 0-2"


def test_a_shutdown_of_some_engines_stops_only_them() -> None:
    house = two_nodes()
    house.handle(ALICE, Shutdown(1, [0, 2, 7]))
    assert house.sent(StopEngines, to=agent("h1")) == [StopEngines([0])]
    assert house.sent(StopEngines, to=agent("h2")) == [StopEngines([2])]
    assert answer(house) == "no engines 7; have 0-2"
    tasks = [house.submit(), house.submit()]
    assert [engines for _, task, engines in house.runs(ever=True) if task in tasks] == [[1]]


def test_a_shutdown_of_everything_answers_before_it_stops() -> None:
    house = two_nodes()
    house.node([0], 2, world="young", host="h3")
    house.handle(ALICE, Shutdown(1, [0], controller=True))
    assert [s.peer for s in house.last if isinstance(s, Send) and s.message == StopEngines()] == [
        agent("h1"), agent("h2"), agent("h3", "young")
    ]  # fmt: skip
    assert isinstance(house.last[-1], Stop)
    assert house.last[-2] == Send(ALICE, Answer(1))
    house.handle(ALICE, Shutdown(2))
    assert not house.stopped()


def test_a_shutdown_fails_tasks_that_could_only_run_there() -> None:
    house = small_house(2)
    house.submit()
    task = house.submit(placement=Placement(candidates=[0]))
    house.handle(ALICE, Shutdown(1, [0]))
    assert house.failures() == [(task, -1, "ImpossibleDependency")]
