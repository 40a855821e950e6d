"""Whether two sides can work together: the protocol, Python, and what functions are pickled with."""

from __future__ import annotations

import functools
import platform
import sys
from collections.abc import Callable

from ippmpi.errors import Refused
from ippmpi.wire.messages import PROTOCOL_VERSION, Hello


def python() -> str:
    """Return what ``Hello.python`` says: the version, after the implementation's name unless that is CPython."""
    name = platform.python_implementation()
    version = platform.python_version()
    return version if name == "CPython" else f"{name} {version}"


def check_version(peer: str, version: int, here: str) -> None:
    """Compare protocol versions; *here* names this side in the text.

    Raises:
        Refused: they differ.
    """
    if version != PROTOCOL_VERSION:
        raise Refused(
            f"{here} speaks protocol version {PROTOCOL_VERSION}, {peer} speaks {version}: "
            "use the same ippmpi on both sides"
        )


def check_python(hello: Hello, here: str) -> None:
    """Compare the minor version of Python and its implementation; *here* names this side in the text.

    Raises:
        Refused: they differ.
    """
    mine = python()
    if _series(hello.python) != _series(mine):
        raise Refused(
            f"{here} runs Python {mine}, {hello.peer} runs {hello.python or 'an unknown one'}: functions "
            "travel as byte code, so the minor version must be the same everywhere"
        )


def check_pickles(peer: str, about: object, here: str, mine: Callable[[], str] | None = None) -> None:
    """Compare cloudpickle's major version, if *about* (a hello's) says it; *mine* returns ours.

    Raises:
        Refused: they differ.
    """
    theirs = about.get("cloudpickle") if isinstance(about, dict) else None
    if not isinstance(theirs, str) or not theirs:
        return
    ours = (mine or cloudpickle_version)()
    if theirs.split(".")[0] != ours.split(".")[0]:
        raise Refused(
            f"{here} has cloudpickle {ours}, {peer} has {theirs[:40]}: functions are pickled by one side and "
            "unpickled by the other, so the major version must be the same everywhere"
        )


@functools.cache
def cloudpickle_version() -> str:
    """Return the version of cloudpickle that this process would pickle functions with."""
    loaded = sys.modules.get("cloudpickle")
    if loaded is not None:
        return str(loaded.__version__)
    import importlib.metadata

    return importlib.metadata.version("cloudpickle")


def _series(version: str) -> str:
    """Return ``3.11`` of ``3.11.4``, ``PyPy 3.11`` of ``PyPy 3.11.13``."""
    return ".".join(version.split(".")[:2])
