"""Drive a whole MPI communicator from a prompt: engines are MPI ranks, views run code on them.

Names are loaded at first use, so that ``import ippmpi`` costs next to nothing (engines do it too).
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # type checkers know the name; importing typing for it would cost most of this import

if TYPE_CHECKING:
    from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION

    from ippmpi.binding import bind_kernel
    from ippmpi.client.balanced import LoadBalancedView
    from ippmpi.client.broadcast import BroadcastView
    from ippmpi.client.caching import Cache
    from ippmpi.client.client import Client
    from ippmpi.client.conditional import depend, dependent, interactive, require
    from ippmpi.client.dependency import Dependency
    from ippmpi.client.executor import ViewExecutor
    from ippmpi.client.functions import ParallelFunction, RemoteFunction, parallel, remote
    from ippmpi.client.mapresults import AsyncMapResult
    from ippmpi.client.results import AsyncResult
    from ippmpi.client.stored import AsyncHubResult
    from ippmpi.client.views import DirectView
    from ippmpi.cluster import Cluster, ClusterManager
    from ippmpi.datapub import publish_data
    from ippmpi.errors import (
        AlreadyDisplayedError,
        ClusterError,
        CompositeError,
        ConnectionFileError,
        DependencyTimeout,
        EngineError,
        HandleError,
        ImpossibleDependency,
        InvalidDependency,
        IppmpiError,
        IPythonError,
        KernelError,
        LaunchError,
        NoEnginesRegistered,
        ProtocolError,
        Refused,
        RemoteError,
        ResultNotKept,
        TaskAborted,
        TaskError,
        TaskRejectError,
        TaskTimeout,
        UncacheableError,
        UnmetDependency,
        collect_exceptions,
        unwrap_exception,
        wrap_exception,
    )
    from ippmpi.wire.handles import Handle
    from ippmpi.wire.references import Reference

    TimeoutError = TimeoutError  # noqa: A001 - the name that users of ipyparallel know

__version__ = "0.1.0"
version_info = (0, 1, 0)

__all__ = [
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "AlreadyDisplayedError",
    "AsyncHubResult",
    "AsyncMapResult",
    "AsyncResult",
    "BroadcastView",
    "Cache",
    "Client",
    "Cluster",
    "ClusterError",
    "ClusterManager",
    "CompositeError",
    "ConnectionFileError",
    "Dependency",
    "DependencyTimeout",
    "DirectView",
    "EngineError",
    "Handle",
    "HandleError",
    "IPythonError",
    "ImpossibleDependency",
    "InvalidDependency",
    "IppmpiError",
    "KernelError",
    "LaunchError",
    "LoadBalancedView",
    "NoEnginesRegistered",
    "ParallelFunction",
    "ProtocolError",
    "Reference",
    "Refused",
    "RemoteError",
    "RemoteFunction",
    "ResultNotKept",
    "TaskAborted",
    "TaskError",
    "TaskRejectError",
    "TaskTimeout",
    "TimeoutError",
    "UncacheableError",
    "UnmetDependency",
    "ViewExecutor",
    "__version__",
    "bind_kernel",
    "collect_exceptions",
    "depend",
    "dependent",
    "interactive",
    "parallel",
    "publish_data",
    "remote",
    "require",
    "unwrap_exception",
    "version_info",
    "wrap_exception",
]

_HOMES = {
    "ALL_COMPLETED": "concurrent.futures",
    "AsyncHubResult": "ippmpi.client.stored",
    "AsyncMapResult": "ippmpi.client.mapresults",
    "AsyncResult": "ippmpi.client.results",
    "BroadcastView": "ippmpi.client.broadcast",
    "Cache": "ippmpi.client.caching",
    "Client": "ippmpi.client.client",
    "Cluster": "ippmpi.cluster",
    "ClusterManager": "ippmpi.cluster",
    "Dependency": "ippmpi.client.dependency",
    "DirectView": "ippmpi.client.views",
    "FIRST_COMPLETED": "concurrent.futures",
    "FIRST_EXCEPTION": "concurrent.futures",
    "Handle": "ippmpi.wire.handles",
    "LoadBalancedView": "ippmpi.client.balanced",
    "ParallelFunction": "ippmpi.client.functions",
    "Reference": "ippmpi.wire.references",
    "RemoteFunction": "ippmpi.client.functions",
    "TimeoutError": "builtins",
    "ViewExecutor": "ippmpi.client.executor",
    "bind_kernel": "ippmpi.binding",
    "depend": "ippmpi.client.conditional",
    "dependent": "ippmpi.client.conditional",
    "interactive": "ippmpi.client.conditional",
    "parallel": "ippmpi.client.functions",
    "remote": "ippmpi.client.functions",
    "require": "ippmpi.client.conditional",
    "publish_data": "ippmpi.datapub",
}
"""Where public names live; all others are exceptions, and functions about them."""


def __getattr__(name: str) -> object:
    """Load a public name at its first use."""
    if name not in __all__:
        raise AttributeError(f"module 'ippmpi' has no attribute {name!r}")
    value: object = getattr(import_module(_HOMES.get(name, "ippmpi.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
