"""Every exception that ippmpi raises on purpose.

::

    IppmpiError
    ├── ProtocolError          a peer broke the protocol; its message is dropped, the process goes on
    │   └── Refused            the other side does not let us in (also a ConnectionError)
    ├── ConnectionFileError    a connection file is missing, foreign, stale or unreadable
    ├── LaunchError            a launcher could not start what it should (carries the last output)
    ├── ClusterError           a cluster is already running, or not running, or was lost  (also a RuntimeError)
    ├── EngineError            an engine was lost or never came
    │   └── NoEnginesRegistered
    ├── TaskError              a task did not produce a value for a reason other than its own code
    │   ├── TaskAborted        cancelled or aborted before it started
    │   ├── TaskTimeout        dependencies not met, or no engine free, in time
    │   ├── ImpossibleDependency
    │   ├── InvalidDependency
    │   └── ResultNotKept      it ended, but its value is not (any more) in the store
    ├── UncacheableError       a call with ``cache=`` has no key (also a TypeError)
    ├── UnmetDependency        raised by a task to be moved to another engine
    ├── HandleError            a value that was left on a rank is not there (any more), or cannot be had from there
    └── RemoteError            a task's own code raised, on one engine; also of the type that it raised, if possible
        └── CompositeError     several engines, at least one failure (``elist``); also an ExceptionGroup

``TimeoutError`` is the builtin. Misuse raises builtins (``TypeError``, ``ValueError``, ``LookupError``).

Users of ipyparallel know some of them by other names: ``IPythonError`` and ``KernelError`` are ``IppmpiError``,
``DependencyTimeout`` is ``TaskTimeout``, ``TaskRejectError`` is ``UnmetDependency``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self


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


class ClusterError(IppmpiError, RuntimeError):
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


class UncacheableError(IppmpiError, TypeError):
    """A call was to be cached, but what its result depends on cannot be told; the text says what and where."""


class UnmetDependency(IppmpiError):  # noqa: N818 - the name that users of ipyparallel know
    """Raised on an engine: run this task somewhere else."""


class HandleError(IppmpiError):
    """A value that was left on a rank (``keep=True``) cannot be had; the text names rank, handle and cause."""


class RemoteError(IppmpiError):
    """The code of a task raised on an engine.

    The original exception object is never transported (unpickling a stranger's class may fail or run code); its name,
    text and traceback are. Where its type is known here, the error is of a subclass of both: ``except ValueError``
    works, and ``args`` are those of the original if they are plain data.

    Attributes:
        ename: name of the exception's class.
        evalue: its text.
        traceback: the remote traceback, as text; Python shows it once, as a note of the exception.
        engine_info: ``engine_id``, ``rank``, ``world``, ``host``, ``pid``, ``method``; of a map
            also ``items``, the range of the numbers of the items that it concerns.
        was_shown: the user was shown the remote traceback, when it happened.
    """

    was_shown = False
    origin: tuple[list[str], bytes] = ([], b"")  # see ``wire/exceptions.py``; not meant for users

    def __init__(
        self, ename: str, evalue: str, traceback: str = "", engine_info: dict[str, object] | None = None
    ) -> None:
        """Build from what the engine (or the controller, for lost work) reported."""
        super().__init__(ename, evalue)
        self.ename = ename
        self.evalue = evalue
        self.traceback = traceback
        self.engine_info = engine_info or {}
        if traceback:
            self.add_note(f"--- on {self.where()} ---\n{traceback}")

    @property
    def rank(self) -> int | None:
        """The rank on which it happened; None if it was on none, or it is not known."""
        rank = self.engine_info.get("rank")
        return rank if isinstance(rank, int) else None

    @property
    def host(self) -> str:
        """The host on which it happened; empty if it is not known."""
        return str(self.engine_info.get("host") or "")

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

    def print_traceback(self, excid: int | None = None) -> None:  # noqa: ARG002 - as of CompositeError
        """Print the remote traceback."""
        print("\n".join(self.render_traceback()))

    def mark_shown(self) -> None:
        """Have Python and IPython show only the end of the remote traceback: all of it was shown when it happened."""
        self.was_shown = True
        notes: list[str] = getattr(self, "__notes__", [])
        lines = self.traceback.rstrip().splitlines()
        frames = [place for place, line in enumerate(lines) if line.startswith("  File ")]
        end = "\n".join(lines[frames[-1] :] if frames else lines[-1:])
        for place, note in enumerate(notes):
            if self.traceback and note.endswith(self.traceback):
                notes[place] = f"--- on {self.where()}, shown above; the end of it: ---\n{end}"

    def _render_traceback_(self) -> list[str]:  # IPython's hook
        return [f"{self} (shown above)"] if self.was_shown else self.render_traceback()


class CompositeError(RemoteError, ExceptionGroup[RemoteError]):
    """Several results of which at least one failed.

    It is an ``ExceptionGroup`` of the failures: ``except* ValueError`` gets those of that type, as a CompositeError
    again. ``errors`` lists them, ``elist`` as tuples.
    """

    tb_limit = 4  # how many remote tracebacks are printed in full

    def __new__(cls, message: str, errors: Sequence[RemoteError]) -> Self:
        """Flatten nested composites."""
        flat = list(_flat(errors))
        return super().__new__(cls, cls._text(message, flat), flat)  # pytest.raises(match=...) looks at ``message``

    def __init__(self, message: str, errors: Sequence[RemoteError]) -> None:
        """*message* says how many of how many failed."""
        super().__init__("CompositeError", message)
        self.args = (message, list(errors))

    @property
    def errors(self) -> list[RemoteError]:
        """The failures, each of one engine or item."""
        return list(self.exceptions)  # type: ignore[arg-type] # there are no groups among them

    @property
    def elist(self) -> list[tuple[str, str, str, dict[str, object]]]:
        """The failures as tuples ``(ename, evalue, traceback, engine_info)``."""
        return [(e.ename, e.evalue, e.traceback, e.engine_info) for e in self.errors]

    def derive(self, errors: Sequence[Any], /) -> CompositeError:  # type: ignore[override] # of our errors only
        """Return a group of some of the failures: what ``except*`` and ``split`` give."""
        return CompositeError(self.evalue, errors)

    def __str__(self) -> str:
        """Message, then one line per failure (at most ``tb_limit``)."""
        return self._text(self.evalue, self.errors)

    @classmethod
    def _text(cls, message: str, errors: Sequence[RemoteError]) -> str:
        lines = [message, *(str(e) for e in errors[: cls.tb_limit])]
        if len(errors) > cls.tb_limit:
            lines.append(f"... and {len(errors) - cls.tb_limit} more")
        return "\n".join(lines)

    def render_traceback(self, excid: int | None = None) -> list[str]:
        """Return the traceback of failure number *excid* as lines; None: those of the first ``tb_limit``."""
        if excid is not None:
            return self._at(excid).render_traceback()
        return self._lines(lambda error: error.render_traceback())

    def _render_traceback_(self) -> list[str]:
        return self._lines(lambda error: error._render_traceback_())

    def _lines(self, render: Callable[[RemoteError], list[str]]) -> list[str]:
        lines = [self.evalue]
        for error in self.errors[: self.tb_limit]:
            lines += ["", *render(error)]
        if len(self.errors) > self.tb_limit:
            lines += ["", f"... and {len(self.errors) - self.tb_limit} more"]
        return lines

    def print_traceback(self, excid: int | None = None) -> None:
        """Print the traceback of failure number *excid*, or (None) those of the first ``tb_limit``."""
        print("\n".join(self.render_traceback(excid)))

    def raise_exception(self, excid: int = 0) -> None:
        """Raise failure number *excid* by itself; IndexError if there is none."""
        raise self._at(excid).with_traceback(None) from None

    def _at(self, excid: int) -> RemoteError:
        try:
            return self.errors[excid]
        except IndexError:
            raise IndexError(f"there is no failure {excid}; there are {len(self.errors)}, from 0 on") from None


def _flat(errors: Iterable[RemoteError]) -> Iterable[RemoteError]:
    for error in errors:
        if isinstance(error, CompositeError):
            yield from error.errors
        else:
            yield error


class AlreadyDisplayedError(RemoteError):
    """The errors were printed while they happened; this one only counts them. ``original_error`` has them."""

    original_error: RemoteError | None = None

    def render_traceback(self) -> list[str]:
        """Return one line."""
        return [self.evalue]


# --- names and functions that users of ipyparallel know --------------------------------------------

IPythonError = KernelError = IppmpiError
DependencyTimeout = TaskTimeout
TaskRejectError = UnmetDependency


def collect_exceptions(rdict_or_list: Any, method: str = "unspecified") -> Any:
    """Return *rdict_or_list*, results in a dictionary or another iterable, unless there are errors among them.

    Raises:
        CompositeError: there are; these are its ``errors``.
    """
    results = list(rdict_or_list.values() if isinstance(rdict_or_list, Mapping) else rdict_or_list)
    errors = [result for result in results if isinstance(result, RemoteError)]
    if errors:
        raise CompositeError(f"{len(errors)} of {len(results)} results of {method} are errors", errors)
    return rdict_or_list


def wrap_exception(engine_info: dict[str, object] | None = None) -> dict[str, object]:
    """Describe the exception that is being handled: ``status``, ``ename``, ``evalue``, ``traceback`` (lines)."""
    import traceback

    error = sys.exception()
    if error is None:
        raise RuntimeError("wrap_exception() belongs into an except block: no exception is being handled")
    return {
        "status": "error",
        "ename": type(error).__name__,
        "evalue": str(error),
        "traceback": [line.rstrip("\n") for line in traceback.format_exception(error)],
        "engine_info": engine_info or {},
    }


def unwrap_exception(content: Mapping[str, Any]) -> RemoteError:
    """Return what ``wrap_exception`` has described as a RemoteError."""
    return RemoteError(
        content["ename"], content["evalue"], "\n".join(content["traceback"]), content.get("engine_info") or {}
    )
