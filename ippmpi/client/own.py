"""What a view knows of its own calls, and what it asks its client to do with them or with its engines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ippmpi.client.collector import Collector
from ippmpi.client.engines import Targets
from ippmpi.client.futures import seconds
from ippmpi.client.progress import Several, wait_interactive
from ippmpi.client.waiting import wait_for_jobs

if TYPE_CHECKING:
    from ippmpi.client.client import Client

HISTORY = 10_000
"""A view remembers the ids of at least so many tasks, and of at most twice as many."""


class OwnCalls:
    """The tasks and engines of one view. A copy of the view shares its history."""

    client: Client
    targets: Targets

    def __init__(self) -> None:
        """Start without any."""
        self.history: list[str] = []

    def note(self, task: str) -> None:
        """Remember a task that was sent; ``history`` lists them, the oldest first."""
        self.history.append(task)
        if len(self.history) > 2 * HISTORY:
            del self.history[:HISTORY]

    @property
    def outstanding(self) -> set[str]:
        """The ids of the tasks of this view whose results have not come."""
        return {task for task, pending in list(self.client.requests.pending.items()) if self._is_own(pending.collector)}

    def _is_own(self, collector: Collector) -> bool:
        return isinstance(collector.keep, OwnCalls) and collector.keep.history is self.history

    def _open(self) -> list[Collector]:
        return [collector for collector in self.client.requests.collectors() if self._is_own(collector)]

    @property
    def results(self) -> Mapping[str, Any]:
        """The values of the tasks of ``history`` that have ended, by id: fetched when asked for, not kept here."""
        return Results(self)

    # --- waiting -----------------------------------------------------------------------------

    def wait(self, jobs: Any = None, timeout: float | None = -1) -> bool:
        """Wait for *jobs* (None: all outstanding of this view); return whether all ended in *timeout* seconds.

        They are task ids, positions in ``history``, results or other futures, one or several.
        """
        return wait_for_jobs(self.client.requests.pending, self._jobs(jobs), seconds(timeout))

    def wait_interactive(self, jobs: Any = None, interval: float = 0.1, timeout: float | None = -1) -> bool:
        """Wait as ``wait`` does, with a progress bar."""
        several = Several(self.client.requests.pending, self._jobs(jobs))
        return wait_interactive(several, interval, seconds(timeout))

    def _jobs(self, jobs: Any) -> Any:
        if jobs is None:
            return self._open()
        return [self._task(job) for job in jobs] if isinstance(jobs, list | tuple | set) else self._task(jobs)

    def spin(self) -> None:
        """Do nothing: results come by themselves. (Old programs call it.)"""

    def get_result(
        self, indices_or_msg_ids: Any = None, block: bool | None = None, owner: bool = True, **options: Any
    ) -> Any:
        """Return the AsyncResult of a task id, or of a position in ``history`` (None: the last), of one or several.

        See ``Client.get_result``.
        """
        wanted = -1 if indices_or_msg_ids is None else indices_or_msg_ids
        if isinstance(wanted, list | tuple):
            ids: Any = [self._task(each) for each in wanted]
        else:
            ids = self._task(wanted)
        return self.client.get_result(
            ids, bool(getattr(self, "block", False)) if block is None else block, owner, **options
        )

    def _task(self, index: Any) -> Any:
        if not isinstance(index, int):
            return index
        try:
            return self.history[index]
        except IndexError:
            raise IndexError(f"history has {len(self.history)} tasks, and none at {index}") from None

    # --- control -----------------------------------------------------------------------------

    def _targets(self, targets: Targets) -> Targets:
        named = self.targets if targets is None else targets
        return "all" if named is None else named

    def abort(self, jobs: Any = None, targets: Targets = None, block: bool | None = None, **options: Any) -> Any:
        """Take back *jobs* (None: all outstanding of this view) that have not started, see ``Client.abort``."""
        if jobs is not None:
            return self.client.abort(jobs, targets, block=block, **options)
        for collector in self._open():
            collector.withdraw()
        return self.client.abort(sorted(self.outstanding), targets, block=block, **options)

    def purge_results(self, jobs: Any = (), targets: Targets = (), **options: Any) -> None:
        """Have the controller forget results of *jobs* (``"all"``: what has ended of this view) and engines, *targets*.

        See ``Client.purge_results``.
        """
        if not isinstance(jobs, str) or jobs != "all":
            self.client.purge_results(jobs, targets, **options)
        elif ended := list(self.results):
            self.client.purge_results(ended, targets, **options)

    def queue_status(self, targets: Targets = None, verbose: bool = False, **options: Any) -> dict[int | str, Any]:
        """Return what this view's engines have to do, see ``Client.queue_status``."""
        return self.client.queue_status(self._targets(targets), verbose, **options)

    def shutdown(
        self,
        targets: Targets = None,
        restart: bool = False,
        hub: bool = False,
        block: bool | None = None,
        **options: Any,
    ) -> Any:
        """End this view's engines in good order, see ``Client.shutdown``."""
        if restart:
            raise NotImplementedError("shutdown() does not restart; client.worlds[name].restart() does")
        return self.client.shutdown(self._targets(targets), hub=hub, block=block, **options)


class Results(Mapping[str, Any]):
    """The values of a view's tasks that have ended, by id."""

    def __init__(self, calls: OwnCalls) -> None:
        """Look at *calls*."""
        self._calls = calls

    def _ended(self) -> list[str]:
        outstanding = self._calls.outstanding
        return [task for task in list(self._calls.history) if task not in outstanding]

    def __getitem__(self, task: str) -> Any:
        """Return the value of a task; raise its error."""
        if task not in self:
            raise KeyError(f"{task!r} is no task of this view that has ended")
        return self._calls.client.get_result(task, block=True)

    def __contains__(self, task: object) -> bool:
        """Say whether it is a task of this view that has ended."""
        return task in self._calls.history and task not in self._calls.outstanding

    def __iter__(self) -> Iterator[str]:
        """Yield the ids, the oldest first."""
        return iter(self._ended())

    def __len__(self) -> int:
        """Count those that have ended."""
        return len(self._ended())

    def __repr__(self) -> str:
        """Show how many."""
        return f"<values of {len(self)} tasks, by id>"
