"""What the controller has stored: results of this client, of others, and of processes that are gone."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec

from ippmpi.client.chunks import items_of, unpickle_items
from ippmpi.client.collector import Collector
from ippmpi.client.contents import Flat
from ippmpi.client.failures import to_error
from ippmpi.client.handles import Getter
from ippmpi.client.maps import FailedChunk
from ippmpi.client.parts import Part
from ippmpi.client.replies import unpickle_reply
from ippmpi.client.requests import Pending, Requests, UnansweredError
from ippmpi.client.results import AsyncResult
from ippmpi.wire import pickling
from ippmpi.wire.handles import Handle, Kept, handle_of
from ippmpi.wire.messages import Failure, Query

STATES = ("pending", "ok", "failed", "lost")
AT_ONCE = 100
"""Tasks that are fetched by one question."""


@dataclass(frozen=True, slots=True)
class StoredResult:
    """One request as the controller has stored it.

    ``state``: ``pending`` (it waits or runs), ``ok``, ``failed``, or ``lost`` (the store could not keep all of it, or
    its controller ended first). ``engines``: its targets, or where a balanced task ended. ``own``: this client made it.
    """

    task: str
    label: str
    state: str
    op: str
    submitted: datetime
    finished: datetime | None
    engines: list[int]
    own: bool
    balanced: bool


class AsyncHubResult(AsyncResult):
    """What ``get_result`` gives: an AsyncResult of tasks of any client, from the store or still to come."""


class Stored:
    """The questions of one client about what is stored."""

    def __init__(self, client_id: str, requests: Requests) -> None:
        """Ask by *requests*."""
        self._id = client_id
        self._requests = requests
        self._lock = threading.Lock()
        self._followed: dict[str, Pending] = {}
        self._asked: dict[str, Future[Any]] = {}
        requests.on_new_life = self._follow_again

    def results(
        self,
        *,
        tasks: Sequence[str] | None = None,
        label: str | None = None,
        state: str | None = None,
        own: bool | None = None,
        limit: int = 1000,
        timeout: float,
    ) -> list[StoredResult]:
        """See ``Client.results``."""
        if state is not None and state not in STATES:
            raise ValueError(f"state={state!r}; have {', '.join(STATES)}")
        wanted = {"limit": limit, "tasks": tasks, "label": label, "state": state, "client": self._id if own else None}
        found = [self._read(record) for record in self._ask("results", wanted, timeout)]
        return [result for result in found if own is None or result.own == own]

    def _ask(self, what: str, arguments: object, timeout: float) -> Any:
        question = self._requests.ask(lambda number: Query(number, what, msgspec.msgpack.encode(arguments)))
        try:
            return question.result(timeout)
        except TimeoutError:
            raise TimeoutError(f"the controller did not answer {what!r} within {timeout:g} s") from None

    def _read(self, record: dict[str, Any]) -> StoredResult:
        return StoredResult(
            record["task"],
            record["label"],
            record["state"],
            record["op"],
            datetime.fromtimestamp(record["submitted"], UTC),
            None if record["finished"] is None else datetime.fromtimestamp(record["finished"], UTC),
            record["engines"],
            record["client"] == self._id,
            record["balanced"],
        )

    # --- results -----------------------------------------------------------------------------

    def get(self, names: Sequence[str], timeout: float, *, single: bool) -> AsyncResult:
        """Return the result of these tasks; *single*: a bare value, if there is one. See ``Client.get_result``."""
        if not names:
            raise ValueError("get_result() was given no task id")
        here = {name: pending for name in names if (pending := self._requests.pending.get(name)) is not None}
        wanted = [name for name in names if name not in here]
        found: list[StoredResult] = []
        for start in range(0, len(wanted), AT_ONCE):
            some = wanted[start : start + AT_ONCE]
            found += self.results(tasks=some, limit=len(some), timeout=timeout)
        missing = [name for name in wanted if name not in {result.task for result in found}]
        if missing:
            raise LookupError(f"the controller knows no task {missing[0]!r}; client.results() lists those it knows")
        pieces = self._adopt(names, here, found)
        single = single and sum(len(indices) for _, indices in pieces) == 1
        collector = Collector.joined(pieces, keep=pieces[0][0].keep)
        return AsyncHubResult(self._requests, collector, single=single, unpickle=self._unpickle)

    def _unpickle(self, part: Part, pickled: Flat) -> Any:
        value = unpickle_stored(part, pickled)
        if isinstance(value, Handle):
            value.bind(Getter(self._requests))
        return value

    def _adopt(
        self, names: Sequence[str], here: dict[str, Pending], found: list[StoredResult]
    ) -> list[tuple[Collector, list[int]]]:
        """Wait for *names*: those that are not *here*, since nobody waits for them yet, are fetched."""
        pending = self._requests.pending
        with self._lock:  # two threads must not both fetch the same task
            here |= {r.task: pending[r.task] for r in found if r.task in pending}
            fetched = {r.task: _pending(r) for r in found if r.task not in here}
            pending.update(fetched)
            waited = {name: here.get(name) or fetched[name] for name in names}
        self._follow(fetched)
        return [(p.collector, _indices(p)) for p in waited.values()]

    def _follow(self, fetched: dict[str, Pending]) -> None:
        """Have all that is stored of these tasks sent, and what still comes."""
        self._followed.update(fetched)
        names = list(fetched)
        for start in range(0, len(names), AT_ONCE):
            some = {name: fetched[name] for name in names[start : start + AT_ONCE]}
            answer = self._requests.ask(partial(_fetch, msgspec.msgpack.encode(list(some))))
            self._asked.update(dict.fromkeys(some, answer))
            answer.add_done_callback(partial(self._fetched, some))
        for name, pending in fetched.items():
            pending.collector.on_end(partial(self._forget, name))

    def _forget(self, name: str) -> None:
        """Let go of a result that is whole: whoever asked for it has it."""
        self._followed.pop(name, None)
        self._asked.pop(name, None)

    def _follow_again(self) -> None:  # I/O thread
        """Another controller may have taken over: ask it for what has not ended; output that came already is dropped.

        A question that is not answered yet has been sent again by the session.
        """
        self._followed = {name: pending for name, pending in self._followed.items() if pending.left}
        self._asked = {name: answer for name, answer in self._asked.items() if name in self._followed}
        for pending in self._followed.values():
            pending.skip = Counter(pending.heard or {})
        self._follow({name: p for name, p in self._followed.items() if self._asked[name].done()})

    def _fetched(self, fetched: dict[str, Pending], answer: Future[Any]) -> None:  # I/O thread
        """End what the controller does not know any more, or would not send."""
        problem = answer.exception()
        if isinstance(problem, UnansweredError):
            return  # it is asked again
        for pending in fetched.values():
            pending.skip = None  # the replay is through
        for name in fetched if problem is not None else answer.result():
            pending = fetched[name]
            self._requests.pending.pop(name, None)
            why = "it was dropped from the store meanwhile" if problem is None else str(problem)
            error = to_error(Failure("ResultNotKept", why, kind="ResultNotKept"), pending.collector.method)
            for index, part in enumerate(pending.collector.parts):
                if not part.done:
                    pending.collector.take([(index, error)])


def _fetch(tasks: bytes, number: int) -> Query:
    return Query(number, "fetch", tasks)


def _indices(pending: Pending) -> list[int]:
    return [pending.first] if pending.indices is None else list(pending.indices.values())


def _pending(result: StoredResult) -> Pending:
    """Make the future of a stored request."""
    engines: Iterable[int | None] = [None] if result.balanced else result.engines
    at = result.submitted.timestamp()
    parts = [Part(result.task, engine, result.op, result.label, at) for engine in engines]
    collector = Collector(parts, result.op)
    collector.release()
    indices = None if result.balanced else {engine: index for index, engine in enumerate(result.engines)}
    return Pending(collector, 0, indices, len(parts))


def unpickle_stored(part: Part, pickled: Flat) -> Any:
    """Unpickle the value of a part of which only the request is known."""
    if part.method == "execute":
        return unpickle_reply(part, pickled)
    if part.method == "map":
        return unpickle_items(part, pickled)
    value = pickling.unpack(pickled)
    if isinstance(value, Kept):
        return handle_of(value)
    return items_of(part, value) if isinstance(value, FailedChunk) else value  # of a map, but stored as a call
