"""A rank as a Jupyter kernel: ``jupyter console --existing`` and the like attach to it."""

from __future__ import annotations

from collections.abc import Callable

Binder = Callable[[str], str]

_binders: list[Binder] = []  # none or one


def connect(binder: Binder) -> None:
    """Let *binder* make a kernel of this process; an engine does that at its start."""
    _binders[:] = [binder]


def bind_kernel(ip: str = "") -> str:
    """Make this engine a Jupyter kernel too, and return its connection file: ``jupyter console --existing FILE``.

    What is typed there runs in the engine's namespace, in turn with the requests of clients. It listens on Unix sockets
    in the private folder of its cluster on this host; on another host say ``ssh HOST jupyter console --existing FILE``.
    With *ip* it listens on TCP there, ``127.0.0.1`` for this host: signed, but whoever can connect reads the output.
    The second time the same file is returned. File and sockets are removed when the engine ends.

    Raises:
        RuntimeError: this is no engine, or it listens elsewhere already.
        ModuleNotFoundError: jupyter_client is missing on the engine: ``pip install 'ippmpi[kernel]'``.
    """
    if not _binders:
        raise RuntimeError("bind_kernel() is for code that runs on an engine, as in rc[0].apply_sync(ipp.bind_kernel)")
    return _binders[0](ip)
