"""``Cluster``: a controller and its sets of engines, started, watched and ended as one."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import secrets
import signal
import time
import warnings
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from ippmpi import config, connection
from ippmpi.errors import ClusterError, EngineError, IppmpiError
from ippmpi.launching import Launcher

from . import files, leftovers
from .control import end_process, routable_address, start_controller
from .options import full_names
from .restarting import POLICIES, Restarter
from .sets import log_file
from .state import ClusterState
from .twins import coroutine_of

if TYPE_CHECKING:
    from ippmpi.client.client import Client

log = logging.getLogger(__name__)

LOOK_S = 0.1  # how often a launcher is looked at while engines are waited for

MPIEXEC_ENDS_S = 0.5  # what a launcher's own program may take after its last rank has ended


class Cluster(ClusterState):
    """A controller and its engines.

    Options are the fields of ``config.ClusterSettings``: ``n``, ``engines`` ("mpi", "local"),
    ``profile`` or ``profile_dir``, ``cluster_id`` (default: a new one), ``hosts``, ``mpiexec``,
    ``controller_ip``, ``work_dir``, ``engine_timeout`` and so on. With ``restart="always"`` a set of
    which an engine ends badly is started again under the same engine ids, as long as this process
    lives (at most 5 times in 10 minutes, with growing pauses). Each method that ends in ``_sync``
    blocks; the one without is the coroutine of the same. As a context manager it starts, yields a
    connected client, and stops.
    """

    def __init__(
        self, *, environment: Mapping[str, str] | None = None, shutdown_atexit: bool = True, **options: Any
    ) -> None:
        """Say what to start; nothing is started yet. ``environment`` is added to the engines' own."""
        super().__init__(environment=environment, shutdown_atexit=shutdown_atexit, **options)
        if self.settings.restart not in POLICIES:
            raise ValueError(f"restart must be one of {', '.join(POLICIES)}, not {self.settings.restart!r}")
        self._clients: weakref.WeakSet[Client] = weakref.WeakSet()
        self._restarter: Restarter | None = None

    # --- starting --------------------------------------------------------------------------------

    def start_controller_sync(self) -> None:
        """Start the controller; it is ready when this returns.

        Raises:
            ClusterError: one of this cluster id runs already.
            LaunchError: it did not start.
        """
        with self._lock:
            if self.running:
                raise ClusterError(f"{self!r} has its controller already")
            self.profile_dir.mkdir(parents=True, exist_ok=True)
            if self.cluster_file is not None:
                files.claim(self.cluster_file, self.to_record(), leftovers.end_leftovers)
            output = log_file(self.settings, "ipcontroller", secrets.token_hex(2))
            try:
                self._refuse_second()
                self.controller = start_controller(self.settings, self._controller_ip(), output)
                self._controller_log = str(output)
                found = self._connection("client")
                self._token = found.token
                self._sets.use(os.path.dirname(found.socket))
                self.write_cluster_file()
            except BaseException:
                self._end_controller(0.0)
                raise
            if self.shutdown_atexit:
                atexit.register(self._at_exit)

    def restore_controller_sync(self) -> None:
        """Start the controller again after it was killed: it goes on where it ended, with the same engines.

        Raises:
            ClusterError: it runs, or there was none; or the cluster was stopped in the meantime.
            LaunchError: it did not start.
        """
        with self._lock:
            if self.controller is None or self.running or self.cluster_file is None:
                raise ClusterError(f"{self!r} has no controller that has ended")
            output = Path(self._controller_log)
            self.controller = start_controller(self.settings, self._controller_ip(), output, restore=True)
            try:
                # others may have started or ended sets of engines, which this process does not know
                record = files.read(self.cluster_file)
            except FileNotFoundError:
                self._end_controller(0.0)
                raise ClusterError(f"{self!r} was stopped while its controller was being started again") from None
            files.write(self.cluster_file, msgspec.structs.replace(record, controller=self.controller.identity))

    def start_engines_sync(self, n: int | None = None, engine_set_id: str | None = None, **options: Any) -> str:
        """Start a set of *n* engines, one MPI world; return its id (default: the next number).

        *options* replace the cluster's own for this set: ``engines``, ``hosts``, ``mpiexec``, ``work_dir``.

        Raises:
            ClusterError: no controller runs, the id is taken, or the controller cannot be reached from the hosts.
            LaunchError: the launcher could not start; see ``check`` for one that fails later.
        """
        with self._lock:
            if not self.running:
                raise ClusterError(f"no controller of cluster {self.cluster_id!r} runs: start_controller() first")
            changes = full_names(options) | {"n": self.n if n is None else n}
            settings = config.replace(self.settings, **changes)
            self.n = settings.n
            key = self._sets.start(self._connection("engine"), settings, self.environment, engine_set_id or "")
            self.write_cluster_file()
            if self.settings.restart == "always" and self._restarter is None:
                self._restarter = Restarter(self._dead_sets, self._restart_set)
            return key

    def start_cluster_sync(self, n: int | None = None) -> Self:
        """Start the controller, if there is none, and one set of engines."""
        started = not self.running
        if started:
            self.start_controller_sync()
        try:
            self.start_engines_sync(n)
        except BaseException:
            if started:
                self.stop_cluster_sync()
            raise
        return self

    def start_and_connect_sync(self, n: int | None = None, activate: bool = False) -> Client:
        """Start everything, wait for the engines, return a client. On failure all that was started is stopped.

        *activate* registers the magics (``%px``) for all engines.

        Raises:
            LaunchError: the engines' launcher failed: cause and last output.
            TimeoutError: the engines did not join within ``engine_timeout_s`` seconds.
        """
        started, before = not self.running, set(self.engines)
        self.start_cluster_sync(n)
        try:
            client = self.connect_client_sync()
            self.wait_for_engines_sync(client, self._sets.count())
            if activate:
                client.activate()
        except BaseException:
            if started:
                self.stop_cluster_sync()
            else:
                self._sets.end(self.engines.keys() - before, 0.0)
                self.write_cluster_file()
            raise
        return client

    def connect_client_sync(self, **options: Any) -> Client:
        """Return a new client; *options* are those of ``Client``. It is closed when the cluster stops."""
        from ippmpi.client.client import Client

        client = Client(str(connection.path(self.profile_dir, "client", self.cluster_id)), cluster=self, **options)
        self._clients.add(client)
        return client

    def wait_for_engines_sync(self, client: Client, n: int, timeout_s: float | None = None) -> None:
        """Wait until *client* has *n* engines, and watch those who should start them meanwhile.

        Raises:
            LaunchError: a launcher failed.
            TimeoutError: fewer came within *timeout_s* seconds (default: ``engine_timeout_s``).
        """
        timeout_s = self.settings.engine_timeout_s if timeout_s is None else timeout_s
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                client.wait_for_engines(n, timeout=LOOK_S)
                for text in self._sets.complaints():
                    warnings.warn(f"at the start of {text}", RuntimeWarning, stacklevel=2)
                self._sets.joined()
                return
            except TimeoutError:
                self.check()
            except EngineError:  # one came and went: its launcher will tell more
                self._sets.wait(1.0, lambda: self.running)
                self.check()
                raise
            if time.monotonic() >= deadline:
                have = f"{len(client.ids)} of {n} engines joined within {timeout_s:g} s"
                raise TimeoutError(f"{have}; output so far:\n{self._sets.said() or '(none)'}")

    def check(self) -> None:
        """Raise ClusterError if the controller has ended, LaunchError if a set has that had not joined yet."""
        if not self.running:
            raise ClusterError(f"the controller of cluster {self.cluster_id!r} has ended; log: {self._controller_log}")
        self._sets.check()

    # --- ending ----------------------------------------------------------------------------------

    def stop_engines_sync(self, engine_set_id: str | None = None) -> None:
        """End a set of engines (default: all); raise KeyError if there is no such set.

        They are asked to finish (``MPI_Finalize``), and killed if they have not after ``stop_timeout_s``.
        """
        with self._lock:
            keys = list(self._sets.select(engine_set_id))
            worlds = self._sets.worlds(engine_set_id)
            with contextlib.ExitStack() as stack:
                if worlds and self.running:
                    client = stack.enter_context(self._visit())
                    targets = _targets(client, worlds)
                    if targets:
                        client.shutdown(targets, block=False)
                        self._sets.wait(self.settings.stop_timeout_s, lambda: self.running, keys)
                self._sets.end(keys, MPIEXEC_ENDS_S)
            if self.running:
                self.write_cluster_file()

    def stop_controller_sync(self) -> None:
        """End the controller, and with it every engine that needs it; nothing happens if there is none."""
        with self._lock:
            if self.controller is not None:
                self.controller.signal(signal.SIGTERM)
                self._end_controller(self.settings.stop_timeout_s)

    def stop_cluster_sync(self) -> None:
        """End everything, in order: clients, engines (told by the controller), controller. May be called again."""
        self._leave_sets()
        with self._lock:
            atexit.unregister(self._at_exit)
            for client in list(self._clients):
                client.close()
            self._clients.clear()
            # the controller tells the agents, who end their engines well; without it nobody will
            if self.controller is not None and self.controller.signal(signal.SIGTERM):
                self._sets.wait(self.settings.stop_timeout_s, lambda: self.running)
                self._sets.end(list(self.engines), MPIEXEC_ENDS_S)
            self._sets.end(list(self.engines), 0.0)
            if self.controller is not None:
                self._end_controller(self.settings.stop_timeout_s)

    def restart_engines_sync(self, engine_set_id: str | None = None) -> None:
        """End and start again a set (default: all), with the same id, number, options, and ids of its engines."""
        with self._lock:
            for key, launcher in self._sets.select(engine_set_id).items():
                self.stop_engines_sync(key)
                self._start_again(key, launcher)

    def restart_world_sync(self, world: str) -> None:
        """End and start again the set that is *world*; raise ClusterError if there is none. See ``World.restart``."""
        with self._lock:
            keys = [key for key, launcher in self.engines.items() if launcher.spec.world == world]
            if not keys:
                have = ", ".join(launcher.spec.world for launcher in self.engines.values()) or "none"
                raise ClusterError(f"{self!r} has not started world {world!r}, or has stopped it; it has {have}")
            self.restart_engines_sync(keys[0])

    def signal_engines_sync(self, signum: int | str, engine_set_id: str | None = None) -> None:
        """Send a POSIX signal to the engines of a set (default: all), by way of their agents.

        mpiexec cannot pass on every signal; some end the whole job.
        """
        worlds = self._sets.worlds(engine_set_id)
        with self._visit() as client:
            client.send_signal(signum, _targets(client, worlds), block=True)

    start_controller = coroutine_of(start_controller_sync)
    restore_controller = coroutine_of(restore_controller_sync)
    start_engines = coroutine_of(start_engines_sync)
    start_cluster = coroutine_of(start_cluster_sync)
    start_and_connect = coroutine_of(start_and_connect_sync)
    connect_client = coroutine_of(connect_client_sync)
    wait_for_engines = coroutine_of(wait_for_engines_sync)
    stop_engines = coroutine_of(stop_engines_sync)
    stop_controller = coroutine_of(stop_controller_sync)
    stop_cluster = coroutine_of(stop_cluster_sync)
    restart_engines = coroutine_of(restart_engines_sync)
    restart_world = coroutine_of(restart_world_sync)
    signal_engines = coroutine_of(signal_engines_sync)

    def detach(self) -> None:
        """Leave everything running when this process ends."""
        self._leave_sets()
        atexit.unregister(self._at_exit)
        self._sets.detach()
        if self.controller is not None:
            self.controller.detach()

    # --- context managers ------------------------------------------------------------------------

    def __enter__(self) -> Client:
        """Start, and return a client that has all engines."""
        return self.start_and_connect_sync()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop everything."""
        self.stop_cluster_sync()

    async def __aenter__(self) -> Client:
        """Start, and return a client that has all engines."""
        return await self.start_and_connect()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop everything."""
        await self.stop_cluster()

    # --- supervision -----------------------------------------------------------------------------

    def _dead_sets(self) -> list[str]:
        return self._sets.dead() if self.running else []

    def _restart_set(self, key: str) -> None:
        with self._lock:
            if key not in self._dead_sets():  # somebody has ended or restarted it in the meantime
                return
            launcher = self.engines[key]
            log.warning("%s; starting them again", launcher.failure("they ended by themselves"))
            try:
                self._sets.end([key], 0.0)
                self._start_again(key, launcher)
                self._sets.joined()  # or its next end would be taken for a failed start
            except (IppmpiError, OSError) as error:
                log.error("engine set %r cannot be started again: %s", key, error)

    def _leave_sets(self) -> None:
        """Start nothing again from now on."""
        if self._restarter is not None:
            self._restarter.stop()
            self._restarter = None

    def _start_again(self, key: str, launcher: Launcher) -> None:
        """Start the set that *launcher* had started and that has ended."""
        spec = launcher.spec
        settings = config.replace(
            self.settings,
            n=spec.n,
            engines=launcher.found_by(),
            hosts=spec.hosts,
            mpiexec=spec.starter,
            work_dir=spec.work_dir,
        )
        self._sets.start(self._connection("engine"), settings, self.environment, key, world=spec.world)
        self.write_cluster_file()

    # --- parts -----------------------------------------------------------------------------------

    def _refuse_second(self) -> None:
        """Raise ClusterError if a controller of this id runs that was started by hand."""
        file = connection.path(self.profile_dir, "client", self.cluster_id)
        if file.exists() and not connection.stale(found := self._connection("client")):
            raise ClusterError(
                f"a controller of cluster {self.cluster_id!r} runs already (pid {found.controller.pid} on "
                f"{found.controller.host}); stop it, or choose another cluster id"
            )

    def _controller_ip(self) -> str:
        if self.settings.controller_ip:
            return self.settings.controller_ip
        remote = leftovers.launcher_class(self.settings.engines).remote(self.settings.hosts)
        return routable_address(self.settings.hosts) if remote else ""

    def _end_controller(self, timeout_s: float) -> None:
        self.remove_cluster_file()  # before a kill, or its supervisor would start it again
        code = 0
        if self.controller is not None:
            end_process(self.controller, timeout_s)
            code = self.controller.poll() or 0
            self.controller = None
            leftovers.remove_connection_files(self.profile_dir, self.cluster_id, self._token)
            leftovers.remove_folders(self._sets.folders, wait_s=leftovers.AGENT_LEAVES_S)
        if code == 0:
            leftovers.remove_log(self._controller_log)

    @contextlib.contextmanager
    def _visit(self) -> Iterator[Client]:
        """Open a client for one request."""
        client = self.connect_client_sync()
        self._clients.discard(client)
        try:
            yield client
        finally:
            client.close()

    def _at_exit(self) -> None:
        self.stop_cluster_sync()


def _targets(client: Client, worlds: set[str]) -> list[int]:
    return [e.id for e in client.requests.engines.records.values() if e.world in worlds]
