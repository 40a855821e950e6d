"""One part of a result: what one engine (or one balanced task) gave back, and what is known about it."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from ippmpi.client.contents import Flat
from ippmpi.client.failures import RemoteTaskAborted, unreadable
from ippmpi.errors import RemoteError

METADATA_KEYS = (
    "msg_id",
    "submitted",
    "started",
    "completed",
    "received",
    "engine_id",
    "status",
    "label",
    "execute_input",
    "execute_result",
    "error",
    "stdout",
    "stderr",
    "outputs",
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
        "error",
        "executed",
        "label",
        "outputs",
        "received",
        "started",
        "state",
        "stderr",
        "stdout",
        "submitted",
        "task",
    )

    def __init__(self, task: str, engine: int | None, method: str, label: str, submitted: float) -> None:
        """Start pending; *engine* is None while a balanced task has none."""
        self.task = task
        self.engine = engine
        self.label = label
        self.state = State.PENDING
        self.error: RemoteError | None = None
        self.submitted, self.started, self.completed, self.received = submitted, 0.0, 0.0, 0.0
        self.stdout: list[bytes] = []
        self.stderr: list[bytes] = []
        self.outputs: list[dict[str, Any]] = []
        self.executed: dict[str, Any] = {}
        self._method = method
        self._value: Any = None
        self._lock = threading.Lock()

    # --- filled by the I/O thread ------------------------------------------------------------

    def succeed(self, pickled: Flat) -> None:
        """Take the pickled value."""
        self._value, self.state = pickled, State.PICKLED

    def fail(self, error: RemoteError) -> None:
        """Take the failure."""
        self.error, self.state = error, State.FAILED

    # --- read by any thread ------------------------------------------------------------------

    def read(self, unpickle: Callable[[Part, Flat], Any]) -> RemoteError | None:
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
        attribute = {"msg_id": "task", "engine_id": "engine"}.get(key, key)
        value = getattr(self, attribute)
        return list(value) if key == "outputs" else value
