"""Arguments of ``Client`` that users of ipyparallel know: what they mean here, or that they mean nothing."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ippmpi.client.notebook import running_shell

NOTHING = {
    "context": "there is no ZeroMQ context of yours: the client makes its own connections",
    "debug": "to see what is sent, set the level of the logger 'ippmpi' to DEBUG",
}
"""What changes nothing here, and why."""

OF_A_SESSION = frozenset(
    (
        "adapt_version", "buffer_threshold", "check_pid", "config", "copy_threshold", "debug", "digest_history_size",
        "item_threshold", "key", "keyfile", "log", "metadata", "pack", "packer", "parent", "session",
        "signature_scheme", "signature_key", "unpack", "unpacker", "username",
    )
)  # fmt: skip
"""Those of Jupyter's ``Session``, which ipyparallel's client passes on to it."""


def check_others(others: Mapping[str, Any]) -> Any:
    """Return the connection info among arguments that ``Client`` has no name for; warn of what changes nothing.

    Raises:
        TypeError: neither ipyparallel nor this client knows one of them.
    """
    wanted = {name: value for name, value in others.items() if value is not None and value is not False}
    for name in others:
        if name not in {*NOTHING, *OF_A_SESSION, "url_or_file"}:
            raise TypeError(f"Client() got an unexpected keyword argument {name!r}")
    for name in wanted:
        if name in NOTHING or name in OF_A_SESSION:
            why = NOTHING.get(name, "there is no Session here: keys are those of the connection file")
            warnings.warn(f"Client({name}=...) changes nothing: {why}", UserWarning, stacklevel=3)
    if "url_or_file" in wanted:
        warnings.warn("Client(url_or_file=...) is now its first argument", DeprecationWarning, stacklevel=3)
    return wanted.get("url_or_file")


def folder_of(profile: str | None, profile_dir: str | Path | None, ipython_dir: str | Path | None) -> str | Path | None:
    """Return the profile folder to use instead of *profile*; None: *profile* says it.

    Without any of them it is that of the IPython that this runs in.
    """
    if profile_dir is not None:
        return profile_dir
    if ipython_dir is not None:
        return Path(ipython_dir).expanduser() / f"profile_{profile or 'default'}"
    found = getattr(getattr(running_shell(), "profile_dir", None), "location", None)
    return str(found) if found and profile is None else None
