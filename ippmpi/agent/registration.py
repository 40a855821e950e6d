"""How the controller gets to know this node's ranks: all in one message if they come together."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ippmpi.agent.members import UNASSIGNED, LocalEngine, Members
from ippmpi.agent.seams import Conversation, Loop, Timer
from ippmpi.wire.messages import EngineRecord, RegisterEngines

PATIENCE_S = 1.0
"""How long after the latest rank the rest of the node is waited for."""


class Registration:
    """Collects ranks, registers them, and registers them again at a controller that knows nothing."""

    def __init__(self, world: str, loop: Loop, controller: Conversation, members: Members) -> None:
        """Register *members* of *world* at *controller*."""
        self._world = world
        self._loop = loop
        self._controller = controller
        self._members = members
        self._new: dict[LocalEngine, list[Callable[[], None]]] = {}
        self._known: set[LocalEngine] = set()
        self._dying: dict[LocalEngine, None] = {}
        self._timer: Timer | None = None
        self._holds = False

    def hold(self) -> None:
        """Say nothing until ``whole``: a controller that was restored takes what it hears for all that there is."""
        self._holds = True

    def add(self, engine: LocalEngine, done: Callable[[], None]) -> None:
        """Register *engine* soon; *done* is called when the controller knows it."""
        if engine in self._known:
            done()
            return
        self._new.setdefault(engine, []).append(done)
        if len(self._members) >= engine.ready.local_size:
            self.flush()
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(PATIENCE_S, self.flush)

    def flush(self) -> None:
        """Register now whoever is there."""
        if self._holds:
            return
        on_ack, new = self._take_new()
        if new:
            self._controller.send(self._message(new), on_ack=on_ack)

    def _take_new(self) -> tuple[Callable[[], None], list[LocalEngine]]:
        """Return those that are not registered, and what is to be called when they are."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        new, self._new = self._new, {}

        def on_ack() -> None:
            self._known |= {engine for engine in new if engine in self._members}
            for waiting in new.values():
                for done in waiting:
                    done()

        return on_ack, list(new)

    def again(self) -> None:
        """Register all once more: the controller is a new process. Those under way are sent again by the session.

        Say also what they have: a controller that was restored would send it again. And what those had of whose loss
        it has not heard: it would send that to others.
        """
        known = [engine for engine in self._members if engine in self._known or engine.id != UNASSIGNED]
        known += [engine for engine in self._dying if self._members.of_rank(engine.ready.rank) is None]
        if known and not self._holds:
            message = msgspec.structs.replace(self._message(known), tasks=[engine.has() for engine in known])
            # before their replies and losses, which the session sends again too
            self._controller.send(message, urgent=True)

    def whole(self) -> None:
        """Register those who are there as all that this node has; the controller may be a new one too."""
        self._holds = False
        on_ack, _ = self._take_new()
        here = list(self._members)
        message, tasks = self._message(here, whole=True), [engine.has() for engine in here]
        self._controller.send(msgspec.structs.replace(message, tasks=tasks) if any(tasks) else message, on_ack=on_ack)

    def forget(self, engine: LocalEngine) -> None:
        """*engine* is lost; the controller will hear of it."""
        self._known.discard(engine)
        if engine.id != UNASSIGNED:
            self._dying[engine] = None

    def bury(self, engine: LocalEngine) -> None:
        """The controller has heard of the loss of *engine*."""
        self._dying.pop(engine, None)

    def _message(self, engines: list[LocalEngine], *, whole: bool = False) -> RegisterEngines:
        records = [
            EngineRecord(UNASSIGNED, e.ready.rank, self._world, e.ready.host, e.ready.pid, e.ready.size)
            for e in engines
        ]
        return RegisterEngines(self._world, engines[0].ready.size, records, whole)
