"""Every method of a cluster twice: one that blocks (``x_sync``), and a coroutine (``x``).

The blocking one is the original, so it works inside a running event loop, honours Ctrl-C, and can run
while the interpreter ends, when no thread can be started. The coroutine runs it in a thread.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def coroutine_of(method: Callable[P, R]) -> Callable[P, Coroutine[Any, Any, R]]:
    """Return the coroutine method that runs blocking *method* in a thread."""

    @functools.wraps(method)
    async def run(*args: P.args, **kwargs: P.kwargs) -> R:
        return await asyncio.to_thread(method, *args, **kwargs)

    run.__name__ = method.__name__.removesuffix("_sync")
    run.__qualname__ = method.__qualname__.removesuffix("_sync")
    return run
