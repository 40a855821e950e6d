"""Answers about the state: who is there, what is queued, which tasks have ended."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import msgspec

from ippmpi.core.engine import Engine
from ippmpi.core.explaining import explain
from ippmpi.core.ledger import Ledger, spans
from ippmpi.core.task import State
from ippmpi.ids import EngineId, TaskId
from ippmpi.wire.messages import Answer, Query
from ippmpi.wire.reasons import Question

T = TypeVar("T")


class QueueArguments(msgspec.Struct, frozen=True):
    """Of ``queue_status``. ``verbose``: lists of task ids instead of counts; ``targets`` None: all."""

    targets: list[int] | None = None
    verbose: bool = False


class Queries:
    """Reads the tables; changes nothing."""

    def __init__(self, ledger: Ledger) -> None:
        """Read these tables."""
        self._ledger = ledger

    def answer(self, message: Query) -> Answer:
        """Answer *message*, with an error text if it cannot be understood."""
        try:
            value = self._value(message)
        except (LookupError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return Answer(message.request, error=str(error.args[0] if error.args else error))
        return Answer(message.request, msgspec.msgpack.encode(value))

    def _value(self, message: Query) -> object:
        if message.what == "status":
            return self.status()
        if message.what == "queue_status":
            return self.queue_status(_decode(message.arguments, QueueArguments) or QueueArguments())
        if message.what == "result_status":
            return self.result_status(_decode(message.arguments, list[str]) or [])
        if message.what == "explain":
            return explain(self._ledger, _decode(message.arguments, Question) or Question())
        others = "explain, results, fetch, history, search, purge, originals, cached, uncache"
        raise LookupError(f"no query {message.what!r}; have status, queue_status, result_status, {others}")

    def status(self) -> dict[str, object]:
        """Return everything that a status page shows, as lists of records and counts."""
        ledger = self._ledger
        waiting = len(ledger.queue)
        outcomes = {
            state.value: ledger.outcomes[state] for state in (State.DONE, State.FAILED, State.ABORTED, State.LOST)
        }
        return {
            "engines": [_engine_status(engine) for _, engine in sorted(ledger.engines.items())],
            "clients": [
                {"name": client.peer, "connected": client.connected, "tasks": len(client.tasks), **client.about}
                for client in ledger.clients.values()
            ],
            "agents": [
                {"name": agent.peer, "connected": agent.connected, "engines": len(agent.engines)}
                for agent in ledger.agents.values()
            ],
            "worlds": [
                {"name": w.id, "size": w.size, "base": w.base, "registered": len(w.engines), "complete": w.complete}
                for w in ledger.worlds.values()
                if w.engines
            ],
            "tasks": {"waiting": waiting, "running": len(ledger.tasks) - waiting, **outcomes},
        }

    def queue_status(self, arguments: QueueArguments) -> dict[object, object]:
        """Return, by engine id, direct (``queue``) and balanced (``tasks``) work and what is completed."""
        ledger = self._ledger
        wanted = ledger.engines.keys() if arguments.targets is None else map(EngineId, arguments.targets)
        answer: dict[object, object] = {}
        for target in sorted(wanted):
            engine = ledger.engines.get(target)
            if engine is None:
                raise LookupError(f"no engine {target}; have {spans(ledger.engines)}")
            answer[target] = _verbose(engine) if arguments.verbose else _counts(engine)
        queue = ledger.queue
        answer["unassigned"] = [task.id for task in queue] if arguments.verbose else len(queue)
        return answer

    def result_status(self, names: Iterable[str]) -> dict[str, list[str]]:
        """Sort task ids into those that are pending, completed, and not (or no longer) known."""
        answer: dict[str, list[str]] = {"pending": [], "completed": [], "unknown": []}
        for name in names:
            task = TaskId(name)
            kind = (
                "pending"
                if task in self._ledger.tasks
                else "completed"
                if self._ledger.ended_record(task)
                else "unknown"
            )
            answer[kind].append(name)
        return answer


def _decode(data: bytes, kind: type[T]) -> T | None:
    return msgspec.msgpack.decode(data, type=kind | None)


def _counts(engine: Engine) -> dict[str, int]:
    return {"queue": len(engine.direct), "tasks": len(engine.balanced), "completed": engine.completed}


def _verbose(engine: Engine) -> dict[str, list[TaskId]]:
    return {"queue": list(engine.direct), "tasks": list(engine.balanced), "completed": list(engine.recent)}


def _engine_status(engine: Engine) -> dict[str, object]:
    return {
        "id": engine.id,
        "rank": engine.rank,
        "world": engine.world,
        "host": engine.host,
        "pid": engine.pid,
        "state": engine.state.value,
        **_counts(engine),
    }
