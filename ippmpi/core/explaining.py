"""Why tasks have no result yet, read from the tables: nothing is kept for this, and nothing is changed.

A task that waits does so for other tasks, or for an engine; one that was handed out runs, or is behind another one. An
engine does what it was given in the order in which it was given, so what it works on is the first that has not ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from ippmpi.core.dependency import Condition
from ippmpi.core.engine import Engine, EngineState
from ippmpi.core.ledger import Ledger
from ippmpi.core.queue import Choice, Group
from ippmpi.core.task import HANDED, NOWHERE, BalancedTask, Ended, State, Task
from ippmpi.ids import EngineId, TaskId
from ippmpi.wire import reasons as r
from ippmpi.wire.reasons import Explained, Other, Question, Reason, spans_of

TAKEN = {State.RECALLED: r.TAKEN_BACK, State.RETURNING: r.MOVING}


def explain(ledger: Ledger, question: Question) -> Explained:
    """Return one reason for each task, or one for each group of its parts that have the same."""
    return _Reading(ledger).explained(question)


class _Reading:
    """The tables at one moment, and what was found in them on the way."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._orders: dict[EngineId, dict[TaskId, int]] = {}
        self._places: dict[TaskId, int] = {}  # of ready tasks in their groups
        self._groups: dict[TaskId, Group] = {}
        self._scarce: dict[Choice, tuple[int, list[Other], int]] = {}

    def explained(self, question: Question) -> Explained:
        if question.tasks is None:
            names: Iterable[str] = self._everything()
            total = len(self._ledger.tasks)
        else:
            names = dict.fromkeys(question.tasks)
            total = len(names)
        chosen = [TaskId(name) for name in islice(names, max(0, question.limit))]
        self._look_up(chosen)
        return Explained([reason for name in chosen for reason in self._of(name)], total - len(chosen))

    def _everything(self) -> Iterator[str]:
        """Yield all tasks: first those that wait, as they would start."""
        queue = self._ledger.queue
        for group in sorted(queue.groups.values(), key=Group.head):
            yield from group.tasks
        yield from queue.held
        yield from queue.hoping
        for name, task in self._ledger.tasks.items():
            if task.parts.get(NOWHERE) is not State.WAITING:
                yield name

    def _look_up(self, names: Sequence[TaskId]) -> None:
        """Find the places of those that are ready: one walk through the groups that they are in."""
        sought = set(names)
        for group in self._ledger.queue.groups.values():
            left = sum(name in group.tasks for name in sought)
            for place, name in enumerate(group.tasks):
                if not left:
                    break
                if name in sought:
                    self._places[name], self._groups[name] = place, group
                    left -= 1

    def _of(self, name: TaskId) -> Iterator[Reason]:
        task = self._ledger.tasks.get(name)
        if task is None:
            yield self._of_ended(name)
        elif isinstance(task, BalancedTask) and task.parts.get(NOWHERE) is State.WAITING:
            yield self._waiting(task)
        else:
            yield from self._handed(task)

    def _of_ended(self, name: TaskId) -> Reason:
        ended: Ended | None = self._ledger.ended_record(name)
        if ended is None:
            return Reason(name, "unknown", r.UNKNOWN)
        bad = ended.failed or ((ended.engine.id,) if ended.engine is not None and not ended.succeeded else ())
        state = "done" if ended.succeeded else "failed"
        return Reason(name, state, r.ENDED, client=ended.owner, engines=spans_of(list(bad)))

    # --- tasks that wait ---

    def _waiting(self, task: BalancedTask) -> Reason:
        conditions = [c for c in (task.after, task.follow) if c is not None]
        if task.id in self._ledger.queue.held:
            return self._reason(task, "waiting", r.NEEDS, **self._needs(conditions), **self._trials(task))
        if task.id in self._ledger.queue.hoping:
            return self._reason(task, "waiting", r.CACHED, others=self._equal(task), **self._trials(task))
        choice = self._groups[task.id].choice
        where = {**self._trials(task), **self._limits(task, choice), "behind": self._places[task.id]}
        if self._ledger.returning:
            return self._reason(task, "waiting", r.RESTORED, hosts=_hosts(self._ledger.returning), **where)
        if not any(engine.state is EngineState.ALIVE for engine in self._ledger.engines.values()):
            why = r.STOPPING if self._ledger.engines else r.NO_ENGINES
            engines = spans_of(list(self._ledger.engines))
            return self._reason(task, "waiting", why, coming=self._coming(), engines=engines, **where)
        count, others, rivals = self._busy(choice)
        return self._reason(task, "waiting", r.BUSY, count=count, others=others, rivals=rivals, **where)

    def _equal(self, task: BalancedTask) -> list[Other]:
        """Return the one under way whose result *task* hopes for; nothing if it leads itself."""
        leader = self._ledger.leaders.get(task.cache.digest) if task.cache is not None else None
        found = self._ledger.tasks.get(leader) if leader is not None else None
        return [self._other(found)] if found is not None and found is not task else []

    def _needs(self, conditions: Sequence[Condition]) -> dict[str, object]:
        pending = dict.fromkeys(name for c in conditions for name in c.dependency.tasks if TaskId(name) in c.pending)
        found = [self._ledger.tasks[TaskId(name)] for name in islice(pending, r.MOST_OTHERS)]
        return {"others": [self._other(task) for task in found], "count": len(pending)}

    def _trials(self, task: BalancedTask) -> dict[str, object]:
        within = max(0.0, task.deadline - self._ledger.now) if task.deadline is not None else 0.0
        return {"retries": task.retries, "last_failure": task.last_failure, "within_s": within}

    def _limits(self, task: BalancedTask, choice: Choice) -> dict[str, object]:
        """Say which engines may take *task*, and why no others."""
        known = self._ledger.engines
        avoids = [e.id for e in task.failed_on | task.refused_by if known.get(e.id) is e and _left_out(e.id, choice)]
        return {
            "only": None if choice.among is None else spans_of(list(choice.among)),
            "candidates": task.candidates is not None,
            "follows": task.follow is not None,
            "avoids": spans_of(list(avoids)),
        }

    def _coming(self) -> list[tuple[str, int, int]]:
        worlds = [w for w in self._ledger.worlds.values() if w.engines and not w.complete]
        return [(w.id, len(w.engines), w.size) for w in worlds[: r.MOST_OTHERS]]

    def _busy(self, choice: Choice) -> tuple[int, list[Other], int]:
        """Return how many engines *choice* allows, what takes longest on them, and how many tasks it competes with."""
        found = self._scarce.get(choice)
        if found is None:
            allowed = self._allowed(choice)
            heads = {self._first(engine): None for engine in allowed}
            longest = sorted((t for t in heads if t is not None), key=lambda t: t.given)[: r.MOST_OTHERS]
            groups = self._ledger.queue.groups.values()
            rivals = sum(len(g.tasks) for g in groups if g.choice != choice and _may_go(g.choice, allowed))
            found = self._scarce[choice] = (len(allowed), [self._other(task) for task in longest], rivals)
        return found

    def _allowed(self, choice: Choice) -> list[Engine]:
        known = self._ledger.engines
        among = known if choice.among is None else choice.among
        found = [known[name] for name in among if name not in choice.without]
        return [engine for engine in found if engine.state is EngineState.ALIVE]

    # --- tasks that were handed out ---

    def _handed(self, task: Task) -> Iterator[Reason]:
        """Sort the parts that have not ended by what holds them up."""
        groups: dict[tuple[str, str, TaskId | None, int], list[Engine]] = {}
        for part, state in task.parts.items():
            if state in HANDED:
                engine = self._ledger.engines[part]
                groups.setdefault(self._holdup(task, engine, state), []).append(engine)
        for (state_name, why, first, behind), engines in islice(groups.items(), r.MOST_PARTS):
            head = self._ledger.tasks[first] if first is not None else None
            yield self._reason(
                task,
                state_name,
                why,
                engines=spans_of([engine.id for engine in engines]),
                others=[] if head is None else [self._other(head, engines)],
                behind=behind,
                hosts=sorted({e.host for e in engines})[: r.MOST_OTHERS] if why == r.NODE_AWAY else [],
                for_s=self._since(task, engines) if state_name == "running" else 0.0,
                least=self._at_least(task, engines),
                bytes=sum(content.size for content in task.contents if content.transfer),
                count=max(0, len(groups) - r.MOST_PARTS),
                last_failure=task.last_failure if isinstance(task, BalancedTask) else "",
            )

    def _holdup(self, task: Task, engine: Engine, state: State) -> tuple[str, str, TaskId | None, int]:
        """Return state, reason, the task that *engine* works on if it is another one, and how many come before."""
        behind = self._order(engine)[task.id]
        name = "queued" if behind else "running"
        first = next(iter(self._order(engine))) if behind else None
        agent = self._ledger.agents.get(engine.agent)
        if engine.agent in self._ledger.returning or agent is None or not agent.connected:
            return name, r.NODE_AWAY, first, behind
        if state in TAKEN:
            return name, TAKEN[state], first, behind
        if not behind:
            return name, r.RUNS, None, 0
        return name, r.STOPPING if engine.state is EngineState.STOPPING else r.BEHIND, first, behind

    def _order(self, engine: Engine) -> dict[TaskId, int]:
        """Return the places of what *engine* has: first what it brought when the hub came back."""
        order = self._orders.get(engine.id)
        if order is None:
            brought = {name: place for place, name in enumerate(engine.brought)}
            late = len(brought)
            tasks = sorted(
                (*engine.direct.values(), *engine.balanced.values()),
                key=lambda task: (brought.get(task.id, late), task.turn),
            )
            order = self._orders[engine.id] = {task.id: place for place, task in enumerate(tasks)}
        return order

    def _first(self, engine: Engine) -> Task | None:
        name = next(iter(self._order(engine)), None)
        return None if name is None else self._ledger.tasks[name]

    def _since(self, task: Task, engines: Iterable[Engine]) -> float:
        """Return for how long (s) *task* has been the first on one of *engines*, at most."""
        return max(0.0, self._ledger.now - min(max(task.given, engine.freed) for engine in engines))

    def _at_least(self, task: Task, engines: Iterable[Engine]) -> bool:
        """Say whether *task* was there before the hub was started again: how long, is not known."""
        return task.id in self._ledger.restored or any(task.id in engine.brought for engine in engines)

    # --- what they have in common ---

    def _other(self, task: Task, where: Sequence[Engine] = ()) -> Other:
        """Describe *task*, of which the parts on engines *where* matter (none named: all)."""
        if task.parts.get(NOWHERE) is State.WAITING:
            return Other(task.id, task.label)
        engines = where or [self._ledger.engines[part] for part, state in task.parts.items() if state in HANDED]
        running = [engine for engine in engines if self._first(engine) is task]
        named = spans_of([engine.id for engine in running or engines])
        if not running:
            return Other(task.id, task.label, "queued", named)
        return Other(task.id, task.label, "running", named, self._since(task, running), self._at_least(task, running))

    def _reason(self, task: Task, state: str, why: str, **facts: object) -> Reason:
        owner = self._ledger.clients.get(task.owner)
        away = owner is None or not owner.connected
        values: dict[str, object] = {"attempt": task.attempt, "label": task.label, "op": task.op, **facts}
        return Reason(task.id, state, why, client=task.owner, client_away=away, **values)  # type: ignore[arg-type]


def _left_out(engine: EngineId, choice: Choice) -> bool:
    return engine in choice.without or (choice.among is not None and engine not in choice.among)


def _may_go(choice: Choice, engines: Sequence[Engine]) -> bool:
    """Say whether a task of *choice* may go to one of *engines*."""
    return any(not _left_out(engine.id, choice) for engine in engines)


def _hosts(peers: Iterable[str]) -> list[str]:
    return sorted({peer.rpartition("@")[2] for peer in peers})[: r.MOST_OTHERS]
