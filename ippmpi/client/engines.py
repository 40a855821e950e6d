"""Which engines there are, as told by the hub, and what users may name them by."""

from __future__ import annotations

import operator
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import SupportsIndex

from ippmpi.errors import EngineError, NoEnginesRegistered
from ippmpi.wire.messages import EngineRecord, EnginesChanged

Targets = SupportsIndex | slice | Iterable[SupportsIndex] | str | None
"""An engine, several, or ``"all"`` (also None)."""

MAX_REASONS = 1000

MAX_WORLDS = 100
"""How many worlds are remembered; those that ended first go first."""


class NoSuchEngine(EngineError, IndexError):  # noqa: N818 - the text that users of ipyparallel know
    """The engine never was, or has left; an index error for those who index, an engine error for those who call."""


class Engines:
    """The engines of the cluster. Changed by the I/O thread, read by any; ``records`` is replaced, never edited."""

    def __init__(self) -> None:
        """Start with none known."""
        self.records: Mapping[int, EngineRecord] = {}
        self.ids: tuple[int, ...] = ()
        self.worlds: dict[str, dict[int, EngineRecord]] = {}  # by rank, as each was last seen
        self.known = False
        self.joins = 0  # the highest ``joined`` that was ever told
        self.failure: Exception | None = None
        self.losses = 0
        self._reasons: dict[int, str] = {}
        self._changed = threading.Condition()

    # --- told by the hub ---------------------------------------------------------------------

    def change(self, message: EnginesChanged, *, whole: bool) -> None:
        """Take news; *whole*: ``joined`` is the complete list, not a difference."""
        records = {} if whole else dict(self.records)
        lost = set(self.records) - {e.id for e in message.joined} if whole else set(message.left)
        for engine in message.joined:
            records[engine.id] = engine
            self._reasons.pop(engine.id, None)
        for engine_id, reason in zip(message.left, message.reasons, strict=False):
            records.pop(engine_id, None)
            self._reasons[engine_id] = reason
        while len(self._reasons) > MAX_REASONS:
            del self._reasons[next(iter(self._reasons))]
        worlds = self._worlds_with(message.joined, records)
        with self._changed:
            self.joins = max([self.joins, *(engine.joined for engine in message.joined)])
            self.records = records
            self.worlds = worlds
            self.ids = tuple(sorted(records))
            self.losses += len(lost)
            self.known = True
            self._changed.notify_all()

    def _worlds_with(
        self, joined: Iterable[EngineRecord], records: Mapping[int, EngineRecord]
    ) -> dict[str, dict[int, EngineRecord]]:
        """Return the worlds with those who *joined*; *records* are all who are there then."""
        worlds = {name: dict(ranks) for name, ranks in self.worlds.items()}
        for engine in joined:
            ranks = worlds.setdefault(engine.world, {})
            if ranks and next(iter(ranks.values())).size != engine.size:
                ranks.clear()
            ranks[engine.rank] = engine
        if len(worlds) > MAX_WORLDS:
            there = {record.world for record in records.values()}
            for name in [name for name in worlds if name not in there][: len(worlds) - MAX_WORLDS]:
                del worlds[name]
        return worlds

    def last_seen(self, engine_id: int) -> EngineRecord | None:
        """Return what is known of an engine that is there or was."""
        ranks = (record for ranks in reversed(self.worlds.values()) for record in ranks.values())
        return self.records.get(engine_id) or next((record for record in ranks if record.id == engine_id), None)

    def fail(self, problem: Exception) -> None:
        """End all waiting: the hub will tell nothing more."""
        with self._changed:
            self.failure = problem
            self._changed.notify_all()

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
        losses = self.losses
        while len(self.ids) < n:
            if self.losses > losses:
                raise EngineError(f"an engine left while waiting for {n} engines: {self._last_loss()}")
            left = 3600.0 if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"{len(self.ids)} of {n} engines came within {timeout_s:g} s")
            self._wait_change(self.ids, left)
            if on_change is not None:
                on_change()

    def _wait_change(self, seen: tuple[int, ...], timeout_s: float) -> None:
        with self._changed:
            losses = self.losses
            self._changed.wait_for(
                lambda: self.ids != seen or self.losses > losses or self.failure is not None, timeout_s
            )
            if self.failure is not None:
                raise self.failure

    def wait_until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until *condition*, which looks at this, is true; return whether it is. Raises what ``fail`` was told."""
        with self._changed:
            self._changed.wait_for(lambda: condition() or self.failure is not None, timeout_s)
            if self.failure is not None:
                raise self.failure
        return condition()

    def _last_loss(self) -> str:
        engine_id, reason = next(reversed(self._reasons.items()), (None, ""))
        return f"engine {engine_id}, {reason or 'no reason given'}" if engine_id is not None else "no reason given"

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
        chosen = [self._one(operator.index(k)) for k in key]
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
