"""What a result tells about itself besides its value: times, output, metadata."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from ippmpi import clock
from ippmpi.client.collector import Collector


def _field(key: str, doc: str) -> property:
    def read(self: Fields) -> Any:
        return self._of_parts(key)

    read.__doc__ = doc
    return property(read)


class Fields:
    """Per-part facts: a list, one entry per part, or for a single result the bare fact."""

    _collector: Collector
    _single: bool

    def _of_parts(self, key: str) -> Any:
        values = [part.field(key) for part in self._collector.parts]
        return values[0] if self._single else values

    msg_id = _field("msg_id", "The id of the task.")
    after = _field("after", "The ids of the tasks that a balanced task comes after.")
    follow = _field("follow", "The ids of the tasks whose engine a balanced task runs on.")
    submitted = _field("submitted", "When the call was made (client's clock, tz-aware UTC).")
    started = _field("started", "When the engine began (engine's clock), or None.")
    completed = _field("completed", "When the engine finished (engine's clock), or None.")
    received = _field("received", "When the result came (client's clock), or None.")
    engine_id = _field("engine_id", "Which engine; None while a balanced task has none.")
    engine_uuid = _field("engine_uuid", "A name of the engine's process; None while it is not known.")
    label = _field("label", "The label of the view at the time of the call.")
    data = _field("data", "The latest values that the task published with ``publish_data``, also while it runs.")
    status = _field("status", "pending, ok, error or aborted.")
    stdout = _field("stdout", "What was printed so far; complete once the result is there.")
    stderr = _field("stderr", "What was printed on the error stream so far.")
    outputs = _field("outputs", "Rich displays so far: a list of mime bundles.")
    execute_input = _field("execute_input", "The code of an ``execute``, once its result was read.")
    execute_result = _field("execute_result", "The ``Out`` value of an ``execute`` as a mime bundle, or None.")
    cached = _field("cached", "Whether the value was found in the cache, so that no engine had to compute it.")
    error = _field("error", "The failure as an exception, or None.")

    @property
    def metadata(self) -> Any:
        """All facts: dicts with attribute access."""
        values = [part.metadata() for part in self._collector.parts]
        return values[0] if self._single else values

    @property
    def msg_ids(self) -> list[str]:
        """The ids of the tasks behind this result, each once."""
        self._collector.complete()
        return list(dict.fromkeys(part.task for part in self._collector.parts if part.task))

    # --- times -------------------------------------------------------------------------------

    @property
    def elapsed(self) -> float:
        """Seconds from the first submission until now, or until the last result came."""
        parts = self._collector.parts
        if not parts:
            return 0.0
        end = max(p.received for p in parts) if self._collector.ended else clock.now()
        return end - min(p.submitted for p in parts)

    @property
    def wall_time(self) -> float:
        """Seconds from the first submission until the last result came; TimeoutError until then."""
        self._check_ended()
        return self.elapsed

    @property
    def serial_time(self) -> float:
        """Sum of the seconds that the engines computed; TimeoutError until all results came."""
        self._check_ended()
        return sum(p.completed - p.started for p in self._collector.parts)

    def timedelta(
        self,
        start: datetime | Iterable[datetime],
        end: datetime | Iterable[datetime],
        start_key: Callable[[Iterable[datetime]], datetime] = min,
        end_key: Callable[[Iterable[datetime]], datetime] = max,
    ) -> float:
        """Return the seconds between two (sets of) times, as ``ar.timedelta(ar.submitted, ar.received)``."""
        first = start if isinstance(start, datetime) else start_key(start)
        last = end if isinstance(end, datetime) else end_key(end)
        return (last - first).total_seconds()

    def _check_ended(self) -> None:
        if not self._collector.ended:
            raise TimeoutError(f"{self._collector.method} has not finished: {self._collector.describe_missing(0)}")
