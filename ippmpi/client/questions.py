"""What a client asks the controller about work that was done: history, records, and doing it again."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from ippmpi.client.caching import CachedResults
from ippmpi.client.collector import Collector
from ippmpi.client.dependency import task_ids
from ippmpi.client.engines import Targets
from ippmpi.client.futures import ANSWER_S, seconds
from ippmpi.client.handles import kept_parts
from ippmpi.client.parts import Part
from ippmpi.client.requests import Pending, Requests
from ippmpi.client.results import AsyncResult
from ippmpi.client.stored import AsyncHubResult, Stored, unpickle_stored
from ippmpi.errors import IppmpiError
from ippmpi.wire.frames import decode
from ippmpi.wire.messages import Query, Submit

if TYPE_CHECKING:
    from ippmpi.client.explaining import Explanation

TIMES = frozenset(("submitted", "received", "started", "completed"))
AT_ONCE = 1000
"""Tasks named by one question."""


class Questions:
    """The part of ``Client`` that asks about work that was done. Each question has a time-out of its own."""

    block: bool
    requests: Requests
    _stored: Stored

    @property
    def history(self) -> list[str]:
        """The ids of the tasks of this client, the oldest first; of the last 10,000."""
        return list(self.requests.history)

    def hub_history(self, timeout: float = ANSWER_S) -> list[str]:
        """Return the ids of all stored tasks, of all clients, in the order of their submission."""
        history: list[str] = self.ask_store("history", {}, timeout)
        return history

    def result_status(self, msg_ids: Any = None, status_only: bool = True, timeout: float = ANSWER_S) -> dict[str, Any]:
        """Return ``{"pending": ids, "completed": ids, "status": "ok"}`` of tasks of any client (None: the last call).

        With ``status_only=False`` also the values of the completed ones by their ids; a failure is raised.

        Raises:
            LookupError: the controller does not know one of them.
        """
        names = self._names(msg_ids)
        asked = [name for name in names if name not in self.requests.pending]
        stored: dict[str, str] = {}
        for start in range(0, len(asked), AT_ONCE):
            some = asked[start : start + AT_ONCE]
            stored |= {r.task: r.state for r in self._stored.results(tasks=some, limit=len(some), timeout=timeout)}
        rest = [name for name in asked if name not in stored]
        if rest:
            said = self.ask_store("result_status", rest, timeout)
            if said["unknown"]:
                raise LookupError(
                    f"the controller knows no task {said['unknown'][0]!r}; hub_history() lists those it knows"
                )
            stored |= dict.fromkeys(said["pending"], "pending") | dict.fromkeys(said["completed"], "ok")
        completed = [name for name in names if stored.get(name, "pending") != "pending"]
        status: dict[str, Any] = {
            "pending": [name for name in names if name not in completed],
            "completed": completed,
            "status": "ok",
        }
        if not status_only:
            status |= {name: self._stored.get([name], timeout, single=True).get(timeout) for name in completed}
        return status

    def db_query(
        self, query: Mapping[str, Any], keys: Iterable[str] | None = None, timeout: float = ANSWER_S
    ) -> list[dict[str, Any]]:
        """Return the records of the stored tasks that match *query*, the oldest first.

        A condition is ``{key: value}`` or ``{key: {operator: operand}}``; all must be met. Operators: ``$eq $ne $lt
        $lte $gt $gte $in $nin $all $mod $exists $glob``. *keys*: what the records have, beside ``msg_id`` (None: all):
        ``client_uuid``, ``label``, ``op``, ``queue`` (``mux``: direct, ``task``: balanced), ``state``, ``submitted``,
        ``received``, ``engines`` (ids), ``started`` (the first), ``completed`` (the last), ``error`` (the first),
        ``stdout``, ``stderr``. Times are tz-aware datetimes; a condition may also have seconds since the epoch.

        Raises:
            ValueError: a key or an operator that does not exist, or an answer that is too large.
        """
        arguments: dict[str, Any] = {"query": _without_dates(dict(query))}
        if keys is not None:
            wanted = [keys] if isinstance(keys, str) else list(keys)
            arguments["keys"] = list(dict.fromkeys(["msg_id", *wanted]))
        try:
            records: list[dict[str, Any]] = self.ask_store("search", arguments, timeout)
        except IppmpiError as problem:
            raise ValueError(str(problem)) from None
        return [{key: _dated(key, value) for key, value in record.items()} for record in records]

    def explain(self, jobs: Any = None, *, limit: int = 1000, timeout: float = ANSWER_S) -> Explanation:
        """Say why *jobs* (ids, places in the history, results; None: all tasks of all clients) have no result yet.

        Of all at most *limit* are told, those that wait first. See ``AsyncResult.explain``.

        Raises:
            TimeoutError: the controller did not answer in *timeout* seconds.
        """
        from ippmpi.client.explaining import explain_tasks

        return explain_tasks(self.requests, None if jobs is None else self._names(jobs), timeout, limit)

    @property
    def cache(self) -> CachedResults:
        """The results of calls with ``cache=``: ``list()``, ``drop(...)``, ``clear()``, ``counts()``."""
        return CachedResults(self)

    # --- forgetting --------------------------------------------------------------------------

    def purge_results(self, jobs: Any = (), targets: Targets = (), timeout: float = ANSWER_S) -> None:
        """Have the controller forget results: of *jobs* (ids, results, or ``"all"``), and of engines, *targets*.

        Results that somebody holds stay with them, but values that they left on engines are freed.

        Raises:
            ValueError: neither is given.
            RuntimeError: one of them has not ended.
        """
        self.purge_local_results(jobs, targets)
        self.purge_hub_results(jobs, targets, timeout)

    def purge_hub_results(self, jobs: Any = (), targets: Targets = (), timeout: float = ANSWER_S) -> None:
        """Same as ``purge_results``."""
        tasks, engines = self._to_purge(jobs, targets)
        try:
            self.ask_store("purge", {"tasks": tasks, "engines": engines}, timeout)
        except IppmpiError as problem:
            raise RuntimeError(str(problem)) from None
        self.requests.keeper.purge(tasks, engines)

    def purge_local_results(self, jobs: Any = (), targets: Targets = ()) -> None:
        """Forget nothing: a client keeps no results but those that somebody holds. Raises as ``purge_results``."""
        tasks, _ = self._to_purge(jobs, targets)
        pending = [
            task for task in (self.requests.pending if tasks is None else tasks) if task in self.requests.pending
        ]
        if pending:
            raise RuntimeError(f"task {pending[0]!r} has not ended: wait for it, or abort it")

    def purge_everything(self, timeout: float = ANSWER_S) -> None:
        """Have the controller forget all results that have ended, of all clients, and empty this client's history."""
        self.purge_results("all", timeout=timeout)
        self.requests.history.clear()

    def _to_purge(self, jobs: Any, targets: Targets) -> tuple[list[str] | None, list[int]]:
        everything = isinstance(jobs, str) and jobs == "all"
        tasks = None if everything else self._names(jobs) if _any(jobs) else []
        engines = self.requests.engines.pick(targets)[0] if _any(targets) else []
        if tasks is not None and not tasks and not engines:
            raise ValueError('say which: jobs (ids, results, or "all"), or targets (engines)')
        return tasks, engines

    # --- again -------------------------------------------------------------------------------

    def resubmit(
        self,
        indices_or_msg_ids: Any = None,
        metadata: Any = None,  # noqa: ARG002 - nobody ever looked at it
        block: bool | None = None,
        timeout: float = ANSWER_S,
    ) -> Any:
        """Do stored tasks, of any client, again; return their AsyncResult (None: this client's last call).

        A direct call runs on the same engines again, a balanced one on any that its view had allowed. They get new
        ids. The store keeps functions and arguments of up to 16 KB.

        Raises:
            LookupError: the controller does not know one of them, or has not kept it.
        """
        names = self._names(indices_or_msg_ids)
        try:
            originals: list[bytes] = self.ask_store("originals", {"tasks": names}, timeout)
        except IppmpiError as problem:
            raise LookupError(str(problem)) from None
        pieces = [self._again(decode(original)) for original in originals]
        single = sum(len(piece.parts) for piece in pieces) == 1 and isinstance(
            indices_or_msg_ids, str | AsyncResult | None
        )
        joined = Collector.joined([piece.places() for piece in pieces], keep=self)
        result = AsyncHubResult(self.requests, joined, single=single, unpickle=unpickle_stored)
        return result.get() if (self.block if block is None else block) else result

    def _again(self, original: object) -> Collector:
        if not isinstance(original, Submit) or any(content.transfer for content in original.contents):
            raise LookupError("the request is not kept: its function and arguments were too large")
        make = kept_parts(self.requests, self) if original.op == "keep" else Part
        parts = self.requests.parts(original.targets, original.op, original.label, make=make)
        collector = Collector(parts, original.op, self)
        indices = {engine: index for index, engine in enumerate(original.targets)} if original.targets else None
        original = msgspec.structs.replace(original, cache=None)  # it is to be done, not looked up
        self.requests.submit_again(original, parts[0].task, Pending(collector, 0, indices, len(parts)))
        collector.release()
        return collector

    # --- waiting, obsolete names -------------------------------------------------------------

    def wait_interactive(self, jobs: Any = None, interval: float = 1.0, timeout: float | None = -1) -> bool:
        """Wait for *jobs* (as ``wait`` does) with a progress bar; return whether all ended."""
        from ippmpi.client.progress import Several, wait_interactive

        return wait_interactive(Several(self.requests.pending, self._wanted(jobs)), interval, seconds(timeout))

    def spin(self) -> None:
        """Do nothing: what comes is taken at once, by a thread."""
        warnings.warn("spin() does nothing: results are taken as they come", DeprecationWarning, stacklevel=2)

    def spin_thread(self, interval: float = 1) -> None:  # noqa: ARG002 - as it was
        """Do nothing, as ``spin``."""
        self.spin()

    def stop_spin_thread(self) -> None:
        """Do nothing, as ``spin``."""
        self.spin()

    # --- asking ------------------------------------------------------------------------------

    def _names(self, jobs: Any) -> list[str]:
        """Return the ids behind ids, places in the history, results, or a list of these; None: the last call."""
        if jobs is None:
            if self.requests.latest is None:
                raise ValueError("without an id the last call of this client is meant, and it has made none")
            return [self.requests.latest]
        if isinstance(jobs, int) and not isinstance(jobs, bool):
            history = self.history
            try:
                return [history[jobs]]
            except IndexError:
                raise IndexError(f"the history of this client has {len(history)} tasks, none at {jobs}") from None
        if isinstance(jobs, list | tuple | set):
            return list(dict.fromkeys(name for job in jobs for name in self._names(job)))
        try:
            return list(dict.fromkeys(task_ids(jobs)))
        except ValueError:
            raise TypeError(
                f"need a task id, a place in the history, an AsyncResult, or a list of these, not {jobs!r}"
            ) from None

    def _wanted(self, jobs: Any) -> Any:
        """Return what is to be waited for: None is everything outstanding, a number is a place in the history."""
        return self.requests.collectors() if jobs is None else self._with_ids(jobs)

    def _with_ids(self, jobs: Any) -> Any:
        if isinstance(jobs, int) and not isinstance(jobs, bool):
            return self._names(jobs)
        return [self._with_ids(job) for job in jobs] if isinstance(jobs, list | tuple | set) else jobs

    def ask_store(self, what: str, arguments: object, timeout: float) -> Any:
        """Ask one question about what is stored; TimeoutError if it is not answered in *timeout* seconds."""
        encoded = msgspec.msgpack.encode(arguments)
        answer: Future[Any] = self.requests.ask(lambda number: Query(number, what, encoded))
        try:
            return answer.result(timeout)
        except TimeoutError:
            raise TimeoutError(f"the controller did not answer {what!r} within {timeout:g} s") from None


def _any(jobs: Any) -> bool:
    return jobs is not None and not (isinstance(jobs, list | tuple | set) and not jobs)


def _without_dates(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, Mapping):
        return {key: _without_dates(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [_without_dates(inner) for inner in value]
    return value


def _dated(key: str, value: Any) -> Any:
    return datetime.fromtimestamp(value, UTC) if key in TIMES and value is not None else value
