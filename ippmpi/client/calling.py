"""What both kinds of views share: the three forms of apply and of map."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, ClassVar

from ippmpi.client.flags import Flags
from ippmpi.client.handles import wants
from ippmpi.client.own import OwnCalls
from ippmpi.client.results import AsyncResult
from ippmpi.wire.picklers import check

if TYPE_CHECKING:
    from ippmpi.client.client import Client
    from ippmpi.client.functions import ParallelFunction, RemoteFunction


class View(Flags, OwnCalls, ABC):
    """Some engines of a client, and the options of calls to them.

    ``block``: whether calls wait. ``track``: kept for old programs; results always know ``sent``.
    ``label``: a text that goes with the tasks. ``keep``: whether ``apply`` (and a balanced ``map``) leaves values where
    they are made and gives their handles, see ``Handle``.
    """

    BALANCED: ClassVar[bool] = False
    """Whether each call goes to one engine of the controller's choice."""

    block: bool = False
    track: bool = False
    label: str | None = None
    keep: bool = False

    def __init__(self, client: Client, **flags: Any) -> None:
        """Belong to *client*; *flags* as for ``set_flags``."""
        super().__init__()
        self.client = client
        self.block = client.block
        self.set_flags(**flags)

    @abstractmethod
    def _apply(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], *, keep: bool
    ) -> AsyncResult:
        """Send the call."""

    @abstractmethod
    def _map(self, function: Callable[..., Any], sequences: tuple[Iterable[Any], ...], options: Any) -> AsyncResult:
        """Send the map."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of engines."""

    # --- apply -------------------------------------------------------------------------------

    def apply(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call ``function(*args, **kwargs)`` on the engines: an AsyncResult, or if ``block`` the value(s).

        With ``keep=True`` among the keywords each value stays where it is made, and the result is its ``Handle``, an
        argument for later calls. If the function itself has a parameter of that name, use ``temp_flags(keep=True)``.
        """
        result = self.apply_async(function, *args, **kwargs)
        return result.get() if self.block else result

    def apply_async(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AsyncResult:
        """Call a function on the engines; return an AsyncResult at once. ``keep=True``: see ``apply``."""
        if not callable(function):
            raise TypeError(f"apply() needs a function to call, not {function!r}")
        keep = wants(function, kwargs, self.keep) if kwargs else self.keep
        result = self._apply(function, args, kwargs, keep=keep)
        result.collector.called = getattr(function, "__name__", "")
        return result

    def apply_sync(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call a function on the engines and wait for the value(s). ``keep=True``: see ``apply``."""
        return self.apply_async(function, *args, **kwargs).get()

    # --- map ---------------------------------------------------------------------------------

    def map(
        self,
        function: Callable[..., Any],
        /,
        *sequences: Iterable[Any],
        block: bool | None = None,
        **options: Any,
    ) -> Any:
        """Call *function* with the items of *sequences* like the builtin ``map``, in parallel.

        The shortest sequence counts. Returns an AsyncMapResult, or with ``block=True`` the list of
        values (an array if all sequences are arrays). Options of all views: ``return_exceptions``
        (failures are values of their items), ``label``; of balanced views also ``ordered``
        (False: iteration is first come, first served) and ``chunksize`` (items per task; an item that fails then takes
        its task with it). Without it a balanced view sends single items at first, and more at a time as long as they
        prove to be short; each succeeds or fails on its own, but what is told of tasks (``engine_id``, ``started``,
        ...) is told of several together. With ``retries`` a task is an item. So it is with ``keep=True``, which leaves
        the value of each item where it is made and gives their handles.
        """
        if not callable(function):
            raise TypeError(f"map() needs a function to call, not {function!r}")
        result = self._map(function, sequences, options)
        result.collector.called = getattr(function, "__name__", "")
        return result.get() if (self.block if block is None else block) else result

    def map_async(self, function: Callable[..., Any], /, *sequences: Iterable[Any], **options: Any) -> Any:
        """Map without waiting; options as for ``map`` but ``block``."""
        return self.map(function, *sequences, block=False, **_without_block(options))

    def map_sync(self, function: Callable[..., Any], /, *sequences: Iterable[Any], **options: Any) -> Any:
        """Map and wait; options as for ``map`` but ``block``."""
        return self.map(function, *sequences, block=True, **_without_block(options))

    @abstractmethod
    def imap(self, function: Callable[..., Any], /, *sequences: Iterable[Any]) -> Iterator[Any]:
        """Map and return an iterator over the values, each as soon as it is there."""

    # --- functions ---------------------------------------------------------------------------

    def remote(self, block: bool | None = None, **flags: Any) -> Callable[[Callable[..., Any]], RemoteFunction]:
        """Decorate a function that is to run on the engines whenever it is called, see ``RemoteFunction``."""
        from ippmpi.client.functions import remote

        return remote(self, block, **flags)

    def parallel(
        self, dist: str = "b", block: bool | None = None, **flags: Any
    ) -> Callable[[Callable[..., Any]], ParallelFunction]:
        """Decorate a function of sequences of which each engine is to get a piece, see ``ParallelFunction``."""
        from ippmpi.client.functions import parallel

        return parallel(self, dist, block, **flags)

    @abstractmethod
    def call_pieces(
        self, function: Callable[..., Any], sequences: tuple[Any, ...], *, dist: str, chunksize: int | None
    ) -> AsyncResult:
        """Call *function* with pieces of the *sequences*, which have one length, and join the results."""

    # --- pickling ----------------------------------------------------------------------------

    def use_dill(self) -> Any:
        """Have dill pickle the calls of this client, and their results; functions see the same names as ever.

        What each call is pickled with it says itself, so engines that join later answer alike, and other clients do not
        notice. Return the result of looking whether the engines have it: an AsyncResult, or if ``block`` values.

        Raises:
            ModuleNotFoundError: dill is missing here, or (as a RemoteError, also of later calls) on an engine.
        """
        return self._use("dill")

    def use_cloudpickle(self) -> Any:
        """Have cloudpickle do all the work, as ``use_dill``: functions get the client's globals, not the engines'."""
        return self._use("cloudpickle")

    def use_pickle(self) -> Any:
        """Pickle as at the beginning: pickle where that will do, else cloudpickle, with our own functions."""
        return self._use("auto")

    def _use(self, pickler: str) -> Any:
        check(pickler)
        result = self._everywhere(check, pickler)
        if self.block:
            result.get()
        self.client.requests.pickler = pickler
        return result.get() if self.block else result

    @abstractmethod
    def _everywhere(self, function: Callable[..., Any], /, *args: Any) -> AsyncResult:
        """Call a function on every engine of this view."""

    @property
    def executor(self) -> Executor:
        """A ``concurrent.futures.Executor`` whose work this view does."""
        from ippmpi.client.executor import ViewExecutor

        return ViewExecutor(self)


def _without_block(options: dict[str, Any]) -> dict[str, Any]:
    if "block" in options:
        raise TypeError("map_async() and map_sync() say by their names whether they wait; use map() with block=")
    return options
