"""DirectView: engines by name, each with a namespace that lasts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ippmpi.client.calling import View
from ippmpi.client.collector import Collector
from ippmpi.client.engines import Targets
from ippmpi.client.futures import Unpickle, unpickle
from ippmpi.client.handles import kept_parts
from ippmpi.client.imports import importing
from ippmpi.client.mapresults import AsyncGatherResult, AsyncMapResult
from ippmpi.client.maps import call_each
from ippmpi.client.partition import block_bounds, check_distribution, columns, is_array, join, split
from ippmpi.client.parts import Part
from ippmpi.client.replies import unpickle_reply
from ippmpi.client.results import AsyncResult
from ippmpi.wire.pickling import Blob

if TYPE_CHECKING:
    from ippmpi.client.client import Client


NO_CACHE = (
    "results are cached for calls of a load_balanced_view only: what a rank answers depends on the data it has, which "
    "no key could tell"
)


class DirectView(View):
    """Some engines of a client, all of which do what is asked.

    ``targets`` names them: an int (results are bare values), a list, or ``"all"`` (whoever is there
    at each call; results are lists).
    """

    FLAGS = ("block", "track", "label", "keep", "targets")
    NO_FLAGS: ClassVar[Mapping[str, str]] = {"cache": NO_CACHE}
    targets: Targets = "all"

    def __init__(self, client: Client, targets: Targets = "all", **flags: Any) -> None:
        """Name the engines, see ``Client.direct_view``."""
        super().__init__(client, **flags)
        self.targets = targets

    # --- sending -----------------------------------------------------------------------------

    def _engines(self, targets: Targets) -> tuple[list[int], bool]:
        """Return the ids of the engines of one call, and whether its result is a bare value."""
        engines = self.client.requests.engines
        ids, single = engines.pick(self.targets if targets is None else targets)
        if not ids:
            raise ValueError(f"{self!r} names no engine; engines now: {list(engines.ids)}")
        return ids, single

    def _collect(
        self,
        method: str,
        op: str,
        blobs: list[Blob],
        ids: list[int],
        label: str | None,
        *,
        make: Callable[..., Part] = Part,
    ) -> Collector:
        requests = self.client.requests
        parts = requests.parts(ids, method, label or self.label or "", make=make)
        collector = Collector(parts, method, self)
        requests.submit(op, blobs, collector)
        self.note(parts[0].task)
        collector.release()
        return collector

    def _send(
        self,
        op: str,
        value: object,
        *,
        targets: Targets = None,
        label: str | None = None,
        unpickle: Unpickle = unpickle,
    ) -> AsyncResult:
        blob = self.client.requests.pack(value)
        return self._send_blob(op, blob, targets=targets, label=label, unpickle=unpickle)

    def _send_blob(
        self,
        op: str,
        blob: Blob,
        *,
        targets: Targets = None,
        label: str | None = None,
        unpickle: Unpickle = unpickle,
    ) -> AsyncResult:
        ids, single = self._engines(targets)
        collector = self._collect(op, op, [blob], ids, label)
        return AsyncResult(self.client.requests, collector, single=single, unpickle=unpickle)

    def _finish(self, result: AsyncResult, block: bool | None) -> Any:
        return result.get() if (self.block if block is None else block) else result

    def _apply(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], *, keep: bool
    ) -> AsyncResult:
        requests = self.client.requests
        blob = requests.pack_call(function, args, kwargs)
        if not keep:
            return self._send_blob("apply", blob)
        ids, single = self._engines(None)
        collector = self._collect("apply", "keep", [blob], ids, None, make=kept_parts(requests, self))
        return AsyncResult(requests, collector, single=single)

    def _everywhere(self, function: Callable[..., Any], /, *args: Any) -> AsyncResult:
        return self._apply(function, args, {}, keep=False)

    def on_start(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AsyncResult:
        """Call ``f(*args, **kwargs)`` on these engines, now and whenever one of them starts (again).

        With targets ``"all"`` that is any engine. On an engine that joins it comes before whatever this
        client asks of it by name; balanced tasks that had waited for an engine may come first. The
        function is pickled now and kept as long as the client; ``client.clear_on_start()`` forgets it.

        Return the results of the engines that are there now; later failures are logged.
        """
        named, single = None, False
        if not (self.targets is None or isinstance(self.targets, str)):
            ids, single = self.client.requests.engines.pick(self.targets)
            named = frozenset(ids)
        blob = self.client.requests.pack_call(f, args, kwargs)
        collector = self.client.requests.beginnings.add(named, blob, self.label or "", self)
        if collector.parts:
            self.note(collector.parts[0].task)
        return AsyncResult(self.client.requests, collector, single=single)

    # --- code --------------------------------------------------------------------------------

    def execute(
        self,
        code: str,
        silent: bool = True,
        targets: Targets = None,
        block: bool | None = None,
        label: str | None = None,
    ) -> AsyncResult:
        """Run IPython code in the engines' namespaces; always return an AsyncResult.

        If it blocks, it waits and raises what the code raised. With ``silent=False`` the engine
        counts the cell and the values are the ``Out`` values.
        """
        return self._execute({"code": code, "silent": silent, "filename": None}, targets, block, label)

    def run(
        self,
        filename: str | Path,
        targets: Targets = None,
        block: bool | None = None,
        label: str | None = None,
    ) -> AsyncResult:
        """Run a file of this machine in the engines' namespaces, as ``execute`` does."""
        path = Path(filename).expanduser()
        request = {"code": path.read_text(encoding="utf-8"), "silent": True, "filename": str(path)}
        return self._execute(request, targets, block, label)

    def _execute(
        self, request: dict[str, object], targets: Targets, block: bool | None, label: str | None
    ) -> AsyncResult:
        if not isinstance(request["code"], str):
            raise TypeError(f"execute() needs code as a str, not {request['code']!r}")
        result = self._send("execute", request, targets=targets, label=label, unpickle=unpickle_reply)
        self._finish(result, block)
        return result

    def sync_imports(self, local: bool = True, quiet: bool = False) -> AbstractContextManager[None]:
        """Import, inside a ``with`` block, here and on the engines: what the statements bind here they bind there.

        Each is announced on stdout unless *quiet*. Meant are the statements of the block itself, not those of functions
        that it calls. What failed on engines is raised at the end of the block.
        """
        if not local:
            raise NotImplementedError("sync_imports(local=False): to import on the engines only, use view.execute()")
        return importing(self, sys._getframe(1), quiet=quiet)

    @property
    def importer(self) -> AbstractContextManager[None]:
        """Same as ``sync_imports()``: ``with view.importer: import numpy``."""
        return importing(self, sys._getframe(1), quiet=False)

    # --- namespaces --------------------------------------------------------------------------

    def push(
        self,
        ns: dict[str, Any],
        targets: Targets = None,
        block: bool | None = None,
        track: bool | None = None,  # noqa: ARG002 - see View
        label: str | None = None,
    ) -> Any:
        """Assign names in the engines' namespaces (``"a.b"`` sets an attribute)."""
        if not isinstance(ns, dict):
            raise TypeError(f"push() needs a dict of names to values, not {ns!r}")
        return self._finish(self._send("push", ns, targets=targets, label=label), block)

    def update(self, ns: dict[str, Any]) -> Any:
        """Same as ``push(ns)``."""
        return self.push(ns)

    def pull(
        self, names: str | Iterable[str], targets: Targets = None, block: bool | None = None, label: str | None = None
    ) -> Any:
        """Evaluate a name or an expression on the engines; of several, each engine gives a list."""
        wanted: object = names if isinstance(names, str) else list(names)
        if isinstance(wanted, list) and not all(isinstance(name, str) for name in wanted):
            raise TypeError(f"pull() needs a name or names, not {names!r}")
        return self._finish(self._send("pull", wanted, targets=targets, label=label), block)

    def get(self, name: str) -> Any:
        """Pull one name and wait."""
        return self.pull(name, block=True)

    def __getitem__(self, name: str) -> Any:
        """Pull one name and wait."""
        if not isinstance(name, str):
            raise TypeError(f"a view is indexed by the names of variables, not {name!r}; index the client for engines")
        return self.get(name)

    def __setitem__(self, name: str, value: Any) -> None:
        """Push one name; waits if ``block``."""
        self.push({name: value})

    def clear(self, targets: Targets = None, block: bool | None = None) -> Any:
        """Empty the engines' namespaces."""
        return self._finish(self._send("clear", None, targets=targets), block)

    def scatter(  # noqa: PLR0913 - options that users of ipyparallel know
        self,
        key: str,
        seq: Any,
        dist: str = "b",
        flatten: bool = False,
        targets: Targets = None,
        block: bool | None = None,
        track: bool | None = None,  # noqa: ARG002 - see View
        label: str | None = None,
    ) -> AsyncResult | None:
        """Cut *seq* into one piece per engine and push the pieces as *key*.

        *dist*: ``"b"`` contiguous blocks, ``"r"`` round robin. *flatten*: a piece of one element is
        pushed as that element. Returns an AsyncResult, or None if it blocks.
        """
        ids, single = self._engines(targets)
        pieces = split(seq, len(ids), dist)
        if flatten:
            pieces = [piece[0] if len(piece) == 1 else piece for piece in pieces]
        blobs = [self.client.requests.pack({key: piece}) for piece in pieces]
        collector = self._collect("scatter", "push", blobs, ids, label)
        result = AsyncResult(self.client.requests, collector, single=single)
        if not (self.block if block is None else block):
            return result
        result.get()
        return None

    def gather(
        self,
        key: str,
        dist: str = "b",
        targets: Targets = None,
        block: bool | None = None,
        label: str | None = None,
    ) -> Any:
        """Pull *key* from the engines and join the pieces: the inverse of ``scatter``.

        Arrays become one array; lists, tuples and ranges one list; anything else a list of pieces.
        """
        check_distribution(dist)
        ids, _ = self._engines(targets)
        collector = self._collect("gather", "pull", [self.client.requests.pack(key)], ids, label)
        result = AsyncGatherResult(self.client.requests, collector, join=lambda pieces: join(pieces, dist))
        return self._finish(result, block)

    # --- map ---------------------------------------------------------------------------------

    def _map(
        self, function: Callable[..., Any], sequences: tuple[Iterable[Any], ...], options: dict[str, Any]
    ) -> AsyncMapResult:
        if options.pop("keep", False):
            raise TypeError(
                "a direct map sends blocks of items, whose values have no handles: use map(keep=True) of a balanced "
                "view, or scatter() and apply(keep=True)"
            )
        if options.pop("cache", False):
            raise TypeError(f"{type(self).__name__}.map() has no option 'cache'; {NO_CACHE}")
        return self._map_blocks(function, sequences, **options)

    def _map_blocks(
        self,
        function: Callable[..., Any],
        sequences: tuple[Iterable[Any], ...],
        *,
        return_exceptions: bool = False,
        label: str | None = None,
        track: bool = False,  # noqa: ARG002 - see View
    ) -> AsyncMapResult:
        """One contiguous block of the items for each engine."""
        ids, _ = self._engines(None)
        ready, length = columns(sequences)
        bounds = [(start, stop) for start, stop in block_bounds(length, len(ids)) if stop > start]
        arrays = all(map(is_array, ready))
        requests = self.client.requests
        if bounds:
            calls: list[object] = [
                (call_each, (function, return_exceptions, *(c[a:b] for c in ready)), {}) for a, b in bounds
            ]
            collector = self._collect(
                "map", "apply", [self.client.requests.pack(call) for call in calls], ids[: len(bounds)], label
            )
        else:
            collector = Collector([], "map")
        sizes = [stop - start for start, stop in bounds]
        return AsyncMapResult(requests, collector, sizes=sizes, return_exceptions=return_exceptions, arrays=arrays)

    def imap(self, function: Callable[..., Any], /, *sequences: Iterable[Any], **options: Any) -> Iterator[Any]:
        """Map (see ``map``) and return an iterator over the values, each as soon as its engine is done."""
        return iter(self.map_async(function, *sequences, **options))

    def call_pieces(
        self,
        function: Callable[..., Any],
        sequences: tuple[Any, ...],
        *,
        dist: str,
        chunksize: int | None = None,  # noqa: ARG002 - for balanced views
    ) -> AsyncResult:
        """One call for each engine that gets something."""
        ids, _ = self._engines(None)
        pieces = [split(sequence, len(ids), dist) for sequence in sequences]
        calls: list[object] = [
            (function, arguments, {}) for arguments in zip(*pieces, strict=True) if len(arguments[0])
        ]
        if calls:
            collector = self._collect(
                "parallel", "apply", [self.client.requests.pack(call) for call in calls], ids[: len(calls)], None
            )
        else:
            collector = Collector([], "parallel")
        return AsyncGatherResult(self.client.requests, collector, join=lambda values: join(values, dist))

    # --- itself ------------------------------------------------------------------------------

    def activate(self, suffix: str = "") -> None:
        """Let ``%px``, ``%%px``, ... (with *suffix*, as ``%px_b``) in IPython mean this view."""
        from ippmpi.client.magics import activate

        activate(self, suffix)

    def __len__(self) -> int:
        """Return the number of engines."""
        return len(self._engines(None)[0])

    def __iter__(self) -> Iterator[DirectView]:
        """Yield a view of each engine."""
        for engine in self._engines(None)[0]:
            yield self.client.direct_view(engine, block=self.block)

    def __contains__(self, name: object) -> bool:
        """Refuse: whether a variable exists is a question to every engine; use ``pull``."""
        raise TypeError(f"{name!r} in view: ask the engines, for example view.pull({f'{name!r} in globals()'!r})")

    def __repr__(self) -> str:
        """Show the engines."""
        targets = self.targets
        if isinstance(targets, list) and len(targets) > 6:
            shown = f"[{', '.join(map(str, targets[:4]))}, ... {targets[-1]}]"
        else:
            shown = str(targets)
        return f"<{type(self).__name__} {shown}>"
