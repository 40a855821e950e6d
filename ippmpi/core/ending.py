"""How parts of tasks end: exactly once, told to the owner, and nothing of theirs stays behind."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import cast

from ippmpi.core.effects import Effect, Keep, Send, Shelve
from ippmpi.core.engine import Engine
from ippmpi.core.ledger import Ledger, release
from ippmpi.core.task import HANDED, Event, Task
from ippmpi.ids import EngineId
from ippmpi.wire.messages import Content, Failure, Replies, Reply

EMPTY = Content()

RETURNED = "TaskReturned"
"""The kind of failure with which an engine gives back what was handed to it too early."""


class Ending:
    """Ends parts, and notes what that sets free; the scheduler then works off ``finished`` and ``touched``.

    Following these up later, in a loop, keeps a chain of 20,000 dependent tasks from being a recursion.
    """

    def __init__(self, ledger: Ledger) -> None:
        """Nothing has ended yet."""
        self._ledger = ledger
        self.finished: deque[Task] = deque()
        self.touched: dict[Engine, None] = {}

    def touch(self, engine: Engine) -> None:
        """Note that the load of *engine* changed."""
        if self._ledger.queue.ready:  # else there is nothing to hand out
            self.touched[engine] = None

    def touch_all(self, engines: Iterable[Engine]) -> None:
        """Note that the load of several engines changed."""
        if self._ledger.queue.ready:
            self.touched.update(dict.fromkeys(engines))

    def unload(self, task: Task, engine: Engine) -> None:
        """Take *task* off *engine*'s load."""
        self._ledger.unload(task, engine)
        self.touch(engine)

    def end(self, task: Task, part: EngineId, event: Event, reply: Reply) -> Iterator[Effect]:
        """End one part of *task*; *reply* is what the owner hears."""
        ledger = self._ledger
        self._move(task, part, event)
        yield Keep(task.id, reply)
        if ledger.owner_of(task) is not None:
            yield Send(task.owner, reply)
        elif reply.content.transfer:
            yield Shelve(reply.content)
        if ledger.followers:
            yield from ledger.tell_followers(reply)
        if not task.open:
            yield from self._close(task)

    def end_together(self, task: Task, message: Replies) -> Iterator[Effect]:
        """End the parts of *task*, all of them on engines, that *message*, which has no large contents, is about."""
        ledger = self._ledger
        ends: dict[Event, list[int]] = {}
        for reply in message.replies:
            event = Event.FINISH if reply.failure is None else event_of(reply)
            ends.setdefault(event, []).append(reply.engine)
        for event, places in ends.items():
            self._move_all(task, cast("list[EngineId]", places), event)
        yield Keep(task.id, message)
        if ledger.owner_of(task) is not None:
            yield Send(task.owner, message)
        if ledger.followers:
            yield from ledger.tell_followers(message)
        if not task.open:
            yield from self._close(task)

    def _move(self, task: Task, part: EngineId, event: Event) -> None:
        ledger = self._ledger
        engine = ledger.engines.get(part) if task.parts[part] in HANDED else None
        state = task.move(part, event)
        ledger.outcomes[state] += 1
        if engine is not None:
            self.unload(task, engine)
            if event is not Event.ABORT:
                engine.freed = ledger.now
            engine.completed += 1
            engine.recent.append(task.id)

    def _move_all(self, task: Task, places: list[EngineId], event: Event) -> None:
        ledger, name = self._ledger, task.id
        task.move_all(places, event)
        ledger.outcomes[task.parts[places[0]]] += len(places)
        engines = [ledger.engines[place] for place in places]
        ledger.unload_all(task, engines)
        self.touch_all(engines)
        now = ledger.now
        for engine in engines:
            engine.freed = now
            engine.completed += 1
            engine.recent.append(name)

    def _close(self, task: Task) -> Iterator[Effect]:
        self._ledger.remember(task)
        self.finished.append(task)
        yield from release(task.contents)

    def fail(
        self,
        task: Task,
        part: EngineId,
        kind: str,
        text: str,
        *,
        event: Event = Event.FAIL,
        engine: Engine | None = None,
    ) -> Iterator[Effect]:
        """End one part of *task* with a failure of class *kind*; *engine* is the one it is about."""
        return self.end(task, part, event, Reply(task.id, part, EMPTY, failure(kind, text, engine)))


def event_of(reply: Reply) -> Event:
    """Return what *reply* does to its part."""
    if reply.failure is None:
        return Event.FINISH
    return Event.ABORT if reply.failure.kind in ("TaskAborted", RETURNED) else Event.FAIL


def failure(kind: str, text: str, engine: Engine | None = None) -> Failure:
    """Make the text that travels for an error of class *kind* of ``errors.py``."""
    if engine is None:
        return Failure(kind, text, kind=kind)
    return Failure(
        kind,
        text,
        kind=kind,
        engine=engine.id,
        rank=engine.rank,
        world=engine.world,
        host=engine.host,
        pid=engine.pid,
    )
