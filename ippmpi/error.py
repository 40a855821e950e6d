"""All of ``ippmpi.errors``, under the name by which users of ipyparallel import it."""

from __future__ import annotations

from builtins import TimeoutError  # noqa: A004 - the name that users of ipyparallel know

from ippmpi.errors import (
    AlreadyDisplayedError,
    CompositeError,
    DependencyTimeout,
    EngineError,
    ImpossibleDependency,
    InvalidDependency,
    IPythonError,
    KernelError,
    NoEnginesRegistered,
    RemoteError,
    TaskAborted,
    TaskRejectError,
    TaskTimeout,
    UnmetDependency,
    collect_exceptions,
    unwrap_exception,
    wrap_exception,
)

__all__ = [
    "AlreadyDisplayedError",
    "CompositeError",
    "DependencyTimeout",
    "EngineError",
    "IPythonError",
    "ImpossibleDependency",
    "InvalidDependency",
    "KernelError",
    "NoEnginesRegistered",
    "RemoteError",
    "TaskAborted",
    "TaskRejectError",
    "TaskTimeout",
    "TimeoutError",
    "UnmetDependency",
    "collect_exceptions",
    "unwrap_exception",
    "wrap_exception",
]
