"""Why results are not there yet: what the controller says of tasks, and what only this client knows, as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import overload

import msgspec

from ippmpi.client.collector import Collector
from ippmpi.client.futures import Owner
from ippmpi.client.parts import Part
from ippmpi.client.reasons import Teller, engines_text
from ippmpi.wire.messages import Query
from ippmpi.wire.reasons import ENDED, UNKNOWN, Explained, Question, Reason

AWAY_S = 1.0
"""How long is waited for an answer while the controller cannot be reached."""

MOST_ASKED = 1000
"""Of how many tasks the controller is asked at once."""

SHOWN = 20
"""How many lines are printed."""


@dataclass(frozen=True)
class Why:
    """Why one task has no result yet, or has one, on these engines.

    ``state``: waiting, queued, running, done, failed, or unknown. ``why`` says it in one or two words, ``text`` in a
    sentence. ``label`` and ``function`` are empty if they are not known. ``details``: what the controller said.
    """

    task: str
    state: str
    why: str
    text: str
    engines: list[int] = field(default_factory=list)
    label: str = ""
    function: str = ""
    details: Reason | None = field(default=None, repr=False)

    def __str__(self) -> str:
        """One line."""
        return f"{self.state:<8} {self.text}"


class Explanation(Sequence[Why]):
    """Reasons, one or more for each task; printed, or as the value of a notebook's cell, they are lines of text."""

    def __init__(self, reasons: Iterable[Why], left_out: int = 0) -> None:
        """*left_out*: of how many tasks more nothing is said."""
        self._reasons = list(reasons)
        self.left_out = left_out

    @overload
    def __getitem__(self, index: int) -> Why: ...
    @overload
    def __getitem__(self, index: slice) -> list[Why]: ...
    def __getitem__(self, index: int | slice) -> Why | list[Why]:
        """Return reason *index*, or several."""
        return self._reasons[index]

    def __len__(self) -> int:
        """Return the number of reasons."""
        return len(self._reasons)

    def __repr__(self) -> str:
        """Return all as text; of many that are alike the first ones."""
        if not self._reasons:
            return "nothing is pending"
        lines = [str(reason) for reason in self._reasons[:SHOWN]]
        rest = len(self._reasons) - SHOWN
        if rest > 0:
            states = Counter(reason.state for reason in self._reasons[SHOWN:])
            lines.append(f"... and {rest} more: " + ", ".join(f"{n} {state}" for state, n in states.items()))
        if self.left_out:
            lines.append(f"... and {self.left_out} more tasks")
        return "\n".join(lines)

    __str__ = __repr__


def explain(owner: Owner, collector: Collector, timeout_s: float) -> Explanation:
    """Say why the parts of *collector* have not come."""
    parts = list(collector.parts)  # those of a map become more
    open_parts = [part for part in parts if not part.done and part.task]
    tasks = list(dict.fromkeys(part.task for part in open_parts))
    reasons = _ended(parts, collector.called)
    if tasks:
        answer = _ask(owner, tasks[:MOST_ASKED], timeout_s)
        reasons += _away(open_parts, collector) if answer is None else _told(owner, answer, open_parts)
    unmade = collector.size - sum(getattr(part, "size", 1) for part in parts)
    if unmade > 0:
        text = f"{unmade} items of the map have not been sent: this client sends them as others end"
        reasons.append(Why("", "waiting", "not sent", text, function=collector.called))
    return Explanation(reasons, max(0, len(tasks) - MOST_ASKED))


def explain_tasks(owner: Owner, tasks: list[str] | None, timeout_s: float, limit: int = MOST_ASKED) -> Explanation:
    """Say why *tasks*, of any client (None: all that have not ended, at most *limit*), have no result."""
    answer = _ask(owner, tasks, timeout_s, limit)
    if answer is None:
        raise TimeoutError(f"the controller cannot be reached, and did not answer 'explain' within {AWAY_S:g} s")
    teller = _teller(owner)
    return Explanation([_why(reason, teller) for reason in answer.reasons], answer.left_out)


def _ask(owner: Owner, tasks: list[str] | None, timeout_s: float, limit: int = MOST_ASKED) -> Explained | None:
    """Return the controller's answer, None if it cannot be reached; raise TimeoutError if it does not answer."""
    question = msgspec.msgpack.encode(Question(tasks, limit))
    answer = owner.ask(lambda number: Query(number, "explain", question))
    away = not owner.reachable
    try:
        return msgspec.convert(answer.result(min(timeout_s, AWAY_S) if away else timeout_s), Explained)
    except TimeoutError:
        if away or not owner.reachable:
            return None
        raise TimeoutError(f"the controller did not answer 'explain' within {timeout_s:g} s") from None


def _teller(owner: Owner) -> Teller:
    called = {task: pending.collector.called for task, pending in list(owner.pending.items())}
    return Teller(owner.engines.records, called)


def _why(reason: Reason, teller: Teller) -> Why:
    engines = [engine for first, last in reason.engines for engine in range(first, last + 1)]
    function = teller.called.get(reason.task, "")
    return Why(reason.task, reason.state, reason.why, teller.tell(reason), engines, reason.label, function, reason)


def _told(owner: Owner, answer: Explained, parts: Sequence[Part]) -> list[Why]:
    """Turn what the controller said into text; what has ended there is on its way to us."""
    teller = _teller(owner)
    found = []
    for reason in answer.reasons:
        pending = owner.pending.get(reason.task)
        if reason.why in (ENDED, UNKNOWN):
            if any(part.task == reason.task and not part.done for part in parts):
                text = f"{teller.name(reason.task)} has ended; its result is on the way to this client"
                found.append(Why(reason.task, reason.state, "on its way", text, label=reason.label, details=reason))
            continue
        why = _why(reason, teller)
        if pending is not None and not pending.collector.sent and reason.bytes:
            text = f"{why.text}; this client is still sending its arguments"
            why = Why(why.task, why.state, "sending", text, why.engines, why.label, why.function, reason)
        found.append(why)
    return found


def _away(parts: Sequence[Part], collector: Collector) -> list[Why]:
    """Say what is left to say without an answer."""
    name = collector.called or collector.method
    text = (
        f"{name} on {collector.whom()}: this client has no connection to the controller now; messages wait on both "
        "sides, and results come when it is back"
    )
    return [Why(parts[0].task, "unknown", "offline", text, function=collector.called)]


def _ended(parts: Sequence[Part], called: str) -> list[Why]:
    """Say what has come: one reason for the values, one for each of the first failures."""
    found = []
    good = [part for part in parts if part.done and not part.failed]
    if good:
        ids = [part.engine for part in good if part.engine is not None]
        text = f"{len(good)} of {len(parts)} results have come, from {engines_text(ids)}"
        found.append(Why(good[0].task, "done", "done", text, ids, good[0].label, called))
    for part in parts:
        if part.error is not None:
            ids = [] if part.engine is None else [part.engine]
            found.append(Why(part.task, "failed", "failed", str(part.error), ids, part.label, called))
    return found
