"""Values that stay on ranks, seen from the client that asked for them: who has a handle, and when the last one goes."""

from __future__ import annotations

import inspect
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from ippmpi.client.collector import Collector
from ippmpi.client.contents import Flat
from ippmpi.client.failures import unreadable
from ippmpi.client.parts import Part, State
from ippmpi.client.results import AsyncResult
from ippmpi.errors import EngineError, HandleError
from ippmpi.wire.handles import Handle, Kept, handle_of, value
from ippmpi.wire.messages import Free, Placement
from ippmpi.wire.pickling import unpack

if TYPE_CHECKING:
    from ippmpi.client.requests import Requests

TOGETHER = 1000
"""How many values one ``Free`` lets go."""

MOST_NEAR = 16
"""How many engines that have data of a task are named to the controller."""

Key = tuple[str, int]


class Keeper:
    """What one client has on engines. ``own`` is called by the I/O thread, a handle's end comes in any."""

    def __init__(self, requests: Requests) -> None:
        """Let go by *requests*."""
        self._requests = requests
        self._owned: dict[Key, None] = {}
        self._gone: deque[Key] = deque()

    def __len__(self) -> int:
        """Return how many values this client has handles of."""
        return len(self._owned)

    def own(self, kept: Kept, getter: Getter) -> Handle:
        """Return the handle of *kept*; with its end the value goes."""
        handle = handle_of(kept)
        handle.bind(getter)
        key = (kept.task, kept.engine)
        if key not in self._owned:
            self._owned[key] = None
            weakref.finalize(handle, self._let_go, key).atexit = False
        return handle

    def _let_go(self, key: Key) -> None:
        """Take the end of a handle. It may come in the middle of anything, so nothing is locked here."""
        self._gone.append(key)
        self._requests.transport.call_soon(self._tell)

    def _tell(self) -> None:  # I/O thread
        while self._gone:
            tasks: list[str] = []
            engines: list[int] = []
            while self._gone and len(tasks) < TOGETHER:
                key = self._gone.popleft()
                if key in self._owned:  # else it was purged
                    del self._owned[key]
                    tasks.append(key[0])
                    engines.append(key[1])
            if tasks:
                self._requests.transport.send(Free(tasks, engines))

    def purge(self, tasks: Collection[str] | None, engines: Collection[int]) -> None:
        """Free the values of *tasks* (None: all), and those on *engines*, also if there are handles."""
        found = [key for key in list(self._owned) if tasks is None or key[0] in tasks or key[1] in engines]
        self._gone.extend(found)
        self._requests.transport.call_soon(self._tell)


class Getter:
    """Brings values here. Handles have it, and with it keep their client."""

    def __init__(self, requests: Requests, keep: object = None) -> None:
        """Ask by *requests*; *keep* (a view, or a client) lives as long as this does."""
        self._requests = requests
        self._keep = keep

    def own(self, kept: Kept) -> Handle:
        """Return the handle of a value that this client has asked for."""
        return self._requests.keeper.own(kept, self)

    def get_kept(self, handle: Handle, timeout: float | None) -> Any:
        """Call for a copy of the value. Raises HandleError."""
        requests = self._requests
        record = requests.engines.records.get(handle.engine)
        if record is None or (record.pid, record.host) != (handle.pid, handle.host):
            why = requests.engines.reason(handle.engine) if record is None else f"pid {record.pid} has its place"
            raise HandleError(f"{handle!r}: its rank is gone: {why}")
        collector = Collector(requests.parts([handle.engine], "Handle.get", ""), "Handle.get", self)
        requests.submit("apply", [requests.pack((value, (handle,), {}))], collector)
        collector.release()
        try:
            return AsyncResult(requests, collector, single=True).get(timeout)
        except EngineError as error:
            raise HandleError(f"{handle!r}: its rank was lost: {error}") from error


class KeptPart(Part):
    """The future of a task that leaves its value where it runs: what comes is made a handle at once.

    So the value is freed also if nobody ever asks for the handle.
    """

    __slots__ = ("_getter",)

    def __init__(self, getter: Getter, *facts: Any) -> None:
        """See ``Part``; *getter* owns the handle."""
        super().__init__(*facts)
        self._getter = getter

    def succeed(self, pickled: Flat) -> None:
        """Take the engine's word for what it keeps. I/O thread."""
        try:
            kept = unpack(pickled)
            if not isinstance(kept, Kept):
                raise TypeError(f"an engine says {kept!r} of a value that it was to keep")
        except Exception as problem:  # a broken engine; the call must end all the same
            self.fail(unreadable(problem, self.engine, self.method))
            return
        self._value = self._made(self._getter.own(kept))
        self.state = State.READ

    def _made(self, handle: Handle) -> Any:
        return handle


class KeptItem(KeptPart):
    """The same of an item of a map."""

    __slots__ = ()

    def _made(self, handle: Handle) -> Any:
        return [handle]


def kept_parts(requests: Requests, view: object, *, items: bool = False) -> Callable[..., Part]:
    """Return what makes parts of calls by *view* that leave their values on engines."""
    return partial(KeptItem if items else KeptPart, Getter(requests, view))


def wants(function: Callable[..., Any], keywords: dict[str, Any], usual: bool) -> bool:
    """Take ``keep=`` out of the *keywords* of a call, unless it is a parameter of *function*; *usual*: without it.

    Raises TypeError: it is none, and neither True nor False.
    """
    if "keep" not in keywords or _names_keep(function):
        return usual
    wanted = keywords.pop("keep")
    if not isinstance(wanted, bool):
        raise TypeError(
            f"keep={wanted!r} is no parameter of {function!r}; apply() takes keep=True, to leave the value on its rank"
        )
    return wanted


def _names_keep(function: Callable[..., Any]) -> bool:
    try:
        return "keep" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # a builtin
        return False


def near(placement: Placement, handles: Iterable[Handle]) -> Placement:
    """Return *placement* with the engines that have the values of *handles*, those with most bytes first."""
    sizes: dict[int, int] = {}
    for handle in set(handles):
        sizes[handle.engine] = sizes.get(handle.engine, 0) + max(1, handle.size)
    ranked = sorted(sizes, key=lambda engine: -sizes[engine])[:MOST_NEAR]
    return msgspec.structs.replace(placement, near=ranked)
