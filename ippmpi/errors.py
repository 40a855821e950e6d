"""Every exception that ippmpi raises on purpose.

::

    IppmpiError
    ├── ProtocolError          a peer broke the protocol; its message is dropped, the process goes on
    │   └── Refused            the other side does not let us in (also a ConnectionError)
    ├── ConnectionFileError    a connection file is missing, foreign, stale or unreadable
    ├── LaunchError            a launcher could not start what it should (carries the last output)
    ├── ClusterError           a cluster is already running, or not running, or was lost
    ├── EngineError            an engine was lost or never came
    │   └── NoEnginesRegistered
    ├── TaskError              a task did not produce a value for a reason other than its own code
    │   ├── TaskAborted        cancelled or aborted before it started
    │   ├── TaskTimeout        dependencies not met, or no engine free, in time
    │   ├── ImpossibleDependency
    │   ├── InvalidDependency
    │   └── ResultNotKept      it ended, but its value is not (any more) in the store
    ├── UnmetDependency        raised by a task to be moved to another engine
    └── RemoteError            a task's own code raised, on one engine
        └── CompositeError     several engines, at least one failure (``elist``)

``TimeoutError`` is the builtin. Misuse raises builtins (``TypeError``, ``ValueError``, ``LookupError``).
"""

from __future__ import annotations

from collections.abc import Sequence


class IppmpiError(Exception):
    """Base of every error in this file."""


class ProtocolError(IppmpiError):
    """A peer sent something that cannot be right."""


class Refused(ProtocolError, ConnectionError):  # noqa: N818 - a state, as in "connection refused"
    """The other side does not accept this connection; the text says why."""


class ConnectionFileError(IppmpiError, OSError):
    """A connection file is missing, foreign, stale or unreadable."""


class LaunchError(IppmpiError):
    """A launcher failed; ``output`` holds the last lines of what the program said."""

    def __init__(self, message: str, output: str = "") -> None:
        """Keep the program's own last words in ``output``."""
        super().__init__(message if not output else f"{message}\n--- last output ---\n{output}")
        self.output = output


class ClusterError(IppmpiError):
    """A cluster is already running, is not running, or was lost."""


class EngineError(IppmpiError):
    """An engine was lost or never came; the text names rank, host, pid and cause."""


class NoEnginesRegistered(EngineError):  # noqa: N818 - the name that users of ipyparallel know
    """A view was asked for while the cluster has no engines."""


class TaskError(IppmpiError):
    """A task produced no value, and not because of its own code."""


class TaskAborted(TaskError):  # noqa: N818 - the name that users of ipyparallel know
    """The task was cancelled or aborted before it started."""


class TaskTimeout(TaskError):  # noqa: N818 - the name that users of ipyparallel know
    """Dependencies were not met, or no engine was free, within the task's ``timeout``."""


class ImpossibleDependency(TaskError):  # noqa: N818 - the name that users of ipyparallel know
    """The task can never start: a dependency ended the wrong way, or no engine qualifies."""


class InvalidDependency(TaskError):  # noqa: N818 - the name that users of ipyparallel know
    """The task depends on itself or on a task that nobody knows."""


class ResultNotKept(TaskError):  # noqa: N818 - as its siblings
    """The task ended, but its value is not in the store: too large, too old, or the store could not be written."""


class UnmetDependency(IppmpiError):  # noqa: N818 - the name that users of ipyparallel know
    """Raised on an engine: run this task somewhere else."""


class RemoteError(IppmpiError):
    """The code of a task raised on an engine.

    The original exception object is never transported (unpickling a stranger's class may fail or
    run code); its name, text and traceback are.

    Attributes:
        ename: name of the exception's class.
        evalue: its text.
        traceback: the remote traceback, as text.
        engine_info: ``engine_id``, ``rank``, ``world``, ``host``, ``pid``, ``method``; of a map
            also ``items``, the range of the numbers of the items that it concerns.
    """

    def __init__(
        self, ename: str, evalue: str, traceback: str = "", engine_info: dict[str, object] | None = None
    ) -> None:
        """Build from what the engine (or the controller, for lost work) reported."""
        super().__init__(ename, evalue)
        self.ename = ename
        self.evalue = evalue
        self.traceback = traceback
        self.engine_info = engine_info or {}

    def where(self) -> str:
        """Say on which engine, rank and host it happened."""
        info = self.engine_info
        if info.get("engine_id") is None:
            return "controller"
        return f"engine {info['engine_id']} (rank {info.get('rank', '?')} on {info.get('host', '?')}){self._items()}"

    def _items(self) -> str:
        items = self.engine_info.get("items")
        if not isinstance(items, range):
            return ""
        return f", item {items[0]}" if len(items) == 1 else f", items {items[0]} to {items[-1]}"

    def __str__(self) -> str:
        """One line: where, what."""
        return f"[{self.where()}] {self.ename}: {self.evalue}"

    def render_traceback(self) -> list[str]:
        """Return the remote traceback as lines; IPython shows these instead of the local ones."""
        head = f"[{self.where()}]"
        return [head, *(self.traceback or f"{self.ename}: {self.evalue}").splitlines()]

    def print_traceback(self) -> None:
        """Print the remote traceback."""
        print("\n".join(self.render_traceback()))

    _render_traceback_ = render_traceback  # IPython's hook


class CompositeError(RemoteError):
    """Several results of which at least one failed; ``errors`` lists the failures."""

    errors: list[RemoteError]
    tb_limit = 4  # how many remote tracebacks are printed in full

    def __init__(self, message: str, errors: Sequence[RemoteError]) -> None:
        """Flatten nested composites."""
        flat: list[RemoteError] = []
        for error in errors:
            flat.extend(error.errors if isinstance(error, CompositeError) else [error])
        super().__init__("CompositeError", message)
        self.errors = flat

    @property
    def elist(self) -> list[tuple[str, str, str, dict[str, object]]]:
        """The failures as tuples ``(ename, evalue, traceback, engine_info)``."""
        return [(e.ename, e.evalue, e.traceback, e.engine_info) for e in self.errors]

    def __str__(self) -> str:
        """Message, then one line per failure (at most ``tb_limit``)."""
        lines = [self.evalue, *(str(e) for e in self.errors[: self.tb_limit])]
        if len(self.errors) > self.tb_limit:
            lines.append(f"... and {len(self.errors) - self.tb_limit} more")
        return "\n".join(lines)

    def render_traceback(self) -> list[str]:
        """Return the tracebacks of the first ``tb_limit`` failures as lines."""
        lines = [self.evalue]
        for error in self.errors[: self.tb_limit]:
            lines += ["", *error.render_traceback()]
        if len(self.errors) > self.tb_limit:
            lines += ["", f"... and {len(self.errors) - self.tb_limit} more"]
        return lines

    _render_traceback_ = render_traceback

    def raise_exception(self, excid: int = 0) -> None:
        """Raise failure number *excid* by itself."""
        raise self.errors[excid] from None


class AlreadyDisplayedError(RemoteError):
    """The errors were printed while they happened; this one only counts them."""

    def render_traceback(self) -> list[str]:
        """Return one line."""
        return [self.evalue]

    _render_traceback_ = render_traceback
