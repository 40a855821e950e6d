"""Showing what engines print and display while they do it.

Equal lines of several engines are one only if they are shown together. So the first news wait a moment for those of
other engines, as long as there may be some.
"""

from __future__ import annotations

import codecs
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import TypeVar

from ippmpi.client.collector import Collector, News
from ippmpi.client.display import Shown, displayed, line, out, rank_of, show
from ippmpi.client.parts import Part
from ippmpi.errors import CompositeError

R = TypeVar("R")
Queue = SimpleQueue[News | None]

WINDOW_S = 0.1
"""How long a line waits for equal ones of other engines."""

MOST_NEWS = 4096
"""How many news are shown together at most."""


class Printer:
    """Prints news of a collector line by line, as ``[stdout:3] text``, and as ``[0-3] text`` if several say so.

    Attributes:
        errors_shown: how many failures.
    """

    def __init__(
        self, collector: Collector, read: Callable[[int], object] | None = None, *, folded: bool = True
    ) -> None:
        """Print for *collector*; *read* unpickles a part, given its index: the reply of a cell."""
        self._collector = collector
        self._read = read
        self._folded = folded
        self._decoders: dict[tuple[int, str], codecs.IncrementalDecoder] = {}
        self._rests: dict[tuple[int, str], str] = {}
        self.errors_shown = 0

    def gather(self, news: Queue, batch: list[News | None], wait_s: float | None = None) -> None:
        """Add to *batch* what is to be shown together; raise Empty if nothing comes within *wait_s* seconds."""
        batch.append(news.get(timeout=wait_s))
        until = time.monotonic() + (WINDOW_S if self._folded else 0.0)
        while batch[-1] is not None and len(batch) < MOST_NEWS:
            left_s = until - time.monotonic() if self._more_may_come() else 0.0
            try:
                batch.append(news.get(timeout=left_s) if left_s > 0 else news.get_nowait())
            except Empty:
                if left_s <= 0 or not self._more_may_come():
                    return

    def _more_may_come(self) -> bool:
        return len(self._collector.parts) > 1 and not self._collector.ended

    def show(self, batch: Sequence[News | None]) -> None:
        """Print what is complete: whole lines, displays, failures; at the end of a part also its last, open line."""
        items = []
        for news in batch:
            if news is not None:
                part = self._collector.parts[news.part]
                items += [(rank_of(part), each) for each in self._of(news, part)]
        show(items, folded=self._folded)

    def _of(self, news: News, part: Part) -> Iterator[Shown]:
        if news.kind == "display":
            yield displayed(news.payload)
        elif news.kind == "end":
            yield from self._end(news.part, part)
        else:
            yield from self._text(news.part, news.kind, news.payload)

    def _end(self, index: int, part: Part) -> Iterator[Shown]:
        for stream in ("stdout", "stderr"):
            if (index, stream) in self._decoders:
                yield from self._text(index, stream, b"", final=True)
        if self._read is not None and part.done and part.method == "execute":
            self._read(index)
        if part.error is not None:
            self.errors_shown += 1
            full = self.errors_shown <= CompositeError.tb_limit
            yield Shown("error", "\n".join(part.error.render_traceback()) if full else str(part.error))
        yield from out(part)

    def _text(self, index: int, stream: str, text: bytes, *, final: bool = False) -> Iterator[Shown]:
        key = (index, stream)
        if key not in self._decoders:
            self._decoders[key] = codecs.getincrementaldecoder("utf-8")(errors="replace")
        lines = (self._rests.pop(key, "") + self._decoders[key].decode(text, final)).split("\n")
        rest = lines.pop()
        if final and rest:
            lines.append(rest)
        elif rest:
            self._rests[key] = rest
        for each in lines:
            yield line(stream, each)


@contextmanager
def following(collector: Collector) -> Iterator[Queue]:
    """Give a queue of what happened and what happens to *collector* inside the block."""
    news: Queue = SimpleQueue()
    collector.watch(news.put)
    try:
        yield news
    finally:
        collector.unwatch(news.put)


@contextmanager
def streaming(result: R, printer: Printer, collector: Collector) -> Iterator[R]:
    """Print news of *collector* from a thread of its own for as long as the block lasts."""
    with following(collector) as news:

        def run() -> None:
            while True:
                batch: list[News | None] = []
                printer.gather(news, batch)
                printer.show(batch)
                if batch[-1] is None:
                    return

        thread = threading.Thread(target=run, name="ippmpi output", daemon=True)
        thread.start()
        try:
            yield result
        finally:
            news.put(None)  # behind all news that has come
            thread.join()
