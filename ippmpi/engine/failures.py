"""Exceptions of the user's code as text: without the frames of the engine, and of bounded size."""

from __future__ import annotations

import os

from ippmpi.engine.shell import CodeFailed
from ippmpi.errors import UnmetDependency
from ippmpi.wire.exceptions import take_apart
from ippmpi.wire.messages import Failure

MOST_TEXT = 64 * 1024
"""Characters of a message or traceback that are kept: half from the start, half from the end."""

_OURS = os.path.dirname(os.path.dirname(__file__)) + os.sep
_SHELL = os.sep + os.path.join("IPython", "core", "interactiveshell.py")


def describe(error: BaseException) -> Failure:
    """Return what *error* says of itself; where it happened is not filled in."""
    text = None
    if isinstance(error, CodeFailed):
        text, error = error.traceback, error.error
    name = _shorten(type(error).__name__)
    kind = "UnmetDependency" if isinstance(error, UnmetDependency) else "code"
    types, made = take_apart(error) if kind == "code" else ([], b"")
    trace = _shorten(text or _traceback(error))
    return Failure(name, _shorten(_message(error)), trace, kind, types=types, made=made)


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as second:  # the user's __str__
        return f"<{type(error).__name__}; its text raised {type(second).__name__}>"


def _traceback(error: BaseException) -> str:
    import traceback

    try:
        described = traceback.TracebackException.from_exception(error, compact=True)
        _strip(described, set())
        return "".join(described.format()).rstrip("\n")
    except Exception as second:  # an exception made to be hard to describe
        return f"{type(error).__name__}: {_message(error)}\n(no traceback: {type(second).__name__})"


def _strip(described: object, seen: set[int]) -> None:
    """Drop our frames at the start of a traceback, and of those that it was caused by."""
    stack = getattr(described, "stack", None)
    if stack is None or id(described) in seen:
        return
    seen.add(id(described))
    while stack and (stack[0].filename.startswith(_OURS) or stack[0].filename.endswith(_SHELL)):
        del stack[0]
    for name in ("__cause__", "__context__"):
        _strip(getattr(described, name), seen)
    for inner in getattr(described, "exceptions", None) or ():
        _strip(inner, seen)


def _shorten(text: str) -> str:
    """Return *text* in bounded size, and such that it can be encoded: names of files may be no UTF-8."""
    text = text.encode(errors="backslashreplace").decode()
    if len(text) <= MOST_TEXT:
        return text
    half = MOST_TEXT // 2
    return f"{text[:half]}\n... {len(text) - MOST_TEXT} characters left out ...\n{text[-half:]}"
