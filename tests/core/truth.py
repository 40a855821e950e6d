"""What must be true of the reasons that a hub gives for tasks that have not ended; tests run ``judge`` after steps."""

from __future__ import annotations

import itertools

from ippmpi.core.dependency import Verdict
from ippmpi.core.engine import Engine, EngineState
from ippmpi.core.explaining import explain
from ippmpi.core.hub import Hub
from ippmpi.core.ledger import Ledger
from ippmpi.core.queue import Choice
from ippmpi.core.task import HANDED, NOWHERE, BalancedTask, Task
from ippmpi.ids import TaskId
from ippmpi.wire import reasons as r
from ippmpi.wire.reasons import Question, Reason, Spans


def ids(spans: Spans) -> set[int]:
    return set(itertools.chain.from_iterable(range(first, last + 1) for first, last in spans))


def judge(hub: Hub) -> list[Reason]:
    """Raise AssertionError unless every task that has not ended has a reason for each part, and they are true."""
    answer = explain(hub.ledger, Question())
    assert not answer.left_out
    found: dict[str, list[Reason]] = {}
    for reason in answer.reasons:
        found.setdefault(reason.task, []).append(reason)
    assert found.keys() == hub.ledger.tasks.keys()
    for name, task in hub.ledger.tasks.items():
        if task.parts.get(NOWHERE) is not None:
            (reason,) = found[name]
            assert isinstance(task, BalancedTask)
            _judge_waiting(task, reason, hub.ledger)
        else:
            _judge_handed(task, found[name], hub.ledger)
    return answer.reasons


def _judge_waiting(task: BalancedTask, reason: Reason, ledger: Ledger) -> None:
    assert reason.state == "waiting", reason
    if reason.why == r.CACHED:
        _judge_hoping(task, reason, ledger)
    elif reason.why == r.NEEDS:
        _judge_held(task, reason, ledger)
    else:
        _judge_ready(task, reason, ledger)


def _judge_held(task: BalancedTask, reason: Reason, ledger: Ledger) -> None:
    conditions = [c for c in (task.after, task.follow) if c is not None]
    assert any(c.verdict() is Verdict.OPEN for c in conditions), reason
    pending = {name for c in conditions for name in c.pending}
    assert reason.count == len(pending) >= len(reason.others) > 0, reason
    for other in reason.others:
        assert other.task in pending, reason
        _judge_state(other, ledger)


def _judge_hoping(task: BalancedTask, reason: Reason, ledger: Ledger) -> None:
    assert task.id in ledger.queue.hoping, reason
    for other in reason.others:
        equal = ledger.tasks[TaskId(other.task)]
        assert isinstance(equal, BalancedTask)
        assert equal.cache is not None, reason
        assert task.cache is not None, reason
        assert equal.cache.digest == task.cache.digest, reason
        _judge_state(other, ledger)


def _judge_ready(task: BalancedTask, reason: Reason, ledger: Ledger) -> None:
    alive = [engine for engine in ledger.engines.values() if engine.state is EngineState.ALIVE]
    assert all(c is None or c.verdict() is Verdict.MET for c in (task.after, task.follow)), reason
    group = next(group for group in ledger.queue.groups.values() if task.id in group.tasks)
    assert list(group.tasks)[reason.behind] == task.id, reason
    if reason.why == r.RESTORED:
        assert {peer.partition("@")[2] for peer in ledger.returning} == set(reason.hosts) != set(), reason
    elif reason.why in (r.NO_ENGINES, r.STOPPING):
        assert not alive, reason
        assert bool(ledger.engines) is (reason.why == r.STOPPING), reason
    else:
        assert reason.why == r.BUSY, reason
        assert not ledger.returning, reason
        may = [engine for engine in alive if _may(engine, task, group.choice)]
        assert reason.count == len(may) > 0, reason
        for engine in may:
            assert engine.direct or engine.balanced, f"{reason}: {engine} is idle"
        assert reason.others, reason
        for other in reason.others:
            assert ids(other.engines) & {engine.id for engine in may}, reason
            assert other.state == "running", reason
            _judge_state(other, ledger)


def _may(engine: Engine, task: BalancedTask, choice: Choice) -> bool:
    """Say by the task's own books whether it may go to *engine*; those where it failed are a matter of choice."""
    if engine in task.refused_by or (task.candidates is not None and engine.id not in task.candidates):
        return False
    if task.follow is not None:  # what ended elsewhere since it was found to be ready does not count
        return engine in task.follow.engines and choice.among is not None and engine.id in choice.among
    return (
        engine not in task.failed_on
        or (choice.among is not None and engine.id in choice.among)
        or (choice.among is None and engine.id not in choice.without)
    )


def _judge_handed(task: Task, reasons: list[Reason], ledger: Ledger) -> None:
    places = [place for reason in reasons for place in sorted(ids(reason.engines))]
    assert sorted(places) == sorted(p for p, state in task.parts.items() if state in HANDED), reasons
    for reason in reasons:
        for place in ids(reason.engines):
            engine = ledger.engines[place]  # type: ignore[index] # an int
            held = [*engine.direct.values(), *engine.balanced.values()]
            assert task in held
            assert reason.behind < len(held), reason
            assert (reason.state == "running") is (reason.behind == 0), reason
            away = engine.agent in ledger.returning or not ledger.agents[engine.agent].connected
            assert (reason.why == r.NODE_AWAY) is away, reason
            if reason.behind:
                (first,) = reason.others
                assert ledger.tasks[first.task] in held, reason  # type: ignore[index] # a str
                assert first.task != task.id, reason
                assert place in ids(first.engines), reason
            if not engine.brought:
                before = sum(other.turn < task.turn for other in held)
                assert before == reason.behind, f"{reason}: {before} were given before"


def _judge_state(other: r.Other, ledger: Ledger) -> None:
    task = ledger.tasks[other.task]  # type: ignore[index] # a str
    assert (other.state == "waiting") is (task.parts.get(NOWHERE) is not None), other
    if other.state != "waiting":
        assert ids(other.engines) <= {p for p, state in task.parts.items() if state in HANDED}, other
