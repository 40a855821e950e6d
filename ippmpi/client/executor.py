"""A view as a ``concurrent.futures.Executor``."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from itertools import chain
from typing import TYPE_CHECKING, Any

from ippmpi.client.results import AsyncResult

if TYPE_CHECKING:
    from ippmpi.client.calling import View


class ViewExecutor(futures.Executor):
    """Submits to a view; ``shutdown`` waits for that work and leaves the engines alone."""

    def __init__(self, view: View) -> None:
        """Submit to *view*."""
        self.view = view
        self._open = True
        self._submitted: weakref.WeakSet[AsyncResult] = weakref.WeakSet()

    @property
    def _max_workers(self) -> int:  # that is how others ask an executor
        return len(self.view)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AsyncResult:
        """Call ``fn(*args, **kwargs)``; the AsyncResult is the future."""
        self._check_open()
        result = self.view.apply_async(fn, *args, **kwargs)
        self._submitted.add(result)
        return result

    def _check_open(self) -> None:
        if not self._open:
            raise RuntimeError("this executor was shut down and takes no more work")

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[Any]:
        """Yield the values of ``fn`` in order; TimeoutError if they take longer than *timeout* seconds in all.

        A ``DirectView`` gives each engine one block of the items, whatever *chunksize* is.
        """
        if self.view.BALANCED and chunksize <= 1:
            return _values([self.submit(fn, *items) for items in zip(*iterables, strict=False)], timeout)
        self._check_open()
        options = {"chunksize": chunksize} if self.view.BALANCED else {}
        result = self.view.map_async(fn, *iterables, **options)
        self._submitted.add(result)
        return chain.from_iterable(_values(result.split(), timeout))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work and, if *wait*, wait for what was submitted; *cancel_futures* ends it."""
        self._open = False
        pending = list(self._submitted)
        if cancel_futures:
            for result in pending:
                result.cancel()
        if wait:
            futures.wait(pending)


def _values(results: Sequence[AsyncResult], timeout: float | None) -> Iterator[Any]:
    end = None if timeout is None else time.monotonic() + timeout
    return (result.get(None if end is None else max(0.0, end - time.monotonic())) for result in results)
