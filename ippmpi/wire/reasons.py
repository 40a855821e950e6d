"""Why tasks have no result yet: what the controller answers to the question ``explain``."""

from __future__ import annotations

import msgspec

Spans = list[tuple[int, int]]
"""Engine ids, as first and last of each run of them: a request may be on thousands."""

MOST_OTHERS = 8
"""How many other tasks one reason names; it counts all of them."""

MOST_PARTS = 50
"""Into how many reasons the parts of one task are sorted; what is left is counted."""

NEEDS = "dependencies"
"""Waits for ``others``, of which ``count`` have not ended."""
CACHED = "cached result"
"""Its result is looked for in the cache; or an equal one is under way (``others``), whose result may do."""
NO_ENGINES = "no engines"
"""Waits for an engine to come; of the worlds in ``coming`` not all ranks are there."""
STOPPING = "engines stopping"
"""All engines were told to stop (then a task waits for one to come), or that on which the part has not begun."""
RESTORED = "nodes returning"
"""The controller was started again: nothing is placed before all nodes (``hosts``) have said what they have."""
BUSY = "engines busy"
"""Waits for one of ``count`` engines, which work on ``others``; ``behind`` tasks come first."""
RUNS = "runs"
"""It is the first on its engines, for ``for_s`` seconds."""
BEHIND = "behind"
"""It was handed to its engines, which have the first of ``others`` to do; ``behind`` tasks come first."""
TAKEN_BACK = "taken back"
"""It was cancelled: its engines were told so, and have not answered."""
MOVING = "moving"
"""It is being taken back from an engine that is busy, to be given to another one."""
NODE_AWAY = "node away"
"""The agent of its engines (``hosts``) is not connected: what they do is not known."""
ENDED = "ended"
"""It has ended; ``engines`` are those on which it failed, if it did."""
UNKNOWN = "unknown"
"""The controller knows no such task, or has forgotten it."""


class Other(msgspec.Struct, frozen=True, omit_defaults=True):
    """Another task: ``state`` is waiting, queued or running (for ``for_s`` seconds, on ``engines``).

    ``least``: for longer, as the controller was started again meanwhile.
    """

    task: str
    label: str = ""
    state: str = "waiting"
    engines: Spans = []
    for_s: float = 0.0
    least: bool = False


class Reason(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why one task, or its parts on ``engines``, has no result yet; ``why`` is one of the names above.

    Of a task that waits for an engine, ``only`` are those that may take it (if not all may), ``candidates`` and
    ``follows`` say why no others, ``avoids`` are those that are left out, since it failed there or they refused it.
    ``for_s`` and ``least`` as of ``Other``. ``bytes``: of its large arguments, which may still be on their way.
    """

    task: str
    state: str
    why: str
    client: str = ""
    client_away: bool = False
    label: str = ""
    op: str = ""
    engines: Spans = []
    others: list[Other] = []
    count: int = 0
    behind: int = 0
    rivals: int = 0
    only: Spans | None = None
    candidates: bool = False
    follows: bool = False
    avoids: Spans = []
    hosts: list[str] = []
    coming: list[tuple[str, int, int]] = []
    for_s: float = 0.0
    least: bool = False
    bytes: int = 0
    retries: int = 0
    attempt: int = 0
    last_failure: str = ""
    within_s: float = 0.0


class Question(msgspec.Struct, frozen=True):
    """The arguments of the question: these ``tasks`` (None: all that have not ended), at most so many."""

    tasks: list[str] | None = None
    limit: int = 1000


class Explained(msgspec.Struct, frozen=True):
    """The answer. ``left_out``: how many tasks more there are."""

    reasons: list[Reason]
    left_out: int = 0


def spans_of(ids: list[int]) -> Spans:
    """Return *ids*, in any order, as first and last of each run."""
    found: Spans = []
    for number in sorted(ids):
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found
