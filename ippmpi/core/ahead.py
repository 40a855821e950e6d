"""How much balanced work an engine may hold: enough to never wait for more, so little that nothing waits behind it.

An engine starts with one task. As long as its tasks are short it is given more ahead, up to about ``AHEAD_S`` of work
behind the one that runs, so that tasks and replies travel in batches. If one turns out to be long, those that wait
behind it are taken back after ``PATIENCE_S`` and given to others.
"""

from __future__ import annotations

from collections.abc import Iterator

from ippmpi.core.effects import Effect
from ippmpi.core.engine import Engine
from ippmpi.core.ledger import Ledger
from ippmpi.core.task import Event, State
from ippmpi.wire.messages import Reply, Revoke

AHEAD_S = 0.005
MOST_AHEAD = 64
PATIENCE_S = 0.02

SHORTEST_S = 5e-5  # what any task takes, with all that belongs to it
LONGEST_S = 1.0
FADE = 0.8
"""A long task is remembered: the next ones are believed to take this part of its time, each that of the one before."""


class Ahead:
    """Sets ``Engine.ahead``, and takes back what was handed out too early."""

    def __init__(self, ledger: Ledger) -> None:
        """Share the tables."""
        self._ledger = ledger
        self._waiting: dict[Engine, None] = {}  # engines that hold more than one balanced task, or did so lately
        self.due: float | None = None

    def learn(self, engine: Engine, reply: Reply) -> None:
        """Look how long a task took on *engine*."""
        took = reply.completed - reply.started  # by the engine's clock, which need not make sense
        took = max(took, SHORTEST_S) if 0 < took <= LONGEST_S else LONGEST_S
        engine.pace_s = max(took, engine.pace_s * FADE)
        engine.ahead = max(1, min(2 * engine.ahead, 1 + int(AHEAD_S / engine.pace_s), MOST_AHEAD))
        engine.moved = self._ledger.now

    def given(self, engine: Engine) -> None:
        """Note that *engine* was handed a task."""
        if len(engine.balanced) == 1:
            engine.moved = self._ledger.now
        elif engine not in self._waiting:
            self._waiting[engine] = None
            if self.due is None:
                self.due = self._ledger.now + PATIENCE_S

    def recall(self) -> Iterator[Effect]:
        """Ask back what waits behind tasks that take long."""
        now = self._ledger.now
        if self.due is None or now < self.due:
            return
        self.due = None
        for engine in list(self._waiting):
            if len(engine.balanced) < 2:
                del self._waiting[engine]
            elif now >= engine.moved + PATIENCE_S:
                del self._waiting[engine]
                yield from self._take_back(engine)
            else:
                due = engine.moved + PATIENCE_S
                self.due = due if self.due is None else min(self.due, due)

    def _take_back(self, engine: Engine) -> Iterator[Effect]:
        engine.ahead = 1
        engine.pace_s = LONGEST_S
        self._ledger.report_load(engine)
        _, *behind = engine.balanced.values()  # in the order in which they were handed out: the first one may run
        for task in reversed(behind):  # each comes back to the front of the queue
            if task.parts[engine.id] is State.RUNNING:
                task.move(engine.id, Event.RECLAIM)
                yield from self._ledger.to_agent(engine.agent, Revoke(task.id, [engine.id], reclaim=True))
