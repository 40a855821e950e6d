"""From the ``Failure`` of a message to the exception that users catch.

What a task's own code raised is a ``RemoteError``, which ``Part.read`` makes one of the type that was raised (not the
I/O thread: that may have to import something). Other failures are a ``RemoteError`` *and* the
class they are named after, so both ``except ipp.EngineError`` and ``except ipp.RemoteError`` work.
"""

from __future__ import annotations

from collections.abc import Sequence

from ippmpi.errors import (
    CompositeError,
    EngineError,
    ImpossibleDependency,
    InvalidDependency,
    NoEnginesRegistered,
    RemoteError,
    ResultNotKept,
    TaskAborted,
    TaskTimeout,
    UnmetDependency,
)
from ippmpi.wire.messages import EngineRecord, Failure, Reply


class RemoteEngineError(RemoteError, EngineError):
    """The engine was lost before it could answer."""


class RemoteNoEngines(RemoteError, NoEnginesRegistered):  # noqa: N818 - as the class it also is
    """There was no engine that could do it."""


class RemoteTaskAborted(RemoteError, TaskAborted):  # noqa: N818 - as the class it also is
    """The task was taken back before it started."""


class RemoteTaskTimeout(RemoteError, TaskTimeout):  # noqa: N818 - as the class it also is
    """The task found no engine, or its dependencies were not met, in time."""


class RemoteImpossibleDependency(RemoteError, ImpossibleDependency):  # noqa: N818 - as the class it also is
    """The task can never start."""


class RemoteInvalidDependency(RemoteError, InvalidDependency):  # noqa: N818 - as the class it also is
    """The task depends on something that cannot be depended on."""


class RemoteUnmetDependency(RemoteError, UnmetDependency):  # noqa: N818 - as the class it also is
    """Every engine that was tried refused the task."""


class RemoteResultNotKept(RemoteError, ResultNotKept):  # noqa: N818 - as the class it also is
    """The task ended, but its value is not in the store."""


CLASSES: dict[str, type[RemoteError]] = {
    "code": RemoteError,
    "EngineError": RemoteEngineError,
    "NoEnginesRegistered": RemoteNoEngines,
    "TaskAborted": RemoteTaskAborted,
    "TaskTimeout": RemoteTaskTimeout,
    "ImpossibleDependency": RemoteImpossibleDependency,
    "InvalidDependency": RemoteInvalidDependency,
    "UnmetDependency": RemoteUnmetDependency,
    "ResultNotKept": RemoteResultNotKept,
}


def to_error(failure: Failure, method: str) -> RemoteError:
    """Build the exception; *method* is what was called (``apply``, ``execute``, ...)."""
    info: dict[str, object] = {
        "engine_id": failure.engine,
        "rank": failure.rank,
        "world": failure.world,
        "host": failure.host,
        "pid": failure.pid,
        "method": method,
    }
    error = CLASSES.get(failure.kind, RemoteError)(failure.ename, failure.evalue, failure.traceback, info)
    error.origin = (failure.types, failure.made)
    return error


def lost_on_the_way(reply: Reply, engine: EngineRecord | None) -> Failure:
    """Say that the large value of *reply* broke off; *engine*: whose it was, if that is known."""
    text = (
        f"its value of {reply.content.size} bytes was lost on the way: its engine ended before all of it was here, "
        "or the controller could not keep it (its log says why)"
    )
    if engine is None:
        return Failure("EngineError", text, kind="EngineError", engine=reply.engine)
    facts = (engine.rank, engine.world, engine.host, engine.pid)
    return Failure("EngineError", text, "", "EngineError", engine.id, *facts)


def unreadable(problem: BaseException, engine: int | None, method: str) -> RemoteError:
    """Build the exception for a result that came but could not be unpickled here."""
    error = RemoteError(
        type(problem).__name__,
        f"the result came, but cannot be unpickled here: {problem}",
        engine_info={"engine_id": engine, "method": method},
    )
    error.__cause__ = problem
    return error


def composite(errors: Sequence[RemoteError], total: int, method: str) -> CompositeError:
    """Build the one exception for several results of which some failed."""
    return CompositeError(f"{len(errors)} of {total} results of {method} are errors", errors)
