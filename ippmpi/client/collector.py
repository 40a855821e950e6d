"""All parts of one call: filled by the I/O thread, waited for by any other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from ippmpi import clock
from ippmpi.client.conditions import Changes
from ippmpi.client.contents import Flat
from ippmpi.client.parts import Part
from ippmpi.errors import RemoteError


class News(NamedTuple):
    """Something that happened to part number ``part``: ``kind`` is stdout, stderr, display or end."""

    part: int
    kind: str
    payload: Any = None


class Collector:
    """Counts the parts that have come, and tells those who listen."""

    def __init__(self, parts: Sequence[Part], method: str, keep: object = None) -> None:
        """Wait for *parts*, the results of a call of *method*. *keep* (the view) lives as long as this does."""
        self.keep = keep
        self.parts = parts
        self.method = method
        self.called = ""  # the name of the function, if it is known
        self.order: list[int] = []
        self.problem: Exception | None = None
        self.changed = Changes()
        self._holds = 1
        self._failures = 0
        self._whole: Collector | None = None  # that this one is a piece of
        self._place = 0  # in that one
        self._pieces: dict[int, list[Collector]] | None = None
        self._on_end: tuple[Callable[[], None], ...] = ()
        self._watchers: tuple[Callable[[News], None], ...] = ()

    @classmethod
    def joined(cls, pieces: Sequence[tuple[Collector, Sequence[int]]], keep: object = None) -> Collector:
        """Return a collector of some parts of others, which keep it informed."""
        whole = cls([source.parts[i] for source, indices in pieces for i in indices], pieces[0][0].method, keep)
        whole.release()
        first = 0
        for source, indices in pieces:
            places = {index: first + place for place, index in enumerate(indices)}
            source.watch(partial(whole._heard, source, places))
            first += len(indices)
        return whole

    def _heard(self, source: Collector, places: dict[int, int], news: News) -> None:
        """Take news of one of those that this one was joined from."""
        place = places.get(news.part)
        if place is None:
            return
        if news.kind != "end":
            with self.changed:
                self._tell(news._replace(part=place))
        elif self.parts[place].done:
            with self.changed:
                self._note(place)
                self.changed.notify_all()
                pieces = (self._pieces or {}).get(place, [])
            for piece in pieces:
                piece._piece_arrived()
            if self.ended:
                self._end()
        elif source.problem is not None:
            self.break_off(source.problem)

    # --- filled by the I/O thread ------------------------------------------------------------

    def take(self, outcomes: Sequence[tuple[int, Flat | RemoteError]]) -> None:
        """Take the pickled values, or the failures, of some parts."""
        now, parts = clock.now(), self.parts
        pieces = []
        with self.changed:
            for index, outcome in outcomes:
                part = parts[index]
                part.received = now
                if isinstance(outcome, RemoteError):
                    part.fail(outcome)
                else:
                    part.succeed(outcome)
                self._note(index)
                if self._pieces and index in self._pieces:
                    pieces += self._pieces[index]
            self.changed.notify_all()
        for piece in pieces:
            piece._piece_arrived()
        if self.ended:
            self._end()

    def _piece_arrived(self) -> None:
        with self.changed:
            self._note(0)
            self.changed.notify_all()
        self._end()

    def _note(self, index: int) -> None:
        self.order.append(index)
        self._failures += self.parts[index].failed
        if self._watchers:
            self._tell(News(index, "end"))

    def printed(self, index: int, stream: str, text: bytes) -> None:
        """Keep what part *index* printed."""
        with self.changed:
            self.parts[index].add_text(stream, text)
            self._tell(News(index, stream, text))

    def displayed(self, index: int, record: dict[str, Any]) -> None:
        """Keep what part *index* displayed (mime types and data)."""
        if record.get("kind") == "clear_output":
            self.parts[index].clear_outputs()
            return
        with self.changed:
            self.parts[index].add_output(record)
            self._tell(News(index, "display", record))

    def break_off(self, problem: Exception) -> None:
        """Nothing more will come: *problem* is the outcome of the whole call."""
        if self.ended:
            return
        with self.changed:
            self.problem = problem
            self.changed.notify_all()
            for index, part in enumerate(self.parts):
                if not part.done:
                    self._tell(News(index, "end"))
            self._holds = 0
            pieces = list((self._pieces or {}).values())
        for some in pieces:
            for piece in some:
                piece.break_off(problem)
        self._end()

    def hold(self) -> None:
        """Remember that one more request with large contents is under way. Any thread."""
        with self.changed:
            self._holds += 1

    def release(self) -> None:
        """One of them is with the hub, or (once) no more requests follow; after the last one ``sent`` is true."""
        with self.changed:
            self._holds -= 1
            if self._holds == 0:
                self.changed.notify_all()

    def _end(self) -> None:
        with self.changed:  # another thread may break it off at this moment
            callbacks, self._on_end = self._on_end, ()
        for callback in callbacks:
            callback()

    def _tell(self, news: News) -> None:
        for watcher in self._watchers:
            watcher(news)

    # --- read by any thread ------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Whether every part came, or none will any more."""
        return self.problem is not None or len(self.order) == len(self.parts)

    @property
    def size(self) -> int:
        """How many results there will be."""
        return len(self.parts)

    @property
    def progress(self) -> int:
        """How many of them are there."""
        return len(self.order)

    @property
    def sent(self) -> bool:
        """Whether the hub has all that was to be sent, so that the arguments are no longer needed here."""
        return self._holds <= 0 if self._whole is None else self._whole.sent

    def wait_sent(self, timeout_s: float | None) -> bool:
        """Wait until ``sent``; return whether it was in time."""
        changed = self.changed if self._whole is None else self._whole.changed
        with changed:
            return changed.wait_for(lambda: self.sent, timeout_s)

    @property
    def failed(self) -> bool:
        """Whether a failure has come."""
        return self.problem is not None or self._failures > 0

    @property
    def missing(self) -> list[Part]:
        """The parts that have not come."""
        return [part for part in self.parts if not part.done]

    def wait(self, ready: Callable[[], bool], timeout_s: float | None) -> bool:
        """Wait until ``ready()``, looking again whenever a part comes; return whether it was in time."""
        with self.changed:
            return self.changed.wait_for(lambda: ready() or self.problem is not None, timeout_s)

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call *callback* once when ``ended``, on the I/O thread; at once if it has."""
        with self.changed:
            if not self.ended:
                self._on_end += (callback,)
                return
        callback()

    def watch(self, watcher: Callable[[News], None], *, replay: bool = True) -> None:
        """Call *watcher* with all further news (on the I/O thread, so be quick), and first with what came before."""
        with self.changed:
            if replay:
                self._replay(watcher)
            self._watchers += (watcher,)

    def _replay(self, watcher: Callable[[News], None]) -> None:
        for index, part in enumerate(self.parts):
            for stream, pieces in (("stdout", part.stdout), ("stderr", part.stderr)):
                if pieces:
                    watcher(News(index, stream, b"".join(pieces)))
            for record in part.outputs:
                watcher(News(index, "display", record))
            if part.done or self.problem is not None:
                watcher(News(index, "end"))

    def unwatch(self, watcher: Callable[[News], None]) -> None:
        """Stop calling *watcher*."""
        with self.changed:
            self._watchers = tuple(each for each in self._watchers if each != watcher)

    def piece(self, index: int) -> Collector:
        """Return a collector of part *index* alone, which this one keeps informed."""
        if self._whole is not None:
            return self._whole.piece(self._place)
        piece = Collector([self.parts[index]], self.method, self.keep)
        piece._whole, piece._place = self, index
        with self.changed:
            if self.parts[index].received:
                with piece.changed:
                    piece._note(0)
            elif self.problem is not None:
                piece.problem = self.problem
            else:
                self._pieces = self._pieces or {}
                self._pieces.setdefault(index, []).append(piece)
        return piece

    def places(self) -> tuple[Collector, Sequence[int]]:
        """Return the collector that these parts belong to, and which of its parts they are; once it is complete."""
        self.complete()
        return (self, range(len(self.parts))) if self._whole is None else (self._whole, [self._place])

    def complete(self) -> None:
        """Make sure that ``parts`` are all that there will be; see ``Growing``."""

    def withdraw(self) -> None:
        """Make no more parts; see ``Growing``."""

    # --- words -------------------------------------------------------------------------------

    def describe_missing(self, timeout_s: float) -> str:
        """Say what has not come within *timeout_s* seconds, and from whom."""
        came = len(self.parts) - len(self.missing)
        return f"{self.method}: {came} of {len(self.parts)} results came within {timeout_s:g} s; missing: {self.whom()}"

    def whom(self) -> str:
        """Say whose parts have not come."""
        missing = self.missing
        engines = [str(part.engine) for part in missing if part.engine is not None]
        shown = ", ".join(engines[:8]) + (", ..." if len(engines) > 8 else "")
        return f"engine{'s' if len(engines) > 1 else ''} {shown}" if engines else f"{len(missing)} waiting task(s)"
