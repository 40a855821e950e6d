"""Showing what engines print and display, while they do it or afterwards, each line with its engine."""

from __future__ import annotations

import codecs
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

from ippmpi.client.collector import Collector, News
from ippmpi.client.notebook import in_notebook
from ippmpi.client.parts import Part
from ippmpi.client.replies import ExecuteReply
from ippmpi.errors import CompositeError, RemoteError


class Readable(Protocol):
    """A result."""

    def read_part(self, index: int) -> RemoteError | None:
        """Unpickle the value of one part that is there."""


R = TypeVar("R", bound=Readable)

GROUPINGS = ("type", "engine", "order")


# --- live ----------------------------------------------------------------------------------------


class LinePrinter:
    """Prints news of a collector line by line, as ``[stdout:3] text``."""

    def __init__(self, collector: Collector) -> None:
        """Print for *collector*."""
        self._parts = collector.parts
        self._decoders: dict[tuple[int, str], codecs.IncrementalDecoder] = {}
        self._rests: dict[tuple[int, str], str] = {}
        self.errors_shown = 0

    def show(self, news: News) -> None:
        """Print what is complete: whole lines, displays, failures; at the end also the last, open line."""
        part = self._parts[news.part]
        if news.kind == "display":
            show_display(part, news.payload)
        elif news.kind == "end":
            self.flush(news.part)
            self._show_error(part)
            if isinstance(part.value, ExecuteReply):
                show_out(part, part.value)
        else:
            self._show_text(news.part, news.kind, news.payload)

    def _show_text(self, index: int, stream: str, text: bytes, *, final: bool = False) -> None:
        key = (index, stream)
        if key not in self._decoders:
            self._decoders[key] = codecs.getincrementaldecoder("utf-8")(errors="replace")
        lines = (self._rests.pop(key, "") + self._decoders[key].decode(text, final)).split("\n")
        rest = lines.pop()
        if final and rest:
            lines.append(rest)
        elif rest:
            self._rests[key] = rest
        if lines:
            write(prefixed(f"[{stream}:{self._parts[index].engine}]", "\n".join(lines)), stream)

    def flush(self, index: int) -> None:
        """Print the open lines of one part."""
        for stream in ("stdout", "stderr"):
            if (index, stream) in self._decoders:
                self._show_text(index, stream, b"", final=True)

    def _show_error(self, part: Part) -> None:
        if part.error is None:
            return
        self.errors_shown += 1
        full = self.errors_shown <= CompositeError.tb_limit
        write("\n".join(part.error.render_traceback()) if full else str(part.error), "stderr")


@contextmanager
def following(collector: Collector) -> Iterator[SimpleQueue[News | None]]:
    """Give a queue of what happened and what happens to *collector* inside the block."""
    news: SimpleQueue[News | None] = SimpleQueue()
    collector.watch(news.put)
    try:
        yield news
    finally:
        collector.unwatch(news.put)


@contextmanager
def streaming(result: R, collector: Collector) -> Iterator[R]:
    """Print news of *collector* from a thread of its own for as long as the block lasts."""
    printer = LinePrinter(collector)
    with following(collector) as news:

        def run() -> None:
            while (item := news.get()) is not None:
                if item.kind == "end" and collector.parts[item.part].method == "execute":
                    result.read_part(item.part)  # for its Out value
                printer.show(item)

        thread = threading.Thread(target=run, name="ippmpi output", daemon=True)
        thread.start()
        try:
            yield result
        finally:
            news.put(None)  # behind all news that has come
            thread.join()


# --- afterwards ----------------------------------------------------------------------------------


def check_grouping(groupby: str) -> None:
    """Raise ValueError if there is no such way to group output."""
    if groupby not in GROUPINGS:
        raise ValueError(f"groupby={groupby!r}; have {', '.join(map(repr, GROUPINGS))}")


def display_outputs(collector: Collector, groupby: str, *, result_only: bool = False) -> None:
    """Show all output and results, see ``AsyncResult.display_outputs``."""
    check_grouping(groupby)
    parts = list(collector.parts)
    if groupby == "engine":
        parts.sort(key=lambda part: -1 if part.engine is None else part.engine)
    what = [_show_displays] if result_only else [_show_stdout, _show_stderr, _show_displays]
    if groupby == "type":
        shows = [(show, part) for show in what for part in parts]
    else:
        shows = [(show, part) for part in parts for show in what]
    for show, part in shows:
        show(part)


def _show_stdout(part: Part) -> None:
    _show_stream(part, "stdout")


def _show_stderr(part: Part) -> None:
    _show_stream(part, "stderr")


def _show_stream(part: Part, stream: str) -> None:
    text = part.text(stream)
    if text:
        write(prefixed(f"[{stream}:{part.engine}]", text.removesuffix("\n")), stream)


def _show_displays(part: Part) -> None:
    for record in part.outputs:
        show_display(part, record)
    if isinstance(part.value, ExecuteReply):
        show_out(part, part.value)


def show_display(part: Part, record: dict[str, Any]) -> None:
    """Show what one engine displayed."""
    show_bundle(f"[output:{part.engine}]", record)


def show_out(part: Part, reply: ExecuteReply) -> None:
    """Show the ``Out`` value of a cell on one engine, if there is one, as ``Out[3:7]: text``."""
    if reply.data:
        show_bundle(f"Out[{part.engine}:{reply.execution_count}]:", {"data": reply.data})


# --- one line, one bundle ------------------------------------------------------------------------


def prefixed(prefix: str, text: str) -> str:
    """Put *prefix* and a space before every line; progress bars' returns keep only their last state."""
    return "\n".join(f"{prefix} {line.rstrip(chr(13)).rpartition(chr(13))[2]}" for line in text.split("\n"))


def write(text: str, stream: str = "stdout") -> None:
    """Print *text* with one call, so that lines of different threads do not mix."""
    file = sys.stderr if stream == "stderr" else sys.stdout
    file.write(text + "\n")
    file.flush()


def say(text: str) -> None:
    """Tell the user something that is no output of engines: display it in a notebook, print it on stderr elsewhere."""
    if in_notebook():
        from IPython import display

        publish: Any = display.publish_display_data  # it has no types
        publish({"text/plain": text})
    else:
        write(text, "stderr")


def show_bundle(prefix: str, record: dict[str, Any]) -> None:
    """Show a mime bundle: rich in a notebook, its plain text elsewhere."""
    data = record.get("data") or {}
    text = str(data.get("text/plain", ""))
    if set(data) - {"text/plain"} and in_notebook():
        from IPython import display

        publish: Any = display.publish_display_data  # it has no types
        write(prefix)
        publish(data, record.get("metadata") or {})
    elif "\n" in text:
        write(f"{prefix}\n{text}")
    else:
        write(f"{prefix} {text}")
