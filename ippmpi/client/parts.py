"""One part of a result: what one engine (or one balanced task) gave back, and what is known about it."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from ippmpi.client.failures import RemoteTaskAborted, unreadable
from ippmpi.errors import RemoteError
from ippmpi.wire import pickling
from ippmpi.wire.exceptions import retyped
from ippmpi.wire.messages import EngineRecord

METADATA_KEYS = (
    "msg_id",
    "submitted",
    "started",
    "completed",
    "received",
    "engine_id",
    "engine_uuid",
    "status",
    "label",
    "execute_input",
    "execute_result",
    "error",
    "stdout",
    "stderr",
    "outputs",
    "data",
)


class State(enum.Enum):
    """How far a part is."""

    PENDING = "pending"
    PICKLED = "pickled"
    READ = "read"
    FAILED = "failed"


class Metadata(dict[str, Any]):
    """What is known about one part: a dict with a fixed set of keys, which are attributes too."""

    def __getattr__(self, name: str) -> Any:
        """Return ``self[name]``."""
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"no {name!r} in the metadata; have {', '.join(METADATA_KEYS)}") from None


# What most parts have; shared, and never changed: four objects less for each of thousands of parts.
_NO_TEXT: list[bytes] = []
_NO_OUTPUTS: list[dict[str, Any]] = []
_NOTHING: dict[str, Any] = {}
_NOBODY: Mapping[int, EngineRecord] = {}


class Part:
    """The future of one task on one engine.

    Filled by the I/O thread. The value is unpickled by the first thread that asks for it, so that
    the I/O thread stays quick.
    """

    __slots__ = (
        "_lock",
        "_method",
        "_value",
        "completed",
        "engine",
        "engines",
        "error",
        "executed",
        "label",
        "outputs",
        "published",
        "received",
        "started",
        "state",
        "stderr",
        "stdout",
        "submitted",
        "task",
    )

    def __init__(
        self,
        task: str,
        engine: int | None,
        method: str,
        label: str,
        submitted: float,
        engines: Mapping[int, EngineRecord] = _NOBODY,
    ) -> None:
        """Start pending; *engine* is None while a balanced task has none. *engines* are those that there are."""
        self.task = task
        self.engine = engine
        self.engines = engines
        self.label = label
        self.state = State.PENDING
        self.error: RemoteError | None = None
        self.submitted, self.started, self.completed, self.received = submitted, 0.0, 0.0, 0.0
        self.stdout = self.stderr = _NO_TEXT
        self.outputs = _NO_OUTPUTS
        self.executed = self.published = _NOTHING
        self._method = method
        self._value: Any = None
        self._lock = threading.Lock()

    # --- filled by the I/O thread ------------------------------------------------------------

    def succeed(self, pickled: bytes | bytearray) -> None:
        """Take the pickled value."""
        self._value, self.state = pickled, State.PICKLED

    def printed(self, stream: str, text: bytes) -> None:
        """Keep what was printed on *stream*."""
        name = "stderr" if stream == "stderr" else "stdout"
        pieces: list[bytes] = getattr(self, name)
        if pieces:
            pieces.append(text)
        else:
            setattr(self, name, [text])

    def displayed(self, record: dict[str, Any]) -> None:
        """Keep what was displayed."""
        if self.outputs:
            self.outputs.append(record)
        else:
            self.outputs = [record]

    def publish(self, values: dict[str, bytes]) -> None:
        """Keep the latest values that the task shows."""
        self.published = self.published | values

    def fail(self, error: RemoteError) -> None:
        """Take the failure."""
        self.error, self.state = error, State.FAILED

    # --- read by any thread ------------------------------------------------------------------

    def read(self, unpickle: Callable[[Part, bytes | bytearray], Any]) -> RemoteError | None:
        """Make sure the value is unpickled; return the error if there is one instead."""
        with self._lock:
            if self.state is State.PICKLED:
                try:
                    self._value = unpickle(self, self._value)
                except Exception as problem:  # whatever the user's classes raise while they are unpickled
                    self._value = None
                    self.fail(unreadable(problem, self.engine, self._method))
                else:
                    self.state = State.READ
            if self.error is not None:
                self.error = retyped(self.error)
        return self.error

    @property
    def method(self) -> str:
        """What was called: apply, map, execute, ..."""
        return self._method

    @property
    def value(self) -> Any:
        """The value, once ``read`` returned None."""
        return self._value

    @property
    def done(self) -> bool:
        """Whether the value or the failure came."""
        return self.state is not State.PENDING

    @property
    def failed(self) -> bool:
        """Whether there is a failure (a value that cannot be unpickled shows only when it is read)."""
        return self.error is not None

    @property
    def status(self) -> str:
        """``pending``, ``ok``, ``error`` or ``aborted``."""
        if self.failed:
            return "aborted" if isinstance(self.error, RemoteTaskAborted) else "error"
        return "ok" if self.done else "pending"

    def text(self, stream: str) -> str:
        """Return what was printed on *stream* (``stdout`` or ``stderr``) so far."""
        pieces: list[bytes] = getattr(self, stream)
        return b"".join(pieces).decode(errors="replace")

    def _engine_uuid(self) -> str | None:
        """Name the engine's process, which its id does not: after a restart another one may have it."""
        record = None if self.engine is None else self.engines.get(self.engine)
        return None if record is None else f"{record.world}.{record.rank}@{record.host}:{record.pid}"

    def metadata(self) -> Metadata:
        """Return a copy of what is known now. Times are tz-aware (UTC), None while unknown."""
        return Metadata({key: self.field(key) for key in METADATA_KEYS})

    def field(self, key: str) -> Any:
        """Return one field of the metadata; raise KeyError if there is no such field."""
        if key not in METADATA_KEYS:
            raise KeyError(f"{key!r}; have {', '.join(METADATA_KEYS)}")
        if key in ("stdout", "stderr"):
            return self.text(key)
        if key in ("submitted", "started", "completed", "received"):
            seconds = getattr(self, key)
            return datetime.fromtimestamp(seconds, UTC) if seconds else None
        if key in ("execute_input", "execute_result"):
            return self.executed.get(key)
        if key == "data":
            return {name: pickling.unpack(value) for name, value in self.published.items()}
        if key == "engine_uuid":
            return self._engine_uuid()
        if key == "error" and self.error is not None:
            return retyped(self.error)
        attribute = {"msg_id": "task", "engine_id": "engine"}.get(key, key)
        value = getattr(self, attribute)
        return list(value) if key == "outputs" else value
