"""One part of a result: what one engine (or one balanced task) gave back, and what is known about it."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, TypeVar

from ippmpi.client.contents import Flat
from ippmpi.client.failures import RemoteTaskAborted, unreadable
from ippmpi.errors import RemoteError
from ippmpi.wire.exceptions import retyped
from ippmpi.wire.messages import Dependency, EngineRecord, Placement
from ippmpi.wire.pickling import NONE, unpack

T = TypeVar("T")

METADATA_KEYS = (
    "msg_id",
    "submitted",
    "started",
    "completed",
    "received",
    "engine_id",
    "engine_uuid",
    "follow",
    "after",
    "status",
    "label",
    "execute_input",
    "execute_result",
    "error",
    "stdout",
    "stderr",
    "outputs",
    "data",
    "cached",
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


_NOTHING: Mapping[str, Any] = MappingProxyType({})
_NOBODY: Mapping[int, EngineRecord] = MappingProxyType({})
_publishing = threading.Lock()
"""Held for a moment, while it is decided whose value counts if several threads have unpickled one at the same time."""


class Part:
    """The future of one task on one engine.

    Filled by the I/O thread. The value is unpickled by the first thread that asks for it, so that
    the I/O thread stays quick; all threads get the same object. A call on all engines makes thousands
    of these at once, most of which never print: what most do not need is made when it is needed.
    """

    __slots__ = (
        "_method",
        "_pickled",
        "_value",
        "completed",
        "engine",
        "engines",
        "error",
        "executed",
        "label",
        "outputs",
        "placement",
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
        self.stdout: Sequence[bytes] = ()
        self.stderr: Sequence[bytes] = ()
        self.outputs: Sequence[dict[str, Any]] = ()
        self.executed = self.published = _NOTHING
        self.placement: Placement | None = None
        self._method = method
        self._pickled: Flat | None = None
        self._value: Any = None

    # --- filled by the I/O thread ------------------------------------------------------------

    def succeed(self, pickled: Flat) -> None:
        """Take the pickled value."""
        if pickled == NONE:
            self.state = State.READ
        else:
            self._pickled, self.state = pickled, State.PICKLED

    def publish(self, values: dict[str, bytes]) -> None:
        """Keep the latest values that the task shows."""
        self.published = {**self.published, **values}

    def fail(self, error: RemoteError) -> None:
        """Take the failure."""
        self.error, self.state = error, State.FAILED

    def add_text(self, stream: str, text: bytes) -> None:
        """Keep what was printed on *stream*."""
        if stream == "stderr":
            self.stderr = _with(self.stderr, text)
        else:
            self.stdout = _with(self.stdout, text)

    def add_output(self, record: dict[str, Any]) -> None:
        """Keep what was displayed."""
        self.outputs = _with(self.outputs, record)

    def clear_outputs(self) -> None:
        """Forget what was displayed."""
        self.outputs = ()

    # --- read by any thread ------------------------------------------------------------------

    def read(self, unpickle: Callable[[Part, Flat], Any]) -> RemoteError | None:
        """Make sure the value is unpickled; return the error if there is one instead."""
        pickled = self._pickled  # before the state: it is forgotten after that has changed
        if pickled is not None and self.state is State.PICKLED:
            try:
                value = unpickle(self, pickled)
            except Exception as problem:  # whatever the user's classes raise while they are unpickled
                self._publish(None, unreadable(problem, self.engine, self._method))
            else:
                self._publish(value, None)
        if self.error is not None:
            self.error = retyped(self.error)
        return self.error

    def _publish(self, value: Any, error: RemoteError | None) -> None:
        with _publishing:
            if self.state is State.PICKLED:
                self._value = value
                if error is None:
                    self.state = State.READ
                else:
                    self.fail(error)
                self._pickled = None

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

    @property
    def after(self) -> list[str]:
        """The ids of the tasks after which a balanced task of this client starts."""
        return [] if self.placement is None else _ids(self.placement.after)

    @property
    def follow(self) -> list[str]:
        """The ids of the tasks whose engine a balanced task of this client runs on."""
        return [] if self.placement is None else _ids(self.placement.follow)

    @property
    def cached(self) -> bool:
        """Whether the value came from the cache: it is there, and no engine has computed it."""
        return self.done and not self.failed and self.engine is None

    def text(self, stream: str) -> str:
        """Return what was printed on *stream* (``stdout`` or ``stderr``) so far."""
        pieces: Sequence[bytes] = getattr(self, stream)
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
            return {name: unpack(value) for name, value in self.published.items()}
        if key == "engine_uuid":
            return self._engine_uuid()
        if key == "error" and self.error is not None:
            return retyped(self.error)
        attribute = {"msg_id": "task", "engine_id": "engine"}.get(key, key)
        value = getattr(self, attribute)
        return list(value) if key == "outputs" else value


def _ids(dependency: Dependency | None) -> list[str]:
    return [] if dependency is None else list(dependency.tasks)


def _with(items: Sequence[T], item: T) -> Sequence[T]:
    """Return *items*, which are a list from the first one on, with one more."""
    if not isinstance(items, list):
        return [item]
    items.append(item)
    return items
