"""The engine process: its place in the MPI world, its two threads, its end.

The main thread runs the user's code and is the only one of ours that calls MPI. While it is idle it
drives the link's loop itself, which saves a call two changes of threads; while it is busy the I/O
thread ("ippmpi-engine-io") does, so the engine always answers.
"""

from __future__ import annotations

import builtins
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import msgspec

from ippmpi import binding, config, datapub
from ippmpi.connection import host_prefix, load, node_folder, on_this_host
from ippmpi.engine.agents import Successors, ensure_agent, replace_agent
from ippmpi.engine.exchange import Exchange
from ippmpi.engine.interrupts import HANDLED, Interrupts
from ippmpi.engine.mpi import WorldFacts, names, world_facts
from ippmpi.engine.namespace import Namespace
from ippmpi.engine.options import Options
from ippmpi.engine.output import Output, capture
from ippmpi.engine.publishing import Publishing
from ippmpi.engine.requests import Requests
from ippmpi.engine.runner import Runner
from ippmpi.engine.shell import Shell
from ippmpi.engine.startup import Startup
from ippmpi.errors import IppmpiError, ProtocolError
from ippmpi.identity import host_name, identify
from ippmpi.net.conversation import Delivery
from ippmpi.net.link import Dial, LinkState, LinkThread
from ippmpi.net.loop import Timer
from ippmpi.wire.handles import set_resolver
from ippmpi.wire.messages import (
    Assigned,
    ContentReady,
    Display,
    EngineReady,
    Fetch,
    Fetched,
    Free,
    Message,
    Published,
    Reply,
    Revoke,
    Run,
    StopEngine,
)

if TYPE_CHECKING:
    from ippmpi.engine.kernel import Kernel

FIRST_CONTACT_S = 60.0
"""Seconds in which a new engine must reach its agent."""

FIRST_LOOK_S = 5.0
"""Seconds after which a new engine looks whether the agent that some rank started still lives."""

ALONE_S = 15 * 60.0
"""Seconds after which an engine whose agent is gone leaves."""

TOGETHER_S = 0.001
"""How long the answer to a quick task waits for those of the next ones."""

RENEW_S = 60.0
"""Seconds that a request whose content broke off with an agent waits to be sent again."""

_log = logging.getLogger(__name__)


class NodePlace(NamedTuple):
    """Where this node's agent is: its files in ``folder`` start with ``prefix``; ``key`` tells it its own engines.

    ``shared``: the controller is on this node too and can take files over.
    """

    folder: Path
    prefix: str
    key: str
    shared: bool = False

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return f"unix://{self.folder / self.prefix}.agent"


class Home(NamedTuple):
    """Where the user's code runs, before and after the engine has joined."""

    namespace: Namespace
    shell: Shell

    @classmethod
    def enter(cls) -> Home:
        """Make this process's ``__main__``, and a shell for it that shows nothing yet."""
        namespace = Namespace()
        shell = Shell(namespace, _show_nothing)
        namespace.enter()
        builtins.__dict__["display"] = shell.display
        return cls(namespace, shell)


def _show_nothing(bundle: dict[str, object]) -> None:
    """Drop a display: nobody is there to see it."""


class Engine:
    """One rank, from the moment it knows its place."""

    def __init__(self, options: Options, facts: WorldFacts, output: Output, place: NodePlace, home: Home) -> None:
        """Belong to the agent at *place*; ``run`` does the rest."""
        self._options = options
        self._facts = facts
        self._output = output
        self.shell = home.shell
        self.shell.publish = self._display
        self.shell.engine_id = lambda: self._runner.engine
        self._place = place
        self._kernel: Kernel | None = None
        self._interrupts = Interrupts(self._stop)
        self._runner = Runner(
            options.world,
            facts,
            namespace=home.namespace,
            shell=home.shell,
            output=output,
            interrupts=self._interrupts,
        )
        self._runner.folder = str(place.folder) if place.shared else ""
        self._runner.kept.cluster = place.key[:16]
        self._exchange = exchange = Exchange(self._runner.kept, self, self._runner.folder)
        set_resolver(exchange.resolve)
        self._requests = requests = Requests(self._runner, self._send, self._interrupts.interrupt)
        self._handlers: dict[type[Message], Callable[[Delivery], None]] = {
            Run: requests.on_run,
            Revoke: requests.on_revoke,
            Assigned: self._on_assigned,
            ContentReady: self._on_content_ready,
            Fetch: exchange.on_fetch,
            Fetched: exchange.on_fetched,
            Free: exchange.on_free,
            StopEngine: self._on_stop_engine,
        }
        self._ended_because = ""
        self._alone: Timer | None = None
        about = {"world": options.world, "rank": facts.rank, "pid": os.getpid()}
        dial = Dial((place.endpoint,), "engine", f"engine:{facts.rank}", about, key=place.key)
        self._link = LinkThread("ippmpi-engine-io", dial, on_message=self._on_message, on_state=self._on_state)
        start = partial(replace_agent, place.folder, place.prefix, file=options.file, world=options.world)
        self._successors = Successors(start, self._link.loop.call_later)
        loop = self._link.loop
        self._publishing = Publishing(self._runner, self._send_published, loop.call_soon, loop.call_later)
        datapub.connect(self._publishing.publish)
        binding.connect(self._bind_kernel)

    def _connect(self) -> None:
        # a thread inherits the mask; signals must reach the main thread, or a sleep there would go on
        before = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        try:
            self._link.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._link.call_soon(self._expect_agent)

    def _expect_agent(self) -> None:
        self._wait_for_agent(FIRST_CONTACT_S)
        if self._link.link.state is LinkState.CONNECTING:
            self._successors.want(FIRST_LOOK_S)

    # --- main thread -----------------------------------------------------------------------------

    def run(self) -> str:
        """Serve until there is nothing more to do; return why, if it was not a normal stop."""
        self._interrupts.install()
        self._connect()
        self._output.prepare()
        requests, link = self._requests, self._link
        while not requests.stopped:
            link.drive(requests.news)
            self._run_some()
            if requests.news():
                link.turn()  # what was answered leaves, what was taken back is
        self._interrupts.leave()
        if self._kernel is not None:
            self._kernel.close()
        self._link.close()
        return self._ended_because

    def _run_some(self) -> None:
        """Run what is there, one after the other, until the first answers should leave."""
        runner, requests, post = self._runner, self._requests, self._link.call_soon
        until = time.monotonic() + TOGETHER_S
        while (work := requests.take()) is not None:
            if work.op is None:
                self._run_aside(work.content)
                return
            self._output.begin(work.task, known=work.sole)
            outcome = runner.run(work.task, work.op, work.content)  # type: ignore[arg-type] # no call, see above
            del work  # or its content would live until the next one comes
            post(partial(self._send, outcome.reply, outcome.memory))
            del outcome
            self._interrupts.restore()
            if time.monotonic() >= until:
                return

    def _run_aside(self, call: object) -> None:
        self._runner.task = ""  # nobody's: it has no output and no data for a client
        cast("Callable[[], None]", call)()
        self._interrupts.restore()

    def _queue_aside(self, name: str, call: Callable[[], None]) -> None:
        self._link.call_soon(partial(self._requests.add, name, call))

    def _bind_kernel(self, ip: str) -> str:
        """Be a Jupyter kernel too, see ``binding.bind_kernel``. Main thread."""
        from ippmpi.engine.kernel import Host, Kernel

        if self._kernel is None:
            place = self._place
            host = Host(self.shell, self._output, self._queue_aside, self._runner.guarded, self._interrupts.interrupt)
            self._kernel = Kernel(host, place.folder, place.prefix, self._facts.rank, ip)
        elif self._kernel.ip != ip:
            raise RuntimeError(
                f"this engine is a kernel already, at {self._kernel.ip or 'Unix sockets'}: {self._kernel.file}"
            )
        return str(self._kernel.file)

    def _stop(self) -> None:
        """Stop, from a signal handler in the main thread, which may be asleep in the loop."""
        self._requests.stop()
        self._link.call_soon(self._wake)

    def _wake(self) -> None:
        """Do nothing: being called ends a sleep."""

    def _display(self, bundle: dict[str, object]) -> None:
        """Send a display of the running task, in order with its reply."""
        if self._kernel is not None and self._kernel.busy:
            self._kernel.display(bundle)
            return
        self._output.flush()  # what was printed before comes first
        data = msgspec.msgpack.encode(bundle, enc_hook=repr)
        message = Display(self._runner.task, self._runner.engine, data)
        self._link.call_soon(partial(self._link.conversation.send, message))

    def wait(self, until: Callable[[], bool]) -> None:
        """Wait in the main thread, for what is heard on the link, while a task runs; it may be interrupted."""
        self._interrupts.defer(
            self._link.drive, lambda: until() or self._requests.stopped, lambda: self._link.call_soon(self._wake)
        )

    def call_soon(self, call: Callable[[], None]) -> None:
        """Have *call* called by the loop; any thread."""
        self._link.call_soon(call)

    def send(self, message: Message, on_ack: Callable[[], None] | None = None) -> None:
        """Send a message; the loop only."""
        self._link.conversation.send(message, on_ack=on_ack)

    def _send_published(self, message: Published) -> None:
        self._link.conversation.send(message)

    # --- the loop, whoever runs it -----------------------------------------------------------------

    def _on_message(self, delivery: Delivery) -> None:
        try:
            handler = self._handlers.get(type(delivery.message))
            if handler is None:
                raise ProtocolError(f"{type(delivery.message).__name__} is not for an engine")
            handler(delivery)
        except ProtocolError as error:
            _log.warning("dropped a message: %s", error)
            delivery.done()
        except Exception:  # a defect of ours; the rest of its batch, and the engine, must not be lost with it
            _log.exception("dropped a message: %s", type(delivery.message).__name__)
            delivery.done()

    def _on_stop_engine(self, delivery: Delivery) -> None:
        message = delivery.message
        assert isinstance(message, StopEngine)
        self._ended_because = message.reason
        self._requests.on_stop_engine(delivery)

    def _on_assigned(self, delivery: Delivery) -> None:
        self._requests.on_assigned(delivery)
        self._runner.kept.engine = self._runner.engine

    def _on_content_ready(self, delivery: Delivery) -> None:
        message = delivery.message
        assert isinstance(message, ContentReady)
        if self._exchange.content_ready(message):
            delivery.done()
        else:
            self._requests.on_content_ready(delivery)

    def _send(self, reply: Reply, memory: int | None = None) -> None:
        task, attempt = reply.task, self._requests.replied(reply.task)
        if attempt:
            reply = msgspec.structs.replace(reply, attempt=attempt)

        self._publishing.flush()

        def on_ack() -> None:  # it keeps no reply: that may be large, and the session has it already
            self._requests.acknowledged(task, attempt)
            if memory is not None:
                os.close(memory)

        self._link.conversation.send(reply, on_ack=on_ack)

    def _on_state(self, state: LinkState, text: str) -> None:
        if self._alone is not None:
            self._alone.cancel()
            self._alone = None
        self._successors.cease()
        if state is LinkState.OPEN:
            if self._link.conversation.fresh:  # also an agent that was started anew
                waiting = self._requests.agent_changed()
                if waiting:
                    self._link.loop.call_later(RENEW_S, lambda: self._requests.give_up(waiting))
                self._link.conversation.send(self._introduction(), urgent=True)
                self._exchange.agent_changed()
        elif state is LinkState.CONNECTING:
            self._wait_for_agent(ALONE_S)
            if not self._requests.stopped:
                self._successors.want()
        elif state is LinkState.REFUSED:
            self._end(f"the agent refuses this engine: {text}")

    def _wait_for_agent(self, patience_s: float) -> None:
        if self._alone is None and self._link.link.state is LinkState.CONNECTING:
            why = f"no agent on {self._facts.host} for {patience_s:.0f} s; see its log in the node folder"
            self._alone = self._link.loop.call_later(patience_s, lambda: self._end(why))

    def _end(self, why: str) -> None:
        self._ended_because = why
        self._requests.stop()

    def _introduction(self) -> EngineReady:
        facts, output, pid = self._facts, self._output, os.getpid()
        return EngineReady(
            world=self._options.world,
            rank=facts.rank,
            size=facts.size,
            local_size=facts.local_size,
            pid=pid,
            host=facts.host,
            started=identify(pid).started,
            stdout_fd=output.stdout_fd,
            stderr_fd=output.stderr_fd,
            parent_records_exit="IPPMPI_PARENT" in os.environ,
            engine=self._runner.engine,
            tasks=self._requests.open_tasks(),
            finished=self._requests.finished_tasks(),
            printing=output.owner,
        )


def main(argv: Sequence[str]) -> int:
    """Be an engine; return the exit code. What stops it from starting is its last line on standard error."""
    try:
        options = Options.parse(argv)
        settings = options.settings()
        _die_with_parent()
        options = options._replace(file=os.path.abspath(options.file))  # user code may change the folder
        place = _prepare(options)
        facts = world_facts(options.size, host_name(), local_rank=options.local_rank)
    except (IppmpiError, ValueError, OSError) as error:
        _say(2, str(error))
        return 1
    sys.path.insert(0, "")  # as at any prompt; left out until now so that no file there shadows what starts us
    home = Home.enter()
    home.namespace.offer(names(facts))
    Startup(home.namespace, home.shell, facts, _tell).run(settings, config.python_startup())
    output = capture()  # not before: nobody reads the pipes until the agent knows this engine
    _enable_faulthandler()
    _log_to(output.last_words, settings.log_level)
    engine = Engine(options, facts, output, place, home)
    why = engine.run()
    if why:
        _say(output.last_words, why)
    return 1 if why else 0


_locks: list[int] = []  # open as long as this process lives


def _prepare(options: Options) -> NodePlace:
    connection = load(options.file, role="engine")
    place = NodePlace(node_folder(connection.folder_key), host_prefix(), connection.public, on_this_host(connection))
    lock = ensure_agent(place.folder, place.prefix, file=options.file, world=options.world)
    if lock is not None:
        _locks.append(lock)
    return place


def _die_with_parent() -> None:
    """Have the kernel end this process with its parent, where the parent is a shell that cannot see to it."""
    if os.environ.get("IPPMPI_PARENT") != "sh":
        return
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
    if str(os.getppid()) != os.environ.get("IPPMPI_PARENT_PID"):
        raise ProcessLookupError("the parent of this rank has died")


def _enable_faulthandler() -> None:
    import faulthandler

    faulthandler.enable(2)


def _log_to(fd: int, level: str) -> None:
    """Log what our own code has to say to the standard error this process was started with."""
    handler = logging.StreamHandler(open(fd, "w", closefd=False))  # noqa: SIM115 - open as long as this process lives
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("ippmpi")
    logger.addHandler(handler)
    logger.propagate = False  # the root logger is the user's
    logger.setLevel(max(logging.getLevelNamesMapping().get(level.upper(), logging.WARNING), logging.WARNING))


def _tell(text: str) -> None:
    """Write to the standard error that this process was started with, in one piece; before it is captured."""
    sys.stderr.flush()
    os.write(2, text.encode(errors="backslashreplace"))


def _say(fd: int, text: str) -> None:
    from ippmpi.launching import ENGINE_ERROR

    os.write(fd, f"{ENGINE_ERROR} {text}\n".encode(errors="backslashreplace"))
