"""Who may come in: the same protocol, a Python and pickles that fit, a name that fits the role."""

from __future__ import annotations

import os
import re
import socket

from ippmpi.errors import Refused
from ippmpi.net.compatible import check_pickles, check_python, check_version, python
from ippmpi.net.conversation import unpack_about
from ippmpi.wire.messages import Hello

NAMES = {
    "client": re.compile(r"client:[0-9a-f]{1,32}"),
    "agent": re.compile(r"agent:[^\s@]{1,200}@[^\s@]{1,255}"),
}


def admit(hello: Hello, role: str) -> dict[str, object]:
    """Return what to tell a new peer about this controller; *role* is that of its key.

    Raises:
        Refused: it cannot work with us; the text names both sides.
    """
    me = here()
    check_version(hello.peer, hello.version, me)
    if role not in NAMES:
        raise Refused(f"{me} takes the roles client and agent, {hello.peer} says {role!r}")
    if hello.role != role:
        raise Refused(f"{hello.peer} says it is {hello.role!r}, but its key is that of {role!r}")
    if not NAMES[role].fullmatch(hello.peer):
        raise Refused(f"{hello.peer!r} is not a name for the role {role!r}: {NAMES[role].pattern} is")
    check_python(hello, me)
    check_pickles(hello.peer, unpack_about(hello.about), me)
    return {"host": socket.gethostname(), "pid": os.getpid(), "python": python()}


def here() -> str:
    """Name this controller in refusals."""
    return f"the controller on {socket.gethostname()}"
