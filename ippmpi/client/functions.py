"""Functions that run on a view's engines when they are called: ``view.remote`` and ``view.parallel``."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from copy import copy
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, TypeVar

from ippmpi.client.conditional import NAMES
from ippmpi.client.partition import check_distribution

if TYPE_CHECKING:
    from ippmpi.client.calling import View

F = TypeVar("F", bound=Callable[..., Any])


class RemoteFunction:
    """Calls a function on the engines of a view, with the flags that the view has then and some of its own.

    ``block``: whether to wait; None: as the view does. Inside a task it is the plain function, so it may call itself.
    """

    def __init__(self, view: View, f: Callable[..., Any], block: bool | None = None, **flags: Any) -> None:
        """Call *f* by way of *view*; *flags* as for ``view.set_flags``."""
        if not callable(f):
            raise TypeError(f"a remote function is made of a function, not {f!r}")
        copy(view).set_flags(**flags)  # says now if there is no such flag
        update_wrapper(self, f, NAMES)
        self.view, self.func = view, f
        self.block, self.flags = block, flags

    def _view(self) -> View:
        """Return the view as it is now with our own flags, for one call: other threads may make others."""
        block = {} if self.block is None else {"block": self.block}
        return copy(self.view).set_flags(**self.view.flags() | self.flags | block)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function on the engines: an AsyncResult, or if it blocks the value(s)."""
        return self._view().apply(self.func, *args, **kwargs)

    def __reduce__(self) -> tuple[object, ...]:
        """Travel as the function."""
        return _same, (self.func,)

    def __repr__(self) -> str:
        """Show the function and where it runs."""
        return f"<{type(self).__name__} {getattr(self, '__name__', self.func)} on {self.view!r}>"


def _same(function: F) -> F:
    """Return *function*; called by pickle."""
    return function


class ParallelFunction(RemoteFunction):
    """Cuts its arguments, sequences of one length, into pieces; each engine is called with a piece of each.

    The results are joined: arrays to one array, lists to one list, others to the list of them. A ``DirectView`` makes
    one piece per engine (*dist*: ``"b"`` contiguous blocks, ``"r"`` round robin), a ``LoadBalancedView`` tasks
    of *chunksize* elements (default: 1). ``map`` calls the function with single elements instead.
    """

    def __init__(
        self,
        view: View,
        f: Callable[..., Any],
        dist: str = "b",
        block: bool | None = None,
        chunksize: int | None = None,
        ordered: bool = True,
        **flags: Any,
    ) -> None:
        """See the class; *ordered* is for ``map`` of balanced views."""
        super().__init__(view, f, block, **flags)
        self.dist, self.chunksize, self.ordered = check_distribution(dist), chunksize, ordered
        if chunksize is not None and not view.BALANCED:
            warnings.warn("chunksize is for balanced views; each engine of this view gets one piece", stacklevel=3)

    def __call__(self, *sequences: Any, **kwargs: Any) -> Any:
        """Cut, call, and join: an AsyncResult, or if it blocks the joined value."""
        if kwargs:
            raise TypeError(f"a parallel function takes sequences only, not by name: {', '.join(kwargs)}")
        lengths = [len(sequence) for sequence in sequences]
        if not lengths:
            raise TypeError(f"{self!r} needs at least one sequence")
        if len(set(lengths)) > 1:
            raise ValueError(f"the sequences must have one length, but have {', '.join(map(str, lengths))}")
        view = self._view()
        result = view.call_pieces(self.func, sequences, dist=self.dist, chunksize=self.chunksize)
        return result.get() if view.block else result

    def map(self, *sequences: Sequence[Any], **options: Any) -> Any:
        """Call the function with each element, see ``view.map``."""
        view = self._view()
        if view.BALANCED:
            options = {"chunksize": self.chunksize, "ordered": self.ordered} | options
        return view.map(self.func, *sequences, **options)


def remote(view: View, block: bool | None = None, **flags: Any) -> Callable[[Callable[..., Any]], RemoteFunction]:
    """Decorate a function that is to run on the engines of *view* whenever it is called, see ``RemoteFunction``."""

    def decorate(f: Callable[..., Any]) -> RemoteFunction:
        return RemoteFunction(view, f, block, **flags)

    return decorate


def parallel(
    view: View, dist: str = "b", block: bool | None = None, ordered: bool = True, **flags: Any
) -> Callable[[Callable[..., Any]], ParallelFunction]:
    """Decorate a function of sequences of which each engine of *view* is to get a piece, see ``ParallelFunction``."""

    def decorate(f: Callable[..., Any]) -> ParallelFunction:
        return ParallelFunction(view, f, dist, block, ordered=ordered, **flags)

    return decorate
