"""How output of engines looks: each line with the engines that printed it, results and displays with theirs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ippmpi.client.collector import Collector
from ippmpi.client.folding import Folded, fold, fold_neighbours, spans
from ippmpi.client.notebook import in_notebook
from ippmpi.client.parts import Part
from ippmpi.client.replies import ExecuteReply

GROUPINGS = ("type", "engine", "order")

NOWHERE = -1
"""Stands for the engine of a task that has none."""


class Rich:
    """A mime bundle that is shown as such; equal to itself only."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        """Hold what an engine displayed."""
        self.record = record


class Shown(NamedTuple):
    """One thing to show: a line (of stdout or stderr), a display (output), an ``Out`` value, or an error's text.

    Those of several engines are one if they are equal. ``number`` is that of an ``Out``.
    """

    kind: str
    text: str
    number: int = 0
    rich: Rich | None = None


# --- what there is -------------------------------------------------------------------------------


def rank_of(part: Part) -> int:
    """Return the engine that stands before what *part* shows."""
    return NOWHERE if part.engine is None else part.engine


def line(stream: str, text: str) -> Shown:
    """Return one line; of a progress bar, which goes back to its start again and again, the last state."""
    return Shown(stream, text.rstrip("\r").rpartition("\r")[2])


def displayed(record: Mapping[str, Any]) -> Shown:
    """Return what an engine displayed."""
    return _bundle("output", record)


def out(part: Part) -> Iterator[Shown]:
    """Yield the ``Out`` value of a cell on one engine, if there is one."""
    if isinstance(part.value, ExecuteReply) and part.value.data:
        yield _bundle("out", {"data": part.value.data}, part.value.execution_count)


def _bundle(kind: str, record: Mapping[str, Any], number: int = 0) -> Shown:
    data = record.get("data") or {}
    rich = Rich(record) if set(data) - {"text/plain"} and in_notebook() else None
    return Shown(kind, str(data.get("text/plain", "")), number, rich)


def _lines(part: Part, stream: str) -> Iterator[Shown]:
    text = part.text(stream)
    if text:
        for each in text.removesuffix("\n").split("\n"):
            yield line(stream, each)


def _results(part: Part) -> Iterator[Shown]:
    for record in part.outputs:
        yield displayed(record)
    yield from out(part)


def _everything(part: Part) -> Iterator[Shown]:
    yield from _lines(part, "stdout")
    yield from _lines(part, "stderr")
    yield from _results(part)


# --- afterwards ----------------------------------------------------------------------------------


def check_grouping(groupby: str) -> None:
    """Raise ValueError if there is no such way to group output."""
    if groupby not in GROUPINGS:
        raise ValueError(f"groupby={groupby!r}; have {', '.join(map(repr, GROUPINGS))}")


def display_outputs(collector: Collector, groupby: str, *, result_only: bool = False, folded: bool = True) -> None:
    """Show all output and results, see ``AsyncResult.display_outputs``."""
    check_grouping(groupby)
    parts = list(collector.parts)
    if groupby == "engine":
        parts.sort(key=rank_of)
    if groupby == "type":
        _show_by_type(parts, result_only=result_only, folded=folded)
    else:
        _show_by_part(parts, result_only=result_only, folded=folded)


def _show_by_type(parts: Sequence[Part], *, result_only: bool, folded: bool) -> None:
    for stream in () if result_only else ("stdout", "stderr"):
        show([(rank_of(part), each) for part in parts for each in _lines(part, stream)], folded=folded)
    show([(rank_of(part), each) for part in parts for each in _results(part)], folded=folded)


def _show_by_part(parts: Sequence[Part], *, result_only: bool, folded: bool) -> None:
    of_part = _results if result_only else _everything
    blocks = [(rank_of(part), tuple(of_part(part))) for part in parts]
    shown = [(rank, block) for rank, block in blocks if block]
    joined = fold_neighbours(shown) if folded else _each(shown)
    write_out([Folded(ranks, each) for ranks, block in joined for each in block])


# --- one after the other -------------------------------------------------------------------------


def show(items: Sequence[tuple[int, Shown]], *, folded: bool = True) -> None:
    """Show what some engines show; equal things of several once if *folded*."""
    write_out(fold(items) if folded else _each(items))


def _each(items: Iterable[tuple[int, Any]]) -> list[Folded[Any]]:
    return [Folded((rank,), what) for rank, what in items]


def write_out(items: Sequence[Folded[Shown]]) -> None:
    """Print *items*, as many as possible with one call."""
    waiting: list[str] = []
    stream = "stdout"
    for ranks, shown in items:
        wanted = "stderr" if shown.kind in ("stderr", "error") else "stdout"
        if waiting and (wanted != stream or shown.rich is not None):
            write("\n".join(waiting), stream)
            waiting.clear()
        stream = wanted
        if shown.rich is None:
            waiting.append(_as_text(ranks, shown))
        else:
            _show_rich(_prefix(ranks, shown), shown.rich)
    if waiting:
        write("\n".join(waiting), stream)


def _as_text(ranks: Sequence[int], shown: Shown) -> str:
    if shown.kind == "error":
        return shown.text
    between = "\n" if "\n" in shown.text else " "
    return f"{_prefix(ranks, shown)}{between}{shown.text}"


def _prefix(ranks: Sequence[int], shown: Shown) -> str:
    names = "?" if NOWHERE in ranks else spans(ranks)
    if shown.kind == "out":
        return f"Out[{names}:{shown.number}]:"
    if shown.kind == "stdout" and len(ranks) > 1:
        return f"[{names}]"
    return f"[{shown.kind}:{names}]"


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


def _show_rich(prefix: str, rich: Rich) -> None:
    from IPython import display

    publish: Any = display.publish_display_data  # it has no types
    write(prefix)
    publish(rich.record.get("data") or {}, rich.record.get("metadata") or {})
