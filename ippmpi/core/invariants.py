"""What must be true of a hub between two calls; tests run ``check`` after every step."""

from __future__ import annotations

from ippmpi.core.ahead import MOST_AHEAD
from ippmpi.core.dependency import Verdict
from ippmpi.core.engine import Engine, EngineState
from ippmpi.core.hub import Hub
from ippmpi.core.ledger import Ledger
from ippmpi.core.task import ENDED, HANDED, NOWHERE, BalancedTask, State, Task


def check(hub: Hub) -> None:
    """Raise AssertionError, naming what is wrong, unless all tables of *hub* agree with each other."""
    ledger = hub.ledger
    assert not hub.ending.finished, "something ended and was not followed up"
    assert not hub.ending.touched, "some load changed and was not followed up"
    waiting = {id(task) for task in ledger.queue}
    for task in ledger.tasks.values():
        _check_task(task, ledger, waiting)
    for engine in ledger.engines.values():
        _check_engine(engine, ledger)
    _check_peers(ledger)
    _check_queue(hub)
    _check_dependents(hub)
    _check_caching(hub)
    _check_bounds(ledger)
    _check_exchange(hub)


def _check_task(task: Task, ledger: Ledger, waiting: set[int]) -> None:
    live = [part for part, state in task.parts.items() if state not in ENDED]
    assert len(live) == task.open > 0, f"{task.id}: {task.open} open parts are counted, there are {live}"
    for part in live:
        if part == NOWHERE:
            assert task.parts[part] is State.WAITING, f"{task.id} is {task.parts[part]} on no engine"
            assert id(task) in waiting, f"{task.id} waits, but not in the queue"
            continue
        assert task.parts[part] in HANDED, f"{task.id} waits on engine {part}"
        engine = ledger.engines[part]
        assert (engine.balanced if isinstance(task, BalancedTask) else engine.direct)[task.id] is task


def _check_engine(engine: Engine, ledger: Ledger) -> None:
    assert engine.state in (EngineState.ALIVE, EngineState.STOPPING), f"{engine} is {engine.state}"
    assert len(engine.balanced) <= MOST_AHEAD + engine.adopted, f"{engine} holds {list(engine.balanced)}"
    for task in (*engine.direct.values(), *engine.balanced.values()):
        assert ledger.tasks.get(task.id) is task, f"{engine} holds {task.id}, which has ended"
        assert task.parts[engine.id] in HANDED, f"{engine} holds {task.id}, which is {task.parts[engine.id]} there"


def _check_peers(ledger: Ledger) -> None:
    for client in ledger.clients.values():
        for name, task in client.tasks.items():
            assert ledger.tasks.get(name) is task, f"{client.peer} waits for {name}, which has ended"
    with_ids = set()
    for world in ledger.worlds.values():
        for rank, engine in world.engines.items():
            assert ledger.agents[engine.agent].engines[world.id, rank] is engine, f"{engine} is not its agent's"
            assert engine.state is EngineState.JOINING or engine.id < 0 or engine.id == (world.base or 0) + rank, (
                f"{engine} of a world with base {world.base}"
            )
            if engine.state is EngineState.ALIVE or ledger.engines.get(engine.id) is engine:
                assert ledger.engines[engine.id] is engine, f"{engine} is not the one with its id"
                with_ids.add(engine.id)
    assert with_ids == ledger.engines.keys(), f"engines {with_ids} of worlds, {ledger.engines.keys()} in the table"
    for agent in ledger.agents.values():
        for (world_id, rank), engine in agent.engines.items():
            assert ledger.worlds[world_id].engines[rank] is engine, f"{agent.peer} has {engine}, its world does not"


def _check_queue(hub: Hub) -> None:
    ledger, queue = hub.ledger, hub.ledger.queue
    names = [task.id for task in queue]
    assert len(names) == len(set(names)) == len(queue), f"the queue counts {len(queue)} tasks and has {names}"
    for task in queue:
        assert ledger.owner_of(task) is not None, f"{task.id} waits, and nobody waits for it"
        assert ledger.tasks.get(task.id) is task, f"{task.id} waits, but has ended"
    for choice, group in queue.groups.items():
        assert group.choice == choice, f"{group.choice} is filed under {choice}"
        assert group.tasks, f"the group of {choice} is empty"
        for engine in (choice.among or frozenset()) | choice.without:
            assert ledger.open_engine(engine) is not None, f"{choice} names engine {engine}, which takes no work"
        chosen = ledger.choose(choice.among, choice.without)
        assert chosen is None, f"{list(group.tasks)} could start on engine {chosen}"
    for task in queue.held.values():
        verdicts = {condition.verdict() for condition in (task.after, task.follow) if condition is not None}
        assert Verdict.OPEN in verdicts, f"{task.id} is held, though its conditions are {verdicts}"
        assert Verdict.IMPOSSIBLE not in verdicts, f"{task.id} is held, though its conditions are {verdicts}"
    timed = sum(task.deadline is not None for task in queue)
    assert timed == len(hub.scheduler.deadlines), f"{len(hub.scheduler.deadlines)} deadlines for {timed} tasks"


def _check_dependents(hub: Hub) -> None:
    for name, dependents in hub.scheduler.dependents.items():
        assert name in hub.ledger.tasks, f"{list(dependents)} wait for {name}, which has ended"
        assert dependents, f"nobody waits for {name}, but it is listed"
        for task in dependents.values():
            assert hub.ledger.tasks.get(task.id) is task, f"{task.id} waits for {name}, but has ended"


def _check_caching(hub: Hub) -> None:
    ledger, caching = hub.ledger, hub.caching
    for digest, name in caching.leaders.items():
        assert name in ledger.tasks, f"{name} leads those with the key {digest}, but has ended"
    for digest, followers in caching.followers.items():
        assert followers, f"nobody follows for the key {digest}, but it is listed"
        assert digest in caching.leaders, f"{list(followers)} follow nobody"
        for task in followers.values():
            assert ledger.tasks.get(task.id) is task, f"{task.id} follows {caching.leaders[digest]}, but has ended"


def _check_exchange(hub: Hub) -> None:
    for asking, question in hub.exchange.asked.items():
        assert question.engine == asking, f"{question} is filed under engine {asking}"
        assert asking in hub.ledger.engines, f"engine {asking}, which is gone, waits for an answer"
        assert question.holder in hub.ledger.engines, f"engine {asking} waits for {question.holder}, which is gone"


def _check_bounds(ledger: Ledger) -> None:
    limits = ledger.limits
    assert len(ledger.ended) <= limits.kept_tasks
    assert len(ledger.losses) <= limits.kept_losses
    assert sum(not world.engines for world in ledger.worlds.values()) <= limits.kept_worlds
    assert all(record.owner in ledger.clients for record in ledger.ended.values()), (
        "a client that is gone is remembered"
    )
    for record in ledger.ended.values():
        if record.engine is not None and record.engine.state is EngineState.LOST:
            assert not record.engine.direct, f"{record.engine} is lost and keeps tasks"
            assert not record.engine.balanced, f"{record.engine} is lost and keeps tasks"
    for name, peers in ledger.followers.items():
        assert name in ledger.tasks, f"{list(peers)} follow {name}, which has ended"
        assert peers, f"nobody follows {name}, but it is listed"
        assert peers.keys() <= ledger.clients.keys(), f"of {list(peers)} who follow {name}, some are gone"
    held = sum(task.inline_bytes for task in ledger.tasks.values() if isinstance(task, BalancedTask))
    assert held == ledger.held_bytes, f"{ledger.held_bytes} bytes are counted, {held} are held"
