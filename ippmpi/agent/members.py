"""The engines of this node, and what each still has to acknowledge."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from ippmpi.agent.seams import Conversation
from ippmpi.wire.messages import EngineReady, Held

UNASSIGNED = -1
_REMEMBERED = 1024  # a controller that starts again resends only what was not acknowledged
_TOLD = 1000
_FAILED = 256  # a task that is tried again goes before others, so only the last ones may still wait for it


@dataclass(slots=True, eq=False)
class LocalEngine:
    """One rank on this node.

    Attributes:
        id: its id in the cluster, ``UNASSIGNED`` until the controller chose.
        told_to_stop: its end, when it comes, is expected.
        tasks: sent to it and not replied, oldest first, with their attempts.
        replied: those whose reply the controller has not acknowledged, with their attempts.
        failed: the last of ``finished`` whose reply was a failure, with their attempts.
        awaiting: tasks whose content is under way.
        last_task: the one that it replied to last; ``finished``: some more of them.
        waiting: see ``FanOut``: to be called when it acknowledges, or is lost.
    """

    ready: EngineReady
    conversation: Conversation
    id: int = UNASSIGNED
    told_to_stop: bool = False
    tasks: dict[str, int] = field(default_factory=dict)
    last_task: str = ""
    finished: dict[str, int] = field(default_factory=dict)
    waiting: set[Callable[[], None]] = field(default_factory=set)
    replied: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    awaiting: set[str] = field(default_factory=set)

    def has(self) -> list[Held]:
        """Name the tasks that need not be sent to it again by a controller that has lost its memory.

        Name also those that it would drop if they were sent to it as an attempt that it has seen.
        """
        here = {**self.replied, **self.tasks}
        held = [Held(task, attempt, task in self.awaiting) for task, attempt in here.items()]
        return held + [Held(task, attempt + 1, True) for task, attempt in self.failed.items() if task not in here]

    def __str__(self) -> str:
        """Name it as logs do."""
        return f"rank {self.ready.rank} (pid {self.ready.pid})"

    def current_task(self) -> str:
        """Name the task that its output belongs to: the oldest that has not replied, else the last one."""
        return next(iter(self.tasks), self.last_task)

    def untouched(self, begun: str) -> list[str]:
        """Name the tasks that it has not begun, the oldest thousand, if it has marked *begun* as the last one.

        Without a mark a task begins only if it is the first one.
        """
        names = list(self.tasks)
        position = names.index(begun) if begun in self.tasks else 0
        return names[position + 1 :][:_TOLD]

    def resume(self, ready: EngineReady) -> None:
        """Know what the agent knew that this rank had before; which of its replies were failures, nobody remembers."""
        self.tasks = dict(ready.tasks)
        self.finished = dict(ready.finished)
        self.failed = dict(list(self.finished.items())[-_FAILED:])
        self.last_task = next(reversed(self.finished), "")

    def begin(self, task: str, attempt: int = 0) -> None:
        """Note that *task* was sent, unless this attempt came again after its reply, or after a later one.

        The engine will not run it.
        """
        if attempt > self.finished.get(task, -1) and attempt >= self.tasks.get(task, 0):
            self.tasks[task] = attempt

    def is_past(self, task: str, attempt: int) -> bool:
        """Return whether a later attempt at *task* is here, or has ended."""
        return attempt < self.tasks.get(task, self.finished.get(task, -1))

    def finish(self, task: str, *, failed: bool = False) -> None:
        """Note that *task* has replied."""
        if task in self.tasks or task not in self.finished:
            self.last_task = task
        attempt = self.tasks.pop(task, self.finished.pop(task, 0))
        self.finished[task] = attempt
        self.failed.pop(task, None)
        if failed:
            self.failed[task] = attempt
            if len(self.failed) > _FAILED:
                del self.failed[next(iter(self.failed))]
        if len(self.finished) > _REMEMBERED:
            oldest = next(iter(self.finished))
            del self.finished[oldest]
            self.failed.pop(oldest, None)


class Members:
    """Engines that are present, by id, by rank and by conversation."""

    def __init__(self) -> None:
        """Start with nobody."""
        self._by_rank: dict[int, LocalEngine] = {}
        self._by_id: dict[int, LocalEngine] = {}
        self._by_conversation: dict[Conversation, LocalEngine] = {}

    def __len__(self) -> int:
        """Count them."""
        return len(self._by_rank)

    def __iter__(self) -> Iterator[LocalEngine]:
        """Iterate over them; safe while members leave."""
        return iter(tuple(self._by_rank.values()))

    def add(self, engine: LocalEngine) -> None:
        """Let *engine* join; its rank must be free."""
        self._by_rank[engine.ready.rank] = engine
        self._by_conversation[engine.conversation] = engine

    def move(self, engine: LocalEngine, conversation: Conversation) -> None:
        """*engine* speaks through another *conversation* from now on."""
        self._by_conversation.pop(engine.conversation, None)
        self._by_conversation[conversation] = engine
        engine.conversation = conversation

    def assign(self, engine: LocalEngine, engine_id: int) -> None:
        """Give *engine* its id."""
        if self._by_id.get(engine.id) is engine:
            del self._by_id[engine.id]
        engine.id = engine_id
        self._by_id[engine_id] = engine

    def remove(self, engine: LocalEngine) -> None:
        """Forget *engine* and treat as acknowledged whatever was on its way to it: nobody waits for the dead."""
        self._by_rank.pop(engine.ready.rank, None)
        self._by_conversation.pop(engine.conversation, None)
        if self._by_id.get(engine.id) is engine:
            del self._by_id[engine.id]
        for met in tuple(engine.waiting):
            met()

    def of_rank(self, rank: int) -> LocalEngine | None:
        """Return the one with this rank."""
        return self._by_rank.get(rank)

    def of_conversation(self, conversation: Conversation) -> LocalEngine | None:
        """Return the one that speaks through *conversation*."""
        return self._by_conversation.get(conversation)

    def anyone_has(self, task: str) -> bool:
        """Return whether any engine still has to reply to *task*."""
        return any(task in engine.tasks for engine in self._by_rank.values())

    def with_ids(self, ids: Iterable[int]) -> list[LocalEngine]:
        """Return those of *ids* that are present; the controller hears of the others by ``EngineLost``."""
        return [engine for one in ids if (engine := self._by_id.get(one))]


class FanOut:
    """One message from the controller on its way to several engines.

    ``done`` is called once: when everything expected has been met and ``close`` was called.
    """

    def __init__(self, done: Callable[[], None]) -> None:
        """Start open: ``done`` cannot come before ``close``."""
        self._done = done
        self._pending = 1

    def expect(self, engine: LocalEngine) -> Callable[[], None]:
        """Expect an acknowledgement of *engine*; return what to call when it came. The engine's loss counts too."""

        def met() -> None:
            if met in engine.waiting:  # an acknowledgement may come after the loss
                engine.waiting.remove(met)
                self.close()

        self._pending += 1
        engine.waiting.add(met)
        return met

    def expect_other(self) -> Callable[[], None]:
        """Expect something that no engine has to do; return what to call, once, when it is done."""
        self._pending += 1
        return self.close

    def close(self) -> None:
        """Take one expectation away (the last one calls ``done``); whoever made this object calls it once."""
        self._pending -= 1
        if self._pending == 0:
            self._done()
