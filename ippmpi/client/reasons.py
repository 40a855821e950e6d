"""From what the controller says of a task to a sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from ippmpi.wire import reasons as r
from ippmpi.wire.messages import EngineRecord
from ippmpi.wire.reasons import Other, Reason, Spans, spans_of

MOST_HOSTS = 4


def engines_text(ids: Iterable[int]) -> str:
    """Name engines: ``engine 3``, ``engines 0-3, 7``, ``no engine``."""
    return spans_text(spans_of(list(ids)))


def spans_text(spans: Spans) -> str:
    """Name engines that are given as spans."""
    if not spans:
        return "no engine"
    shown = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
    several = len(spans) > 1 or spans[0][0] != spans[0][1]
    return f"engine{'s' if several else ''} {shown}"


def seconds_text(seconds: float) -> str:
    """Write a duration: ``0.3 s``, ``12 s``, ``5 min``, ``3.2 h``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _time(running: Reason | Other) -> str:
    return f"{'at least ' if running.least else ''}{seconds_text(running.for_s)}"


def count(number: int, what: str) -> str:
    """Write a number of things: ``1 task``, ``3 tasks``."""
    return f"{number} {what}{'' if number == 1 else 's'}"


class Teller:
    """Knows the engines, and what functions the tasks of this client call (*called*)."""

    def __init__(self, engines: Mapping[int, EngineRecord], called: Mapping[str, str]) -> None:
        """Use these names."""
        self.engines = engines
        self.called = called
        self._sentences: dict[str, Callable[[Reason], str]] = {
            r.NEEDS: self._needs,
            r.CACHED: self._cached,
            r.NO_ENGINES: self._no_engines,
            r.STOPPING: self._stopping,
            r.RESTORED: self._restored,
            r.BUSY: self._busy,
            r.RUNS: self._runs,
            r.BEHIND: self._behind,
            r.TAKEN_BACK: self._taken_back,
            r.MOVING: self._moving,
            r.NODE_AWAY: self._node_away,
            r.ENDED: self._ended,
            r.UNKNOWN: self._unknown,
        }

    def tell(self, reason: Reason) -> str:
        """Return the sentence."""
        text = self._sentences[reason.why](reason)
        if reason.client_away:
            text += f"; its client ({reason.client.removeprefix('client:')}) is not connected"
        return text

    def name(self, task: str, label: str = "") -> str:
        """Name a task by its function, label and id, as far as they are known."""
        called = self.called.get(task, "")
        words = [f"{called}()" if called else "", repr(label) if label else ""]
        known = " ".join(word for word in words if word)
        return f"{known} ({task})" if known else f"task {task}"

    def _me(self, reason: Reason) -> str:
        return self.name(reason.task, reason.label)

    def _where(self, spans: Spans) -> str:
        """Name engines with their ranks and hosts, if they are few."""
        text = spans_text(spans)
        if len(spans) == 1 and spans[0][0] == spans[0][1]:
            record = self.engines.get(spans[0][0])
            return text if record is None else f"{text} (rank {record.rank} on {record.host})"
        ids = [engine for first, last in spans for engine in range(first, last + 1)]
        hosts = {self.engines[engine].host for engine in ids if engine in self.engines}
        return f"{text} on {', '.join(sorted(hosts))}" if 0 < len(hosts) <= MOST_HOSTS else text

    def _other(self, other: Other) -> str:
        """Describe another task: its name, and what it does."""
        name = self.name(other.task, other.label)
        if other.state == "waiting":
            return f"{name}, which waits itself"
        if other.state == "queued":
            return f"{name}, which is queued on {spans_text(other.engines)}"
        return f"{name}, which has run for {_time(other)} on {self._where(other.engines)}"

    # --- one sentence for each reason ---

    def _needs(self, reason: Reason) -> str:
        others = "; ".join(self._other(other) for other in reason.others)
        more = reason.count - len(reason.others)
        rest = f"; and {count(more, 'other')}" if more else ""
        return f"{self._me(reason)} waits for {others}{rest}{self._terms(reason)}"

    def _cached(self, reason: Reason) -> str:
        if not reason.others:
            return f"{self._me(reason)} waits for the controller to look for its result in the cache"
        return f"{self._me(reason)} waits for the result of an equal one: {self._other(reason.others[0])}"

    def _no_engines(self, reason: Reason) -> str:
        coming = "".join(f"; of world {name!r} {have} of {size} ranks have come" for name, have, size in reason.coming)
        return f"{self._me(reason)} waits for an engine: there is none{coming}{self._terms(reason)}"

    def _stopping(self, reason: Reason) -> str:
        where = self._where(reason.engines)
        if reason.state == "waiting":
            return f"{self._me(reason)} waits for an engine: {where} were told to stop and take no more"
        return f"{self._me(reason)} will not run: {where} was told to stop, and has not begun it"

    def _restored(self, reason: Reason) -> str:
        return (
            f"{self._me(reason)} waits for {', '.join(reason.hosts)} to come back: the controller was started again, "
            "and gives out no such tasks before all nodes have said what they have"
        )

    def _busy(self, reason: Reason) -> str:
        if reason.only is None:
            who = "all engines are busy" if reason.count > 1 else "the only engine is busy"
        else:
            who = f"{self._limit(reason)} {'are' if reason.count > 1 else 'is'} busy"
        works = "; ".join(self._other(other) for other in reason.others[:3])
        more = f"; and {count(len(reason.others) - 3, 'other')}" if len(reason.others) > 3 else ""
        before = f"; {count(reason.behind, 'task')} before it" if reason.behind else ""
        rivals = f"; {count(reason.rivals, 'other')} may go to the same engines" if reason.rivals else ""
        return f"{self._me(reason)} waits for an engine: {who} with {works}{more}{before}{rivals}{self._terms(reason)}"

    def _limit(self, reason: Reason) -> str:
        where = self._where(reason.only or [])
        whys = []
        if reason.candidates:
            whys.append("its view allows no others")
        if reason.follows:
            whys.append("it follows a task that ran there")
        return f"{where} ({' and '.join(whys)})" if whys else where

    def _terms(self, reason: Reason) -> str:
        """Add what else limits it."""
        text = ""
        if reason.avoids:
            text += f"; {spans_text(reason.avoids)} left out, where it failed or was refused"
        if reason.last_failure:
            text += f" (last: {reason.last_failure}; {count(reason.retries, 'retry')} left)".replace(
                "retrys", "retries"
            )
        if reason.within_s:
            text += f"; it fails if that takes {seconds_text(reason.within_s)} more"
        return text

    def _runs(self, reason: Reason) -> str:
        text = f"{self._me(reason)} has run for {_time(reason)} on {self._where(reason.engines)}"
        if reason.bytes:
            text += f", or waits for its arguments ({reason.bytes / 1e6:.0f} MB)"
        return text

    def _behind(self, reason: Reason) -> str:
        more = reason.behind - 1
        others = f", and {count(more, 'other')}" if more else ""
        behind = "; ".join(self._other(other) for other in reason.others)
        return f"{self._me(reason)} on {spans_text(reason.engines)} is behind {behind}{others}"

    def _taken_back(self, reason: Reason) -> str:
        return f"{self._me(reason)} was cancelled: {self._where(reason.engines)} was told, and has not answered"

    def _moving(self, reason: Reason) -> str:
        return f"{self._me(reason)} is taken back from {self._where(reason.engines)}, to be given to another engine"

    def _node_away(self, reason: Reason) -> str:
        return (
            f"{self._me(reason)} on {spans_text(reason.engines)}: the controller has no connection to "
            f"{', '.join(reason.hosts)}; whether it runs is not known before that is back"
        )

    def _ended(self, reason: Reason) -> str:
        failed = f" on {self._where(reason.engines)}" if reason.engines else ""
        return f"{self._me(reason)} has {'ended' if reason.state == 'done' else f'failed{failed}'}"

    def _unknown(self, reason: Reason) -> str:
        return f"the controller knows no task {reason.task}, or has forgotten it"
