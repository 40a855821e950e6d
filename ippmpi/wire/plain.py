"""Plain functions: pickled once by those who call them often, rebuilt once by those who run them often.

A function of ``__main__`` is *plain* if its code is all there is to it: no closure, defaults, attributes or
annotations, and no global that would travel. What is pickled of it cannot differ from call to call. All others are
pickled anew each time.
"""

from __future__ import annotations

import pickle
from types import CodeType, FunctionType

from ippmpi.wire.functions import get_home, is_main, is_plain
from ippmpi.wire.picklers import dumps, sends_by_value

MOST = 256
"""Functions that are remembered, on either side."""

LARGEST = 64 * 1024
"""Bytes of a pickled function that is remembered."""

sent: dict[int, tuple[CodeType, bytes]] = {}  # by the identity of a code, which is kept lest another one gets it
rebuilt: dict[bytes, FunctionType] = {}


def pickled(function: object) -> bytes | None:
    """Return the pickle of *function*; None if it is not plain, and goes with its arguments."""
    if type(function) is not FunctionType or not is_main(function) or not is_plain(function) or sends_by_value():
        return None
    code = function.__code__
    found = sent.get(id(code))
    if found is None:
        found = code, bytes(dumps(function)[0])
        if len(sent) >= MOST:
            sent.clear()
        if len(found[1]) <= LARGEST:
            sent[id(code)] = found
    return found[1]


def rebuild(data: memoryview) -> object:
    """Return the plain function that was pickled as *data*: the same one as the last time, while the namespace is."""
    key = bytes(data)
    function = rebuilt.get(key)
    home = get_home()
    if function is not None and home is not None and function.__globals__ is home.variables:
        return function
    made: object = pickle.loads(key)
    if type(made) is FunctionType and home is not None and len(key) <= LARGEST:
        if len(rebuilt) >= MOST:
            rebuilt.clear()
        rebuilt[key] = made
    return made
