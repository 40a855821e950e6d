"""Data that a task shows while it runs: the client sees the latest values in ``result.data``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Publisher = Callable[[Mapping[str, object]], None]

_publishers: list[Publisher] = []  # none or one


def connect(publisher: Publisher) -> None:
    """Let *publisher* take what is published in this process; an engine does that at its start."""
    _publishers[:] = [publisher]


def publish_data(data: Any) -> None:
    """Show *data*, names and values, to whoever asked for the task that runs on this engine.

    The values are pickled at once, at most 1 MB of them. A value replaces an earlier one of the same name; what is
    published in quick succession may arrive as one. A client that is away misses what is published meanwhile.

    Raises:
        RuntimeError: this is no engine, or no task runs.
        TypeError: *data* is no mapping of names to values, or a value cannot be pickled.
        ValueError: it is too large, or a name is no text.
    """
    if not isinstance(data, Mapping) or not all(isinstance(name, str) for name in data):
        raise TypeError(f"publish_data() needs a dict of names to values, not {data!r}")
    if not _publishers:
        raise RuntimeError("publish_data() is for code that runs on an engine; this process is none")
    _publishers[0](data)
