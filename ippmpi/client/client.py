"""Client: the way into a running cluster."""

from __future__ import annotations

import contextlib
import operator
import secrets
import signal as signals
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self

import msgspec

from ippmpi.client.balanced import LoadBalancedView
from ippmpi.client.broadcast import BroadcastView
from ippmpi.client.connect import find_connection, warn_of_loopback
from ippmpi.client.dependency import task_ids
from ippmpi.client.engines import Targets
from ippmpi.client.futures import ANSWER_S, seconds
from ippmpi.client.notebook import running_shell
from ippmpi.client.options import check_others, folder_of
from ippmpi.client.questions import Questions
from ippmpi.client.requests import Requests
from ippmpi.client.results import AsyncResult
from ippmpi.client.stored import Stored, StoredResult
from ippmpi.client.transport import LinkTransport, Receiver, Transport, dial_for
from ippmpi.client.tunnel import tunnel
from ippmpi.client.views import DirectView
from ippmpi.client.worlds import Starter, Worlds
from ippmpi.config import noninteractive
from ippmpi.wire.messages import Query, SendSignal, Shutdown


class OwningCluster(Starter, Protocol):
    """What a client needs of the cluster it belongs to."""

    n: int | None


class Client(Questions):
    """The way into a running cluster.

    ``client[key]`` gives views: an int names an engine (negative: from the end), a slice or a list
    several. ``block`` is what new views start with.
    """

    block: bool = False

    def __init__(  # noqa: PLR0913 - options that users of ipyparallel know
        self,
        connection_info: str | Path | Mapping[str, Any] | None = None,
        *,
        url_file: str | Path | None = None,
        profile: str | None = None,
        profile_dir: str | Path | None = None,
        ipython_dir: str | Path | None = None,
        cluster_id: str | None = "",
        timeout: float = 10,
        cluster: OwningCluster | None = None,
        sshserver: str | None = None,
        sshkey: str | Path | None = None,
        password: str | bool | None = None,
        paramiko: bool | None = None,  # noqa: ARG002 - it is always OpenSSH
        _connect: Any = None,
        **others: Any,
    ) -> None:
        """Connect, within *timeout* seconds.

        *connection_info* (or *url_file*) is a connection file or its fields; without it, the file
        of a profile (default: that of the IPython it runs in, or ``default``) and *cluster_id* is used, which may
        still have to appear.
        *sshserver* (``[user@]host[:port]``) and *sshkey*: go through one port that OpenSSH forwards, as long as this
        client is open; without a server, by way of the controller's host. There can be no *password*.
        *others* are arguments that ipyparallel's client has, and what is said about them.

        Raises:
            ConnectionFileError: no usable connection file.
            Refused: the controller does not let us in.
            TimeoutError: the controller does not answer.
            ConnectionError: ssh cannot log in, or cannot forward a port.
        """
        deadline = time.monotonic() + timeout
        info = check_others(others) or url_file if connection_info is None else connection_info
        self.cluster = cluster
        self.profile = profile or "default"
        self.id = secrets.token_hex(6)
        where = "the network"
        connect = None if _connect is None else partial(_connect, self.id)
        way = contextlib.ExitStack()
        if connect is None:
            found = find_connection(
                info,
                profile=profile,
                profile_dir=folder_of(profile, profile_dir, ipython_dir),
                cluster_id=cluster_id or "",
                timeout_s=timeout,
            )
            if sshserver or sshkey:
                found = way.enter_context(tunnel(found, sshserver, sshkey, password, timeout))
            else:
                warn_of_loopback(found)
            where = repr(found)
            with way:
                connect = _connector(dial_for(found, self.id))
                way = way.pop_all()
        self.requests = Requests(self.id, connect)
        self._stored = Stored(self.id, self.requests)
        self._finalizer = weakref.finalize(self, _leave, self.requests, way)  # also at the end of the process
        try:
            known = self.requests.engines.wait_known(max(0.5, deadline - time.monotonic()))
            if not known:
                raise TimeoutError(f"{where} did not answer within {timeout:g} s: is the controller reachable?")
        except BaseException:
            self._finalizer()
            raise
        shell = running_shell()
        if shell is not None and shell.find_line_magic("px") is None:
            self.activate()

    @property
    def show_first_error(self) -> bool:
        """Whether calls that wait for several results show a failure while they wait for the others (default: yes).

        Within a second, on stderr or in a notebook as output, with who has not answered.
        """
        return self.requests.show_first_error

    @show_first_error.setter
    def show_first_error(self, wanted: bool) -> None:
        self.requests.show_first_error = wanted

    # --- engines -----------------------------------------------------------------------------

    @property
    def ids(self) -> list[int]:
        """The ids of the engines that are there, sorted."""
        return list(self.requests.engines.ids)

    @property
    def worlds(self) -> Worlds:
        """The MPI jobs that the engines belong to, by name; one can be started again: ``worlds[name].restart()``."""
        return Worlds(self.requests.engines, self.cluster)

    def __len__(self) -> int:
        """Return the number of engines."""
        return len(self.requests.engines)

    def __bool__(self) -> bool:
        """A client is true, also without engines."""
        return True

    def __iter__(self) -> Iterator[DirectView]:
        """Yield a view of each engine."""
        for engine_id in self.ids:
            yield self[engine_id]

    def __getitem__(self, key: Targets) -> DirectView:
        """Return the view of an engine, or of several as they are now. ``client.direct_view("all")`` stays current."""
        if key is None or isinstance(key, str):
            raise TypeError(f"a client is indexed by an int, a slice or a list of ints, not {key!r}")
        ids, single = self.requests.engines.pick(key)
        return DirectView(self, ids[0] if single else ids)

    def direct_view(self, targets: Targets = "all", **flags: Any) -> DirectView:
        """Return a view of *targets*: ``"all"`` (whoever is there at each call), an int, a slice, a list."""
        if not (targets is None or (isinstance(targets, str) and targets == "all")):
            ids, single = self.requests.engines.pick(targets)
            targets = ids[0] if single else ids
        return DirectView(self, "all" if targets is None else targets, **flags)

    def broadcast_view(self, targets: Targets = "all", is_coalescing: bool = False, **flags: Any) -> BroadcastView:
        """Return a view of *targets*, as ``direct_view`` does: every direct view sends a payload once."""
        view = self.direct_view(targets)
        return BroadcastView(self, view.targets, is_coalescing, **flags)

    def load_balanced_view(self, targets: Targets = None, **flags: Any) -> LoadBalancedView:
        """Return a view that gives each task to one engine of *targets* (None or ``"all"``: any, also later ones)."""
        if targets is None or (isinstance(targets, str) and targets == "all"):
            return LoadBalancedView(self, None, **flags)
        return LoadBalancedView(self, self.requests.engines.pick(targets)[0], **flags)

    def executor(self, targets: Targets = None) -> Executor:
        """Return a ``concurrent.futures.Executor`` that works on the engines."""
        return self.load_balanced_view(targets).executor

    def activate(self, targets: Targets = "all", suffix: str = "") -> DirectView:
        """Let ``%px`` and its relatives (with *suffix*) in IPython mean a blocking view of *targets*; return it."""
        view = self.direct_view(targets, block=True)
        view.activate(suffix)
        return view

    # --- waiting -----------------------------------------------------------------------------

    @property
    def outstanding(self) -> set[str]:
        """The ids of the tasks whose results have not come."""
        return set(self.requests.pending)

    def wait_for_engines(
        self,
        n: int | None = None,
        *,
        timeout: float | None = -1,
        block: bool = True,
        interactive: bool | None = None,
        widget: bool | None = None,  # noqa: ARG002 - the bar is one in a notebook, and text elsewhere
    ) -> Future[None] | None:
        """Wait until at least *n* engines (default: as many as the client's cluster was started with) are there.

        With ``block=False`` return a future. *interactive*: show a progress bar (default: inside IPython,
        unless ``IPP_NONINTERACTIVE`` is set).

        Raises:
            TimeoutError: too few came in *timeout* seconds.
            EngineError: an engine left meanwhile.
        """
        n = n if n is not None else getattr(self.cluster, "n", None)
        if n is None:
            raise TypeError("wait_for_engines() needs a number: this client was not made by a Cluster")
        from ippmpi.client.waiting import wait_for_engines

        usual = running_shell() is not None and not noninteractive()
        show = block and (usual if interactive is None else interactive)
        return wait_for_engines(self.requests.engines, n, seconds(timeout), block=block, interactive=show)

    def wait(self, jobs: Any = None, timeout: float | None = -1) -> bool:
        """Wait for *jobs*; return whether all ended.

        None: everything outstanding; task ids, places in the history, results, any futures, or several of these.
        """
        from ippmpi.client.waiting import wait_for_jobs

        return wait_for_jobs(self.requests.pending, self._wanted(jobs), seconds(timeout))

    # --- what is stored ----------------------------------------------------------------------

    def results(
        self,
        *,
        label: str | None = None,
        state: str | None = None,
        own: bool | None = None,
        limit: int = 1000,
        timeout: float = ANSWER_S,
    ) -> list[StoredResult]:
        """List what the controller has stored, of all clients, also of those that are gone; the oldest first.

        Only those with this *label*, in this *state* (``pending``, ``ok``, ``failed``, ``lost``), of this client
        (``own=True``) or of others (False); of these the youngest *limit*. ``get_result`` gives the values.
        """
        return self._stored.results(label=label, state=state, own=own, limit=limit, timeout=timeout)

    def get_result(
        self,
        indices_or_msg_ids: Any = None,
        block: bool | None = None,
        owner: bool = True,  # noqa: ARG002 - kept for old programs; results belong to whoever holds them
        *,
        timeout: float = ANSWER_S,
    ) -> Any:
        """Return the AsyncResult of a task id, a place in the history, a result, or several (None: the last call).

        It may be a task of another client or of a process that is gone: then its value and output come from the
        store, and what still runs is followed. An id of one task on one engine gives a bare value, else a list.

        Raises:
            LookupError: the controller does not know a task of that name (any more).
            TimeoutError: it did not answer in *timeout* seconds.
        """
        single = isinstance(indices_or_msg_ids, str | int | AsyncResult | None)
        result = self._stored.get(self._names(indices_or_msg_ids), timeout, single=single)
        return result.get() if (self.block if block is None else block) else result

    # --- control -----------------------------------------------------------------------------

    def send_signal(
        self, sig: int | str, targets: Targets = None, block: bool | None = None, timeout: float = ANSWER_S
    ) -> Any:
        """Deliver a POSIX signal (a number or a name) to engines, whatever they are doing.

        ``SIGINT`` raises KeyboardInterrupt in the code that runs; an idle engine ignores it.
        """
        number = getattr(signals, sig, None) if isinstance(sig, str) else operator.index(sig)
        if not isinstance(number, int):
            raise ValueError(f"no signal {sig!r}; use a number or a name as 'SIGINT'")
        ids = self._ids(targets)
        return self._ask("send_signal", lambda n: SendSignal(n, int(number), ids), block, timeout)

    def abort(
        self,
        jobs: str | AsyncResult | Iterable[Any] | None = None,
        targets: Targets = None,
        block: bool | None = None,
        timeout: float = ANSWER_S,
    ) -> Any:
        """Take back *jobs* (None: all of this client) that have not started; their results become ``TaskAborted``."""
        try:
            tasks = None if jobs is None else task_ids(jobs)
        except ValueError:
            raise TypeError(f"abort() needs a task id, an AsyncResult or a list of these, not {jobs!r}") from None
        ids = self._ids(targets)
        return self._finish("abort", self.requests.abort(tasks, ids), block, timeout)

    def clear(self, targets: Targets = None, block: bool | None = None) -> Any:
        """Empty the namespaces of engines (None: all)."""
        return self.direct_view("all" if targets is None else targets).clear(
            block=self.block if block is None else block
        )

    def shutdown(
        self,
        targets: Targets = "all",
        restart: bool = False,
        hub: bool = False,
        block: bool | None = None,
        timeout: float = ANSWER_S,
    ) -> Any:
        """End engines in good order; with ``hub=True`` all of them, the controller, and this client."""
        if restart:
            raise NotImplementedError(
                "engines are restarted by their Cluster (restart_engines) or client.worlds[...].restart()"
            )
        ids = None if hub else self._ids(targets)
        answer = self._ask("shutdown", lambda n: Shutdown(n, ids, controller=hub), block or hub, timeout)
        if hub:
            self.close()
        return answer

    def queue_status(
        self, targets: Targets = "all", verbose: bool = False, timeout: float = ANSWER_S
    ) -> dict[int | str, Any]:
        """Return ``{engine_id: {"queue", "tasks", "completed"}, "unassigned"}``: counts, or ids if *verbose*.

        An int target gives its inner dict.
        """
        ids, single = self.requests.engines.pick(targets)
        arguments = msgspec.msgpack.encode({"targets": ids, "verbose": verbose})
        answer = self._ask("queue_status", lambda n: Query(n, "queue_status", arguments), True, timeout)
        status: dict[int | str, Any] = {_number(key): value for key, value in answer.items()}
        return status[ids[0]] if single else status

    def _ids(self, targets: Targets) -> list[int] | None:
        """Return the ids of *targets*, None for all."""
        if targets is None or (isinstance(targets, str) and targets == "all"):
            return None
        return self.requests.engines.pick(targets)[0]

    def _ask(self, what: str, question: Any, block: bool | None, timeout: float) -> Any:
        return self._finish(what, self.requests.ask(question), block, timeout)

    def _finish(self, what: str, answer: Future[Any], block: bool | None, timeout: float) -> Any:
        if not (self.block if block is None else block):
            return answer
        try:
            return answer.result(timeout)
        except TimeoutError:
            raise TimeoutError(f"the controller did not answer {what!r} within {timeout:g} s") from None

    def clear_on_start(self) -> None:
        """Forget what ``DirectView.on_start`` was told; engines that join from now on begin without it."""
        self.requests.beginnings.clear()

    # --- the end -----------------------------------------------------------------------------

    def close(self, linger: float | None = None) -> None:  # noqa: ARG002 - what was said before is always sent
        """Leave the cluster, which goes on; what is pending fails with ``ConnectionError``. May be repeated."""
        self._finalizer()

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close the client, not the cluster."""
        self.close()

    def __repr__(self) -> str:
        """Show the number of engines."""
        return f"<Client {self.id}: {len(self)} engines{'' if self._finalizer.alive else ', closed'}>"


def _leave(requests: Requests, way: contextlib.ExitStack) -> None:
    with way:
        requests.close()


def _connector(dial: Any) -> Any:
    def connect(receiver: Receiver) -> Transport:
        return LinkTransport(dial, receiver)

    return connect


def _number(key: int | str) -> int | str:
    return int(key) if isinstance(key, str) and key.lstrip("-").isdigit() else key
