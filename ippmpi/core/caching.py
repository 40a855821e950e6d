"""Balanced tasks whose results are cached: they hope for a result before they wait for an engine.

The key is the client's; here it is only compared. Of equal tasks at the same time one leads, which runs if nothing is
cached; the others wait for its end. A value is cached before they look for it, so they find it. If the leader's own
code failed they run as well, each on its own, as errors are not cached; if it was taken back or lost, the next one
leads.
"""

from __future__ import annotations

from collections.abc import Iterator

from ippmpi.core.balanced import Scheduler
from ippmpi.core.effects import Effect, Recall, Release
from ippmpi.core.ending import Ending
from ippmpi.core.ledger import Ledger
from ippmpi.core.task import NOWHERE, BalancedTask, Event, State
from ippmpi.ids import TaskId
from ippmpi.wire.messages import Content, Reply, Submit

NOBODY = "no result is cached, and no engine is registered that could find one"


class Caching:
    """Who leads and who follows, by digests."""

    def __init__(self, ledger: Ledger, ending: Ending, scheduler: Scheduler) -> None:
        """Share the tables."""
        self._ledger = ledger
        self._ending = ending
        self._scheduler = scheduler
        self.leaders = ledger.leaders
        self.followers: dict[str, dict[TaskId, BalancedTask]] = {}
        scheduler.on_cached_end = self._ended
        scheduler.on_cached_adoption = self._adopted

    def hope(self, task: BalancedTask, message: Submit) -> Iterator[Effect]:  # noqa: ARG002 - as Scheduler.start
        """Look for a result of *task*, which has a key and no dependency; or wait, if an equal one is under way."""
        self._ledger.queue.hoping[task.id] = task
        self._scheduler.start_clock(task)
        if self._leads(task):
            yield Recall(task.id, _digest(task))

    def _leads(self, task: BalancedTask) -> bool:
        """Make *task* the one that leads, or let it follow; say whether it leads."""
        digest = _digest(task)
        if self.leaders.setdefault(digest, task.id) == task.id:
            return True
        self.followers.setdefault(digest, {})[task.id] = task
        return False

    def recalled(self, name: TaskId, content: Content | None, now: float) -> Iterator[Effect]:
        """End a task with the cached value that was found at *now* (s since the epoch), or let it run.

        It may have ended meanwhile, or (after a restart) run already.
        """
        task = self._ledger.queue.hoping.get(name)
        if task is None:
            if content is not None and content.transfer:
                yield Release(content)
        elif content is not None:
            self._stop_hoping(task)
            reply = Reply(name, NOWHERE, content, None, now, now, task.attempt)
            yield from self._ending.end(task, NOWHERE, Event.FINISH, reply)
        elif task.cache is not None and task.cache.engineless and not self._ledger.engines:
            yield from self._scheduler.drop(task, "NoEnginesRegistered", NOBODY)
        elif self._leads(task):  # else it followed one whose value could not be cached, and so did another
            yield from self._run(task)

    def _run(self, task: BalancedTask) -> Iterator[Effect]:
        self._stop_hoping(task)
        return self._scheduler.begin(task)

    def _stop_hoping(self, task: BalancedTask) -> None:
        self._ledger.queue.discard(task)
        self._scheduler.deadlines.clear(task)

    def _adopted(self, task: BalancedTask) -> None:
        """Let *task* lead, as an engine has it from before a restart; one that led, and waits, follows."""
        digest = _digest(task)
        former = self._ledger.tasks.get(self.leaders.get(digest, task.id))
        self.leaders[digest] = task.id
        followers = self.followers.setdefault(digest, {})
        followers.pop(task.id, None)
        if isinstance(former, BalancedTask) and former.parts.get(NOWHERE) is State.WAITING:
            self._ledger.queue.discard(former)
            self._ledger.queue.hoping[former.id] = followers[former.id] = former
        if not followers:
            del self.followers[digest]

    def _ended(self, task: BalancedTask) -> Iterator[Effect]:
        """Let those that followed *task* go on."""
        digest = _digest(task)
        others = self.followers.get(digest, {})
        others.pop(task.id, None)
        if self.leaders.get(digest) == task.id:
            del self.leaders[digest]
            hoping = [other for other in others.values() if other.id in self._ledger.queue.hoping]
            others.clear()
            yield from self._follow_up(task, hoping)
        if not others:
            self.followers.pop(digest, None)

    def _follow_up(self, task: BalancedTask, hoping: list[BalancedTask]) -> Iterator[Effect]:
        states = set(task.parts.values())
        if states == {State.DONE}:
            for other in hoping:
                yield Recall(other.id, _digest(other))
        elif states == {State.FAILED}:
            for other in hoping:
                yield from self._run(other)
        elif hoping:
            for other in hoping:
                self._leads(other)
            yield from self._run(hoping[0])


def _digest(task: BalancedTask) -> str:
    assert task.cache is not None
    return task.cache.digest
