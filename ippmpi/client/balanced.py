"""LoadBalancedView: tasks to whichever engine is free."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

from ippmpi.client.caching import Cache, Keys, declared, key_of
from ippmpi.client.calling import View
from ippmpi.client.collector import Collector
from ippmpi.client.dependency import to_record
from ippmpi.client.engines import Targets
from ippmpi.client.growing import Growing
from ippmpi.client.handles import kept_parts
from ippmpi.client.items import Items
from ippmpi.client.lazymap import LazyMapIterator, Sender
from ippmpi.client.mapresults import AdaptiveMapResult, AsyncGatherResult, AsyncMapResult
from ippmpi.client.maps import call_each
from ippmpi.client.partition import columns, is_array, join, split
from ippmpi.client.parts import Part
from ippmpi.client.results import AsyncResult
from ippmpi.wire.messages import CacheKey, Placement

if TYPE_CHECKING:
    from ippmpi.client.client import Client

Keyed = tuple[CacheKey | None, tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]]
"""A call, and under which key its result is cached (None: not)."""


class LoadBalancedView(View):
    """Each call is a task, and runs on one engine of the controller's choice.

    ``targets``: candidates (None: any engine, also later ones). ``after``: start only when these
    tasks have ended. ``follow``: run only where these tasks ran. ``timeout``: seconds in which
    ``after`` and ``follow`` must be met and an engine be free, else ``TaskTimeout``; 0: no limit.
    ``retries``: how often a task that failed is tried again, on other engines. ``cache``: True, or an ``ipp.Cache``:
    results of calls are kept, and used when an equal call is made, also in another session; see docs/caching.md.
    """

    BALANCED = True
    FLAGS = ("block", "track", "label", "keep", "targets", "after", "follow", "timeout", "retries", "cache")
    targets: Targets = None
    after: Any = None
    follow: Any = None
    timeout: float | None = 0.0
    retries: int = 0
    cache: bool | Cache | None = False

    def __init__(self, client: Client, targets: Targets = None, **flags: Any) -> None:
        """Name the candidates, see ``Client.load_balanced_view``."""
        super().__init__(client, **flags)
        self.targets = targets

    def _placement(self) -> Placement:
        candidates: list[int] | None = None
        engines = self.client.requests.engines
        if self.targets is not None and not (isinstance(self.targets, str) and self.targets == "all"):
            candidates, _ = engines.pick(self.targets)
            if not candidates:
                raise ValueError(f"{self!r} names no engine; engines now: {list(engines.ids)}")
        elif not engines.ids and declared(self.cache) is None:
            engines.pick(None)  # says that there are none
        timeout_s = self.timeout or 0.0
        if timeout_s < 0:
            raise ValueError(f"timeout is {timeout_s}, but must be 0 (no limit) or a positive number of seconds")
        return Placement(candidates, to_record(self.after), to_record(self.follow), timeout_s, self.retries)

    # --- apply -------------------------------------------------------------------------------

    def _apply(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], *, keep: bool
    ) -> AsyncResult:
        placement, keys = self._placement(), self._keys(function, "call", keep=keep)
        collector = self._parts("apply", 1, None, make=kept_parts(self.client.requests, self) if keep else Part)
        key = key_of(keys, args, kwargs)
        self._submit(collector, [(key, (function, args, kwargs))], placement, "keep" if keep else "apply")
        return AsyncResult(self.client.requests, collector, single=True)

    def _keys(
        self, function: Callable[..., Any], form: str, cache: object = None, *, keep: bool = False
    ) -> Keys | None:
        """Return what makes keys for calls of *function*; None: they are not cached. *cache* overrides the flag."""
        wanted = declared(self.cache if cache is None else cache)
        if wanted is None:
            return None
        if keep:
            raise ValueError("cache= does not go with keep=: a value that stays on its rank goes with the rank")
        if self.after is not None or self.follow is not None:
            raise ValueError(
                "cache= does not go with after= and follow=: what a task finds when those have ended is not part of "
                "its key; pass results as arguments"
            )
        return Keys(function, wanted, form, engineless=not self.client.requests.engines.ids)

    def _everywhere(self, function: Callable[..., Any], /, *args: Any) -> AsyncResult:
        return self.client.direct_view(self.targets).apply_async(function, *args)

    # --- map ---------------------------------------------------------------------------------

    def _map(
        self, function: Callable[..., Any], sequences: tuple[Iterable[Any], ...], options: dict[str, Any]
    ) -> AsyncMapResult:
        if options.pop("keep", self.keep):
            return self._map_kept(function, sequences, **options)
        return self._map_chunks(function, sequences, **options)

    def _map_chunks(  # noqa: PLR0913 - the options of map
        self,
        function: Callable[..., Any],
        sequences: tuple[Iterable[Any], ...],
        *,
        chunksize: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
        label: str | None = None,
        cache: bool | Cache | None = None,
    ) -> AsyncMapResult:
        if chunksize is not None and chunksize < 1:
            raise ValueError(f"chunksize is {chunksize}, but a task needs at least one item")
        keys = self._keys(function, "items", cache)
        placement = self._placement()
        ready, length = columns(sequences)
        requests = self.client.requests
        if chunksize is None and not placement.retries and keys is None:
            items = Items(function, ready, length, pack=requests.pack)
            growing = Growing(requests, items, placement, label or self.label or "", self)
            adaptive = AdaptiveMapResult(
                growing,
                requests,
                ordered=ordered,
                return_exceptions=return_exceptions,
                arrays=all(map(is_array, ready)),
            )
            growing.start()
            return adaptive
        chunksize = chunksize or 1  # with retries a task is an item, so that only what failed is tried again
        within = return_exceptions and keys is None  # else a task with a failed item must fail: it is not to be cached
        collector = self._parts("map", math.ceil(length / chunksize), label)
        sizes = [min(chunksize, length - start) for start in range(0, length, chunksize)]
        result = AsyncMapResult(
            requests,
            collector,
            sizes=sizes,
            ordered=ordered,
            return_exceptions=return_exceptions,
            arrays=all(map(is_array, ready)),
        )
        chunks = ([column[start : start + chunksize] for column in ready] for start in range(0, length, chunksize))
        calls: Iterable[Keyed] = (
            (key_of(keys, chunk), (call_each, (function, within, *chunk), {})) for chunk in chunks
        )
        self._submit(collector, calls, placement)
        return result

    def _map_kept(
        self,
        function: Callable[..., Any],
        sequences: tuple[Iterable[Any], ...],
        *,
        chunksize: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
        label: str | None = None,
    ) -> AsyncMapResult:
        """One task for each item, which leaves its value where it runs."""
        if chunksize not in (None, 1):
            raise ValueError(f"chunksize is {chunksize}, but with keep=True each item is a task, which has a handle")
        requests, placement = self.client.requests, self._placement()
        ready, length = columns(sequences)
        collector = self._parts("map", length, label, make=kept_parts(requests, self, items=True))
        result = AsyncMapResult(
            requests, collector, sizes=[1] * length, ordered=ordered, return_exceptions=return_exceptions
        )
        rows: Iterable[tuple[Any, ...]] = islice(zip(*ready, strict=False), length)
        self._submit(collector, ((None, (function, row, {})) for row in rows), placement, "keep")
        return result

    def _parts(self, method: str, tasks: int, label: str | None, *, make: Callable[..., Part] = Part) -> Collector:
        parts = self.client.requests.parts((), method, label or self.label or "", tasks=tasks, make=make)
        return Collector(parts, method, self)

    def _submit(self, collector: Collector, calls: Iterable[Keyed], placement: Placement, op: str = "apply") -> None:
        """Send *calls*, one for each part, with their keys; if one of them cannot be sent, none is."""
        requests, sent = self.client.requests, 0
        try:
            for key, call in calls:
                requests.submit_balanced(requests.pack_call(*call), collector, sent, placement, op, cache=key)
                self.note(collector.parts[sent].task)
                sent += 1
        except BaseException:  # an item that cannot be pickled, or Ctrl-C: do not leave half a map behind
            if sent:
                requests.interrupt([part.task for part in collector.parts[:sent]])
            raise
        collector.release()

    def call_pieces(
        self, function: Callable[..., Any], sequences: tuple[Any, ...], *, dist: str, chunksize: int | None = None
    ) -> AsyncResult:
        """One task for each *chunksize* elements; *dist* says how they are dealt out to that many tasks."""
        placement, length, keys = self._placement(), len(sequences[0]), self._keys(function, "pieces")
        if chunksize is not None and chunksize < 1:
            raise ValueError(f"chunksize is {chunksize}, but a task needs at least one item")
        tasks = math.ceil(length / (chunksize or 1))
        collector = self._parts("parallel", tasks, None)
        pieces = [split(sequence, tasks, dist) for sequence in sequences] if tasks else []
        calls: Iterable[Keyed] = ((key_of(keys, args), (function, args, {})) for args in zip(*pieces, strict=True))
        self._submit(collector, calls, placement)
        return AsyncGatherResult(self.client.requests, collector, join=lambda values: join(values, dist))

    def imap(
        self,
        function: Callable[..., Any],
        /,
        *sequences: Iterable[Any],
        ordered: bool = True,
        max_outstanding: int | str = "auto",
        return_exceptions: bool = False,
    ) -> LazyMapIterator:
        """Map lazily: take items only as values are asked for, so *sequences* may be endless.

        *max_outstanding*: tasks of one item under way at a time; 0: no limit. ``"auto"``: a few for each engine, of
        several items as long as these are short; at most 100 items for each engine are taken ahead. With
        ``ordered=False`` values come as they are finished.
        """
        if not callable(function):
            raise TypeError(f"imap() needs a function to call, not {function!r}")
        if not sequences:
            raise TypeError("imap() needs a function and at least one sequence")
        limit = None if max_outstanding == "auto" else int(max_outstanding)
        if limit is not None and limit < 0:
            raise ValueError(f"max_outstanding is {limit}, but must be 'auto', 0 (no limit) or a positive number")
        requests = self.client.requests
        keys = self._keys(function, "items")
        sender = Sender(requests, function, self._placement(), label=self.label or "", view=self, keys=keys)
        return LazyMapIterator(
            sender,
            zip(*sequences, strict=False),
            ordered=ordered,
            limit=limit,
            return_exceptions=return_exceptions,
        )

    # --- itself ------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Return the number of engines that may be chosen."""
        if self.targets is None:
            return len(self.client)
        return len(self.client.requests.engines.pick(self.targets)[0])

    def __repr__(self) -> str:
        """Show the candidates."""
        return f"<LoadBalancedView {'any engine' if self.targets is None else self.targets}>"
