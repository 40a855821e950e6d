"""Who may come in: the same protocol, the same minor version of Python, a name that fits the role."""

from __future__ import annotations

import os
import platform
import re
import socket

from ippmpi.errors import Refused
from ippmpi.wire.messages import PROTOCOL_VERSION, Hello

NAMES = {
    "client": re.compile(r"client:[0-9a-f]{1,32}"),
    "agent": re.compile(r"agent:[^\s@]{1,200}@[^\s@]{1,255}"),
}


def admit(hello: Hello, role: str) -> dict[str, object]:
    """Return what to tell a new peer about this controller; *role* is that of its key.

    Raises:
        Refused: it cannot work with us; the text names both sides.
    """
    here = f"the controller on {socket.gethostname()}"
    if hello.version != PROTOCOL_VERSION:
        raise Refused(
            f"{here} speaks protocol version {PROTOCOL_VERSION}, {hello.peer} speaks {hello.version}: "
            "use the same ippmpi on both sides"
        )
    if role not in NAMES:
        raise Refused(f"{here} takes the roles client and agent, {hello.peer} says {role!r}")
    if hello.role != role:
        raise Refused(f"{hello.peer} says it is {hello.role!r}, but its key is that of {role!r}")
    if not NAMES[role].fullmatch(hello.peer):
        raise Refused(f"{hello.peer!r} is not a name for the role {role!r}: {NAMES[role].pattern} is")
    python = platform.python_version()
    if _minor(hello.python) != _minor(python):
        raise Refused(
            f"{here} runs Python {python}, {hello.peer} runs {hello.python or 'an unknown one'}: functions "
            "travel as byte code, so the minor version must be the same everywhere"
        )
    return {"host": socket.gethostname(), "pid": os.getpid(), "python": python}


def _minor(version: str) -> tuple[str, ...]:
    return tuple(version.split(".")[:2])
