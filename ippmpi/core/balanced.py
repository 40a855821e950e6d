"""Tasks that the hub places: they wait for others and for a free engine, move, and are tried again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ippmpi.core.ahead import Ahead
from ippmpi.core.deadlines import Deadlines
from ippmpi.core.dependency import Condition, Location, Verdict
from ippmpi.core.effects import Effect, Release
from ippmpi.core.ending import RETURNED, Ending
from ippmpi.core.engine import Engine
from ippmpi.core.ledger import Ledger
from ippmpi.core.placing import choice_of, matched, why_nowhere
from ippmpi.core.queue import Group
from ippmpi.core.task import NOWHERE, BalancedTask, Event, State, Task
from ippmpi.ids import EngineId, Peer, TaskId
from ippmpi.wire.messages import Dependency, Failure, Reply, Run, Submit

RETRIED = frozenset({"code", "EngineError"})
"""Kinds of failures that ``retries`` are for."""


class Scheduler:
    """Gives waiting tasks to engines.

    Between two messages, no waiting task could start: the policy would choose no engine for any
    group. So a new task is offered once, and afterwards only what touches an engine's load looks
    at the groups that this engine may serve.
    """

    def __init__(self, ledger: Ledger, ending: Ending) -> None:
        """Share the tables."""
        self._ledger = ledger
        self._ending = ending
        self._engines: dict[EngineId, Engine] = {}  # those that take work
        self.dependents: dict[TaskId, dict[TaskId, BalancedTask]] = {}
        self.on_cached_end: Callable[[BalancedTask], Iterator[Effect]] = _nothing
        self.on_cached_adoption: Callable[[BalancedTask], object] = _nothing
        self.deadlines = Deadlines()
        self.ahead = Ahead(ledger)

    # --- tasks come ---

    def make(self, peer: Peer, message: Submit) -> BalancedTask:
        """Make the task of *message*, which has a placement."""
        return BalancedTask(peer, message, self._ledger.next_serial())

    def start(self, task: BalancedTask, message: Submit) -> Iterator[Effect]:
        """Hold *task* until its dependencies are met, then place it."""
        placement = message.placement
        assert placement is not None
        if placement.after is not None and placement.after.tasks:
            task.after = Condition(placement.after)
            self._await(task, task.after, placement.after)
        if placement.follow is not None and placement.follow.tasks:
            task.follow = Location(placement.follow)
            self._await(task, task.follow, placement.follow)
        if task.after is None and task.follow is None:
            return self.begin(task)
        self.start_clock(task)
        self._ledger.queue.held[task.id] = task
        return self._consider(task)

    def begin(self, task: BalancedTask) -> Iterator[Effect]:
        """Place *task*, which depends on no other."""
        self.start_clock(task)
        return self._place(task)

    def _await(self, task: BalancedTask, condition: Condition, dependency: Dependency) -> None:
        for name in dict.fromkeys(map(TaskId, dependency.tasks)):
            ended = self._ledger.ended_record(name)
            if ended is not None:
                condition.note(name, ended.succeeded, ended.engine, ended.failed)
            else:
                self.dependents.setdefault(name, {})[task.id] = task

    def start_clock(self, task: BalancedTask) -> None:
        """Let the time begin in which *task* must start."""
        if task.timeout_s > 0:
            self.deadlines.set(task, self._ledger.now + task.timeout_s)

    # --- tasks start ---

    def _consider(self, task: BalancedTask) -> Iterator[Effect]:
        """Place a held task if its dependencies are met; fail it if they never will be."""
        conditions = [condition for condition in (task.after, task.follow) if condition is not None]
        verdicts = [condition.verdict() for condition in conditions]
        for condition, verdict in zip(conditions, verdicts, strict=True):
            if verdict is Verdict.IMPOSSIBLE:
                yield from self.drop(task, "ImpossibleDependency", condition.reason)
                return
        if all(verdict is Verdict.MET for verdict in verdicts):
            self._ledger.queue.discard(task)
            yield from self._place(task)
        elif task.candidates is not None and task.candidates.isdisjoint(self._engines):
            yield from self.drop(task, "ImpossibleDependency", why_nowhere(task, self._engines))

    def _place(self, task: BalancedTask, *, again: bool = False) -> Iterator[Effect]:
        choice = choice_of(task, self._engines)
        if choice is None:
            yield from self.drop(task, "ImpossibleDependency", why_nowhere(task, self._engines))
            return
        group = self._ledger.queue.put(task, choice, first=again)
        if again or len(group.tasks) == 1:  # else those before it could not start either
            yield from self._hand_out(group)

    def _hand_out(self, group: Group) -> Iterator[Effect]:
        ledger, choice = self._ledger, group.choice
        while group.tasks:
            chosen = ledger.choose(choice.among, choice.without)
            if chosen is None:
                return
            engine = self._engines[chosen]
            if group.near:
                task, engine = matched(group, engine, self._engines)
                ledger.queue.discard(task)
            else:
                task = ledger.queue.pop(group)
            self.deadlines.clear(task)
            task.assign(engine)
            ledger.hand_out(task)
            ledger.load(task, engine)
            self.ahead.given(engine)
            run = Run(task.id, task.op, [engine.id], list(task.contents), task.attempt)
            yield from ledger.to_agent(engine.agent, run)

    def adopt(self, task: BalancedTask, engine: Engine, attempt: int) -> bool:
        """Enter that *engine* has *task*, which was handed out before the hub was restarted; say whether it counts.

        It does if the task waits, or if another engine has an older attempt, which is over.
        """
        if task.parts.get(NOWHERE) is State.WAITING and attempt >= task.attempt:
            self._ledger.queue.discard(task)
            self.deadlines.clear(task)
        elif self._is_past(task, attempt) and task.engine is not None:
            self._ending.unload(task, task.engine)
            task.requeue()
        else:
            return False
        task.attempt = attempt
        task.note_used(attempt)
        task.assign(engine)
        self._ledger.hand_out(task)
        engine.adopted += 1
        self._ledger.load(task, engine)
        if task.cache is not None:
            self.on_cached_adoption(task)
        return True

    def _is_past(self, task: BalancedTask, attempt: int) -> bool:
        """Return whether *task* was adopted as an attempt before *attempt*, which came after its failure."""
        engine = task.engine
        adopted = engine is not None and task.id in engine.balanced and engine.adopted > 0
        return adopted and attempt > task.attempt and State.RUNNING in task.parts.values()

    def resume(self) -> Iterator[Effect]:
        """Hand out work again: the last agent has returned."""
        for engine in self._engines.values():
            self._ledger.report_load(engine)
        yield from self._serve_all()

    def settle(self) -> Iterator[Effect]:
        """Follow up what ended and whose load changed, until nothing more can start."""
        ending = self._ending
        while ending.finished or ending.touched:
            while ending.finished:
                yield from self._wake(ending.finished.popleft())
            while ending.touched:
                engine, _ = ending.touched.popitem()
                for group in self._ledger.queue.groups_for(engine.id):
                    yield from self._hand_out(group)

    def _wake(self, task: Task) -> Iterator[Effect]:
        """Tell those who depend on *task* how it ended."""
        if isinstance(task, BalancedTask):
            self._unregister(task)
            if task.cache is not None:
                yield from self.on_cached_end(task)
        for dependent in self.dependents.pop(task.id, {}).values():
            for condition in (dependent.after, dependent.follow):
                if condition is not None and task.id in condition.pending:
                    condition.note(task.id, task.succeeded, task.engine, task.failed)
            if dependent.id in self._ledger.queue.held:
                yield from self._consider(dependent)

    def _unregister(self, task: BalancedTask) -> None:
        for condition in (task.after, task.follow):
            for name in condition.pending if condition is not None else ():
                others = self.dependents.get(name)
                if others is not None and others.pop(task.id, None) is not None and not others:
                    del self.dependents[name]

    # --- tasks end, or come back ---

    def drop(
        self, task: BalancedTask, kind: str, text: str, *, event: Event = Event.FAIL, engine: Engine | None = None
    ) -> Iterator[Effect]:
        """End a task that waits."""
        self._ledger.queue.discard(task)
        self.deadlines.clear(task)
        return self._ending.fail(task, NOWHERE, kind, text, event=event, engine=engine)

    def reply(self, task: BalancedTask, engine: Engine, message: Reply, event: Event) -> Iterator[Effect]:
        """End *task*, or try it elsewhere, after *engine* replied."""
        failure = message.failure
        if event is not Event.ABORT:
            self.ahead.learn(engine, message)
        elif task.parts[engine.id] is State.RETURNING or (failure is not None and failure.kind == RETURNED):
            if message.content.transfer:  # of a broken peer
                yield Release(message.content)
            yield from self.hand_back(task, engine)
            return
        if failure is None or not self._goes_on(task, engine, failure):
            yield from self._ending.end(task, engine.id, event, message)
            return
        if message.content.transfer:
            yield Release(message.content)
        yield from self._try_again(task, engine, failure)

    def lose(self, task: BalancedTask, engine: Engine, failure: Failure) -> Iterator[Effect]:
        """End *task*, or try it elsewhere, as *engine* is lost."""
        if self._goes_on(task, engine, failure):
            return self._try_again(task, engine, failure)
        return self._ending.fail(task, engine.id, failure.kind, failure.evalue, event=Event.ENGINE_DIED, engine=engine)

    def hand_back(self, task: BalancedTask, engine: Engine) -> Iterator[Effect]:
        """Put *task*, which *engine* has not begun, back to the front of the queue, if anybody still wants it."""
        why = "taken back before it started"
        if task.parts[engine.id] is State.RECALLED:
            yield from self._ending.fail(task, engine.id, "TaskAborted", why, event=Event.ABORT, engine=engine)
            return
        self._ending.unload(task, engine)
        task.requeue()
        if self._ledger.owner_of(task) is None:
            yield from self.drop(task, "TaskAborted", why, event=Event.ABORT)
            return
        yield from self._wait_again(task)

    def _goes_on(self, task: BalancedTask, engine: Engine, failure: Failure) -> bool:
        """Decide whether *failure* is not the end, and note where the task need not be tried again."""
        if task.parts[engine.id] is State.RECALLED or self._ledger.owner_of(task) is None:
            return False
        if failure.kind == "UnmetDependency":
            task.refused_by |= {engine}
            return True
        if task.retries <= 0 or failure.kind not in RETRIED:
            return False
        task.retries -= 1
        task.failed_on |= {engine}
        return True

    def _try_again(self, task: BalancedTask, engine: Engine, failure: Failure) -> Iterator[Effect]:
        task.last_failure = f"{failure.ename}: {failure.evalue}"
        engine.freed = self._ledger.now
        self._ending.unload(task, engine)
        task.requeue()
        return self._wait_again(task)

    def _wait_again(self, task: BalancedTask) -> Iterator[Effect]:
        self.start_clock(task)
        if task.follow is None:
            return self._place(task, again=True)
        self._ledger.queue.held[task.id] = task
        return self._consider(task)  # what it follows may be gone by now

    def expire(self) -> Iterator[Effect]:
        """Fail the tasks that have waited too long, take back those that wait behind long ones."""
        for task in self.deadlines.expired(self._ledger.now):
            what = self._waited_for(task)
            last = f"; before that: {task.last_failure}" if task.last_failure else ""
            yield from self.drop(task, "TaskTimeout", f"{what} within {task.timeout_s:g} s{last}")
        yield from self.ahead.recall()

    def _waited_for(self, task: BalancedTask) -> str:
        queue = self._ledger.queue
        if task.id in queue.hoping:
            return "an equal task that runs did not end"
        return "its dependencies were not met" if task.id in queue.held else "no engine was free"

    def next_deadline(self) -> float | None:
        """Return when ``expire`` has something to do."""
        first, second = self.deadlines.next(), self.ahead.due
        if first is None or second is None:
            return second if first is None else first
        return min(first, second)

    # --- engines come and go ---

    def join(self, engines: Iterable[Engine]) -> Iterator[Effect]:
        """Use new *engines*, also for waiting tasks that name them."""
        for engine in engines:
            self._engines[engine.id] = engine
            self._ledger.report_load(engine)
        queue = self._ledger.queue
        yield from self._place_anew([g for g in queue.groups.values() if g.choice.among is not None])
        yield from self._serve_all()

    def leave(self, engines: Iterable[Engine]) -> Iterator[Effect]:
        """Do without *engines*; tasks that could only run there fail, naming why."""
        gone = [engine for engine in engines if self._engines.get(engine.id) is engine]
        queue = self._ledger.queue
        for engine in gone:
            del self._engines[engine.id]
            self._ledger.withdraw(engine)
        for engine in gone:
            yield from self._place_anew(queue.forget(engine.id))
        yield from self._place_anew(
            [g for g in queue.groups.values() if g.choice.without and len(g.choice.without) >= len(self._engines)]
        )
        for task in [t for t in queue.held.values() if t.follow is not None or t.candidates is not None]:
            yield from self._consider(task)
        yield from self._serve_all()

    def _place_anew(self, groups: list[Group]) -> Iterator[Effect]:
        for task in self._ledger.queue.drain(groups):
            if task.follow is None:
                yield from self._place(task)
            else:
                self._ledger.queue.held[task.id] = task
                yield from self._consider(task)

    def _serve_all(self) -> Iterator[Effect]:
        for group in sorted(self._ledger.queue.groups.values(), key=Group.head):
            yield from self._hand_out(group)


def _nothing(task: BalancedTask) -> Iterator[Effect]:  # noqa: ARG001 - that of nobody
    return iter(())
