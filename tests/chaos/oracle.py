"""What must be true of a history of work, whatever was done to those who did it. Pure.

A history is told by three who do not know each other: the clients (what was asked and how it ended), the tasks
themselves (one line in a file per run), and the one who does harm (whom he killed).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

NEVER, FIRST, ALWAYS = "never", "first", "always"

BY_DEATH = frozenset({"EngineError", "NameError", "SystemExit"})
"""Ends that only the death of an engine excuses: NameError, as what was pushed there died with it; SystemExit, when it
was told to end."""

UNDELIVERED = "did not arrive"
"""What an engine says that lives, of a request that it could not run: contents come again, whoever else dies."""

FORGETS_S = (5.0, 20.0)
"""How long before and after the death of the controller the loss of a whole node may take its knowledge with it.

What a node had is then known to nobody: balanced tasks run again elsewhere (``docs/architecture.md``, a controller
that was killed). 5 s: the news was not stored yet; 20 s: the node is given up. How often a task with retries had
failed is known to the engines that it failed on; those that have died cannot tell.
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request. ``parts``: values it has; ``fails``: which of its runs raise ValueError; ``after``: other keys.

    ``counted``: each run writes a line; ``items``: not the request but each of so many items does, once.
    """

    key: str
    kind: str = "direct"
    parts: int = 1
    retries: int = 0
    fails: str = NEVER
    after: tuple[str, ...] = ()
    counted: bool = True
    items: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """One value: right (nothing is set), ``wrong`` (how), or an ``error`` by name, of the engine process ``pid``."""

    wrong: str = ""
    error: str = ""
    text: str = ""
    pid: int | None = None

    @property
    def right(self) -> bool:
        """Whether it is a value, and the right one."""
        return not self.wrong and not self.error


@dataclass(frozen=True, slots=True)
class Death:
    """An engine process that was killed, or told to end, at a time of the monotonic clock."""

    pid: int
    when: float


@dataclass(slots=True)
class History:
    """Everything that was told. ``runs``: key, process and time, in the order in which they began.

    ``restarts``: when the controller was killed. ``changes``: when a set of engines was being started again.
    """

    asked: dict[str, Asked] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    aborted: set[str] = field(default_factory=set)
    ended: dict[str, list[list[Outcome]]] = field(default_factory=dict)
    runs: list[tuple[str, int, float]] = field(default_factory=list)
    deaths: list[Death] = field(default_factory=list)
    restarts: list[float] = field(default_factory=list)
    changes: list[tuple[float, float]] = field(default_factory=list)

    def changed(self, pid: int) -> bool:
        """Whether the last thing that *pid* did was while its set was being started again: such engines end soon."""
        last = max((when for _, process, when in self.runs if process == pid), default=None)
        return any(last is None or begin - 1 <= last <= end + 1 for begin, end in self.changes)

    @property
    def killed(self) -> set[int]:
        """The engine processes whose work may be lost."""
        return {death.pid for death in self.deaths}

    def forgotten(self, *, retried: bool) -> set[int]:
        """Those that died so near to the controller that it cannot know what they had, see ``FORGETS_S``.

        *retried*: of a task that may be tried again, those that died at any time before it.
        """
        before = math.inf if retried else FORGETS_S[0]
        return {d.pid for d in self.deaths if any(-before < d.when - t < FORGETS_S[1] for t in self.restarts)}


def judge(history: History) -> list[str]:
    """Return what is wrong, one line each; nothing if all is well."""
    runs: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)  # key to (when, process)
    for moment, (key, pid, _) in enumerate(history.runs):
        runs[key].append((moment, pid))
    found = [f"{key}: ran, but nobody asked for it" for key in _bases(runs) - history.asked.keys()]
    for asked in history.asked.values():
        what = f"{asked.key} ({asked.kind})"
        found += [f"{what}: {text}" for text in _ends(asked, history)]
        found += [f"{what}: {text}" for text in _runs(asked, runs, history)]
        if asked.counted and not asked.items and not runs[asked.key] and _any_right(asked, history):
            found.append(f"{what}: has a value and never ran")
        found += [f"{what}: {text}" for text in _order(asked, runs)]
    return found


def _bases(keys: Iterable[str]) -> set[str]:
    return {key.partition("/")[0] for key in keys}


def _any_right(asked: Asked, history: History) -> bool:
    return any(outcome.right for end in history.ended.get(asked.key, []) for outcome in end)


def _ends(asked: Asked, history: History) -> Iterator[str]:
    ends = history.ended.get(asked.key, [])
    if asked.key in history.refused:
        if ends:
            yield "was refused, and ended"
        return
    if not ends:
        yield "never ended"
    if len(ends) > 1:
        yield f"ended {len(ends)} times"
    yield from (f"has {len(outcomes)} values, not {asked.parts}" for outcomes in ends if len(outcomes) != asked.parts)
    problems = [_problem(asked, outcome, history) for outcomes in ends for outcome in outcomes]
    yield from filter(None, problems)


def _problem(asked: Asked, outcome: Outcome, history: History) -> str:
    if outcome.wrong:
        return f"wrong value: {outcome.wrong}"
    if not outcome.error:
        return "has a value, though every run raises" if asked.fails == ALWAYS else ""
    told = f"{outcome.error}: {outcome.text}"
    if outcome.error in BY_DEATH and UNDELIVERED not in outcome.text:
        return "" if _excused(outcome, history) else f"ended with an error that nothing excuses: {told}"
    allowed = {
        # a retry may have gone on an engine that died
        "ValueError": asked.fails == ALWAYS or (asked.fails == FIRST and (asked.retries == 0 or bool(history.deaths))),
        "TaskAborted": asked.key in history.aborted,
        "ImpossibleDependency": any(_failed(key, history) for key in asked.after),
    }
    return "" if allowed.get(outcome.error) else f"ended with an error that nothing excuses: {told}"


def _excused(outcome: Outcome, history: History) -> bool:
    """Whether an engine's death explains *outcome*: its own, if it is known which it was."""
    if outcome.error != "NameError" and outcome.pid is not None:
        return outcome.pid in history.killed or history.changed(outcome.pid)
    return bool(history.killed)


def _failed(key: str, history: History) -> bool:
    return key in history.refused or any(not o.right for end in history.ended.get(key, []) for o in end)


def _runs(asked: Asked, runs: Mapping[str, list[tuple[int, int]]], history: History) -> Iterator[str]:
    keys = [f"{asked.key}/{item}" for item in range(asked.items)] or [asked.key]
    most = (1 if asked.items else asked.parts) + asked.retries
    balanced = asked.kind not in ("direct", "everywhere", "execute")
    forgotten = history.forgotten(retried=asked.retries > 0) if balanced else set()
    for key in keys:
        mine = runs.get(key, [])
        excused = sum(pid in forgotten for _, pid in mine)
        if len(mine) - excused > most:
            yield f"{key} ran {len(mine)} times, at most {most} are allowed"
            continue
        for pid, count in Counter(pid for _, pid in mine).items():
            if count > 1 + asked.retries:  # whatever others have forgotten: it knows what it has run
                yield f"{key} ran {count} times in process {pid}"


def _order(asked: Asked, runs: Mapping[str, list[tuple[int, int]]]) -> Iterator[str]:
    mine = runs.get(asked.key)
    for key in asked.after:
        before = runs.get(key)
        if mine and before and mine[0][0] < before[-1][0]:
            yield f"began before {key}, which it waits for"
