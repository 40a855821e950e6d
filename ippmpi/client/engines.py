"""Which engines there are, as told by the hub, and what users may name them by."""

from __future__ import annotations

import operator
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, SupportsIndex

from ippmpi.errors import EngineError, NoEnginesRegistered
from ippmpi.wire.messages import EngineRecord, EnginesChanged

Targets = SupportsIndex | slice | Iterable[SupportsIndex] | str | None
"""An engine, several, or ``"all"`` (also None)."""

MAX_REASONS = 1000

MAX_WORLDS = 100
"""How many worlds are remembered; those that ended first go first."""


class NoSuchEngine(EngineError, IndexError):  # noqa: N818 - the text that users of ipyparallel know
    """The engine never was, or has left; an index error for those who index, an engine error for those who call."""


class Known(NamedTuple):
    """Who is there at one moment: records by id, sorted ids, and the worlds by name, with their ranks as last seen."""

    records: Mapping[int, EngineRecord]
    ids: tuple[int, ...]
    worlds: Mapping[str, Mapping[int, EngineRecord]]


class Engines:
    """The engines of the cluster. Changed by the I/O thread, read by any.

    What is read is a picture that is never edited. It is taken when somebody looks, not at every change: the end of a
    world is told rank by rank.
    """

    def __init__(self) -> None:
        """Start with none known."""
        self.known = False
        self.joins = 0  # the highest ``joined`` that was ever told
        self.failure: Exception | None = None
        self.losses = 0
        self._records: dict[int, EngineRecord] = {}
        self._worlds: dict[str, dict[int, EngineRecord]] = {}
        self._picture: Known | None = None
        self._version = 0
        self._reasons: dict[int, str] = {}
        self._changed = threading.Condition()

    # --- who is there ------------------------------------------------------------------------

    @property
    def records(self) -> Mapping[int, EngineRecord]:
        """Those who are there, by id."""
        return self._now().records

    @property
    def ids(self) -> tuple[int, ...]:
        """Their ids, sorted."""
        return self._now().ids

    @property
    def worlds(self) -> Mapping[str, Mapping[int, EngineRecord]]:
        """The worlds by name, also those that have ended: their ranks as each was last seen."""
        return self._now().worlds

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._records)

    def _now(self) -> Known:
        picture = self._picture
        if picture is None:
            with self._changed:
                worlds = {name: dict(ranks) for name, ranks in self._worlds.items()}
                picture = self._picture = Known(dict(self._records), tuple(sorted(self._records)), worlds)
        return picture

    # --- told by the hub ---------------------------------------------------------------------

    def change(self, message: EnginesChanged, *, whole: bool) -> None:
        """Take news; *whole*: ``joined`` is the complete list, not a difference."""
        with self._changed:
            left = set(self._records) - {e.id for e in message.joined} if whole else set(message.left)
            if whole:
                self._records.clear()
            for engine in message.joined:
                self._records[engine.id] = engine
                self._reasons.pop(engine.id, None)
            for engine_id, reason in zip(message.left, message.reasons, strict=False):
                self._records.pop(engine_id, None)
                self._reasons[engine_id] = reason
            while len(self._reasons) > MAX_REASONS:
                del self._reasons[next(iter(self._reasons))]
            self._enter_worlds(message.joined)
            self.note_joins(message.joined)
            self.losses += len(left)
            self.known = True
            self._tell()

    def note_joins(self, engines: Iterable[EngineRecord]) -> None:
        """Have what is submitted from now on meant for *engines* too, which are about to be entered."""
        self.joins = max([self.joins, *(engine.joined for engine in engines)])

    def _enter_worlds(self, joined: Iterable[EngineRecord]) -> None:
        worlds = self._worlds
        for engine in joined:
            ranks = worlds.setdefault(engine.world, {})
            if ranks and next(iter(ranks.values())).size != engine.size:
                ranks.clear()
            ranks[engine.rank] = engine
        if len(worlds) > MAX_WORLDS:
            there = {record.world for record in self._records.values()}
            for name in [name for name in worlds if name not in there][: len(worlds) - MAX_WORLDS]:
                del worlds[name]

    def _tell(self) -> None:
        self._picture = None
        self._version += 1
        self._changed.notify_all()

    def last_seen(self, engine_id: int) -> EngineRecord | None:
        """Return what is known of an engine that is there or was."""
        with self._changed:
            ranks = (record for ranks in reversed(self._worlds.values()) for record in ranks.values())
            return self._records.get(engine_id) or next((record for record in ranks if record.id == engine_id), None)

    def fail(self, problem: Exception) -> None:
        """End all waiting: the hub will tell nothing more."""
        with self._changed:
            self.failure = problem
            self._tell()

    # --- waiting -----------------------------------------------------------------------------

    def wait_known(self, timeout_s: float | None) -> bool:
        """Wait for the first news; return whether it came. Raises what ``fail`` was told."""
        with self._changed:
            self._changed.wait_for(lambda: self.known or self.failure is not None, timeout_s)
            if self.failure is not None and not self.known:
                raise self.failure
            return self.known

    def wait_for(self, n: int, timeout_s: float | None, on_change: Callable[[], None] | None = None) -> None:
        """Wait until there are at least *n* engines; *on_change* is called whenever some came.

        Raises:
            TimeoutError: fewer came in time.
            EngineError: one left meanwhile.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        losses, version = self.losses, self._version
        while len(self) < n:
            if self.losses > losses:
                raise EngineError(f"an engine left while waiting for {n} engines: {self._last_loss()}")
            left = 3600.0 if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"{len(self)} of {n} engines came within {timeout_s:g} s")
            version = self._wait_change(version, left)
            if on_change is not None:
                on_change()

    def _wait_change(self, version: int, timeout_s: float) -> int:
        """Wait until something has changed since *version*; return the present one."""
        with self._changed:
            self._changed.wait_for(lambda: self._version != version or self.failure is not None, timeout_s)
            if self.failure is not None:
                raise self.failure
            return self._version

    def wait_until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until *condition*, which looks at this, is true; return whether it is. Raises what ``fail`` was told."""
        deadline = time.monotonic() + timeout_s
        version = -1  # look at once
        while (left := deadline - time.monotonic()) > 0:
            version = self._wait_change(version, left)
            if condition():  # not under the lock: it may take a while, and more may have changed then
                return True
        return condition()

    def _last_loss(self) -> str:
        engine_id, reason = next(reversed(self._reasons.items()), (None, ""))
        return f"engine {engine_id}, {reason or 'no reason given'}" if engine_id is not None else "no reason given"

    def reason(self, engine_id: int) -> str:
        """Say why an engine is not there."""
        return self._reasons.get(engine_id) or "no reason given"

    def of_world(self, name: str) -> list[EngineRecord]:
        """Return the engines of a world that are there now."""
        return [record for record in self.records.values() if record.world == name]

    # --- naming ------------------------------------------------------------------------------

    def pick(self, key: Targets) -> tuple[list[int], bool]:
        """Return the ids that *key* names, and whether it names one engine as such (its results are bare values).

        An int is an id, or if negative a position from the end; a slice means positions in the
        sorted ids; a list holds ints.

        Raises:
            NoEnginesRegistered: there is no engine at all.
            NoSuchEngine: an IndexError and an EngineError.
            TypeError: not a key.
        """
        if not self.ids:
            raise NoEnginesRegistered(
                "no engine has registered (yet): start some, or wait for them with client.wait_for_engines(n)"
            )
        if key is None or (isinstance(key, str) and key == "all"):
            return list(self.ids), False
        if isinstance(key, slice):
            return list(self.ids[key]), False
        if type(key) is int:  # the rule; asking a protocol class takes microseconds
            return [self._one(key)], True
        if isinstance(key, SupportsIndex) and not isinstance(key, Iterable):  # an array has __index__ too
            return [self._one(operator.index(key))], True
        if isinstance(key, str) or not isinstance(key, Iterable):
            raise TypeError(f"engines are named by an int, a slice, a list of ints or 'all', not by {key!r}")
        records = self.records
        chosen = [k if type(k) is int and k in records else self._one(operator.index(k)) for k in key]
        if len(set(chosen)) < len(chosen):
            raise ValueError(f"an engine is named twice in {chosen}")
        return chosen, False

    def _one(self, key: int) -> int:
        if key in self.records:
            return key
        if -len(self.ids) <= key < 0:
            return self.ids[key]
        if key in self._reasons:
            raise NoSuchEngine(f"No such engine: {key} (it left: {self._reasons[key]})")
        raise NoSuchEngine(f"No such engine: {key}")
