"""AsyncResult: the values of one call, on one engine or on many."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Self

from ippmpi.client.collector import Collector
from ippmpi.client.contents import Flat
from ippmpi.client.failures import composite
from ippmpi.client.futures import ANSWER_S, CallFuture, Owner, Unpickle, seconds, unpickle
from ippmpi.client.parts import Part

if TYPE_CHECKING:
    from ippmpi.client.explaining import Explanation


class AsyncResult(CallFuture):
    """The result of a call, there or still to come.

    A result of one engine that was named by an int is the bare value; otherwise it is a list in the
    order of the targets. It is a ``concurrent.futures.Future`` and can be awaited. Time-outs are
    seconds; None or a negative number means no limit; ``TimeoutError`` says what is missing.
    """

    def __init__(
        self,
        owner: Owner,
        collector: Collector,
        *,
        single: bool = False,
        unpickle: Unpickle = unpickle,
        return_exceptions: bool = False,
    ) -> None:
        """See ``CallFuture``."""
        self._built: Any = None
        self._is_built = False
        self._pieces: tuple[AsyncResult, ...] | None = None
        super().__init__(owner, collector, single=single, unpickle=unpickle, return_exceptions=return_exceptions)

    # --- the value ---------------------------------------------------------------------------

    def get(
        self, timeout: float | None = None, return_exceptions: bool | None = None, return_when: str | None = None
    ) -> Any:
        """Wait and return the value or values.

        A failure of a single result is raised as it is; of several results, as ``CompositeError``,
        unless *return_exceptions* puts the errors into the list. The first one is shown while others are still
        waited for (see ``Client.show_first_error``). With ``return_when=FIRST_EXCEPTION``
        the first failure is raised without waiting for the others.

        Raises:
            TimeoutError: not all came in time; the text says what is missing.
            RemoteError: code failed, or an engine was lost.
        """
        collector = self._collector
        values = self._return_exceptions if return_exceptions is None else bool(return_exceptions)
        if not self._wait_until(return_when, timeout, tell=not values):
            raise TimeoutError(collector.describe_missing(timeout or 0))
        if collector.problem is not None:
            raise collector.problem
        if not collector.ended:
            self._read([part for part in collector.parts if part.failed])
            raise self._raisable(self._errors())
        if values:
            return self._build(with_errors=True)
        if not self._is_built:
            self._built, self._is_built = self._build(with_errors=False), True
        return self._built

    def _wait_until(self, return_when: str | None, timeout: float | None, *, tell: bool) -> bool:
        """Wait for all, or the first failure; *tell*: show one that comes long before the others."""
        if return_when == FIRST_EXCEPTION:
            return self._wait_for(self._condition_of(return_when), timeout)
        if return_when not in (None, ALL_COMPLETED):
            self._condition_of(return_when)
            text = f"get(return_when={return_when!r}) waits for all; wait(return_when={return_when!r}) does not"
            warnings.warn(text, stacklevel=3)
        if not tell or self._collector.size < 2 or self.done() or not self._owner.show_first_error:
            return self._wait_all(timeout)
        from ippmpi.client.firsterror import wait_and_tell

        return wait_and_tell(self, seconds(timeout))

    def _build(self, *, with_errors: bool) -> Any:
        values, errors = self._read(self._collector.parts)
        if errors and not with_errors:
            raise self._raisable(errors)
        return values[0] if self._single else self._combine(values)

    def _combine(self, values: list[Any]) -> Any:  # maps join
        return values

    @property
    def r(self) -> Any:
        """Same as ``get()``."""
        return self.get()

    def get_dict(self, timeout: float | None = -1) -> dict[int | None, Any]:
        """Wait and return ``{engine_id: value}``; ValueError if an engine has several values."""
        self.get(timeout)
        ids = [part.engine for part in self._collector.parts]
        if len(set(ids)) < len(ids):
            raise ValueError(f"several results of {self._collector.method} are of one engine: engines {ids}")
        return dict(zip(ids, self._read(self._collector.parts)[0], strict=True))

    @property
    def result_dict(self) -> dict[int | None, Any]:
        """Same as ``get_dict()``."""
        return self.get_dict()

    # --- one by one --------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Any]:
        """Yield the values in order, each as soon as it is there."""
        if self._single:
            raise TypeError(f"{self!r} is one value and cannot be iterated; use get()")
        return self._iterate()

    def _iterate(self) -> Iterator[Any]:
        for index in range(len(self._collector.parts)):
            yield self._take(index)

    def _take(self, index: int) -> Any:
        part = self._collector.parts[index]
        if not part.done:
            self._wait_for(lambda: part.done, None)
        if not part.done and self._collector.problem is not None:
            raise self._collector.problem
        error = part.read(self._unpickle)
        if error is not None and not self._return_exceptions:
            raise error.with_traceback(None)
        return part.value if error is None else error

    def __getitem__(self, key: int | slice | str) -> Any:
        """Return value *key*, values of a slice, or a field of the metadata. Values must be there (TimeoutError)."""
        if isinstance(key, str):
            return self._of_parts(key)
        self._check_ended()
        if isinstance(key, slice):
            values, errors = self._read(self._collector.parts[key])
            if errors and not self._return_exceptions:
                raise composite(errors, len(values), self._collector.method)
            return values
        return self._take(range(len(self._collector.parts))[key])

    def __len__(self) -> int:
        """Return the number of engines or tasks."""
        return len(self._collector.parts)

    def __bool__(self) -> bool:
        """A result is true, also of an empty map."""
        return True

    # --- waiting -----------------------------------------------------------------------------

    def wait(self, timeout: float | None = -1, return_when: str | None = None) -> Any:
        """Wait; return whether all results are there. Failures are not raised.

        With *return_when* (``ALL_COMPLETED``, ``FIRST_COMPLETED``, ``FIRST_EXCEPTION``) return the
        sets ``(done, pending)`` of one-part results instead.
        """
        if return_when is None:
            return self._wait_all(timeout)
        self._wait_for(self._condition_of(return_when), timeout)
        pieces = self.split()
        done = {piece for piece in pieces if piece.done()}
        return done, set(pieces) - done

    def _condition_of(self, return_when: str | None) -> Callable[[], bool]:
        collector = self._collector
        conditions: dict[str, Callable[[], bool]] = {
            ALL_COMPLETED: lambda: collector.ended,
            FIRST_COMPLETED: lambda: bool(collector.order) or collector.ended,
            FIRST_EXCEPTION: lambda: collector.failed or collector.ended,
        }
        if return_when is None or return_when not in conditions:
            raise ValueError(f"return_when={return_when!r}; have {', '.join(conditions)}")
        return conditions[return_when]

    def split(self) -> tuple[AsyncResult, ...]:
        """Return one result per part, for ``concurrent.futures.wait`` and ``as_completed``."""
        if self._pieces is None:
            self._collector.complete()
            self._pieces = tuple(self._piece(index) for index in range(len(self._collector.parts)))
        return self._pieces

    @classmethod
    def join(cls, *results: AsyncResult) -> AsyncResult:
        """Return one result of all parts of *results*, in their order.

        Parts of maps are lists of their items.
        """
        if not results:
            raise ValueError("join() needs at least one result")
        joined = Collector.joined([r._collector.places() for r in results], keep=results[0]._collector.keep)
        unpickles = {id(part): result._unpickle for result in results for part in result._collector.parts}

        def unpickle(part: Part, pickled: Flat) -> Any:
            return unpickles[id(part)](part, pickled)

        return AsyncResult(results[0]._owner, joined, unpickle=unpickle)

    def _piece(self, index: int) -> AsyncResult:
        return AsyncResult(self._owner, self._collector.piece(index), single=True, unpickle=self._unpickle)

    def wait_interactive(
        self,
        interval: float = 0.1,
        timeout: float | None = -1,
        widget: bool | None = None,  # noqa: ARG002 - the bar is one in a notebook, and text elsewhere
        return_when: str = ALL_COMPLETED,
    ) -> bool:
        """Wait with a progress bar, for all results or until *return_when*; return whether all are there."""
        from ippmpi.client.progress import wait_interactive

        enough = self._condition_of(return_when)
        return wait_interactive(self, interval, seconds(timeout), self._collector.method, enough)

    # --- showing -----------------------------------------------------------------------------

    def explain(self, timeout: float = ANSWER_S) -> Explanation:
        """Say why results are not there yet: what each task waits for, or where it runs and for how long.

        The controller is asked, not the engines, so the answer comes also while these are busy. It is a sequence of
        records, and prints as text.

        Raises:
            TimeoutError: the controller did not answer in *timeout* seconds.
        """
        from ippmpi.client.explaining import explain

        if not self.done():
            self._check_thread()
        return explain(self._owner, self._collector, timeout)

    def display_outputs(self, groupby: str = "type", *, result_only: bool = False, fold: bool = True) -> None:
        """Wait, then show output and results: grouped by ``type``, ``engine`` or (as ``order``) by target.

        What several engines show alike is shown once, as ``[0-3,7] text`` (by ``engine`` and ``order``: all that one
        shows, if it is the same as of the one before), unless *fold* is false.
        """
        from ippmpi.client.display import check_grouping, display_outputs

        check_grouping(groupby)
        self._wait_all(None)
        if self._collector.problem is None:
            self._read(self._collector.parts)
        display_outputs(self._collector, groupby, result_only=result_only, folded=fold)

    def stream_output(self, *, fold: bool = True) -> AbstractContextManager[Self]:
        """Print output as it comes, from now until the end of the ``with`` block.

        Lines that several engines print at about the same time are one, as ``[0-3,7] text``, unless *fold* is false.
        """
        from ippmpi.client.streaming import Printer, streaming

        return streaming(self, Printer(self._collector, self.read_part, folded=fold), self._collector)
