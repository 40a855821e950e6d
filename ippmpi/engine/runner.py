"""Runs one request of a user and says how it ended."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import msgspec

from ippmpi import clock
from ippmpi.engine.failures import describe
from ippmpi.engine.interrupts import Interrupts
from ippmpi.engine.kept import Keeping
from ippmpi.engine.memory import Unread, store
from ippmpi.engine.mpi import WorldFacts
from ippmpi.engine.namespace import Namespace
from ippmpi.engine.output import Output
from ippmpi.engine.shell import Shell
from ippmpi.wire import pickling
from ippmpi.wire.messages import Content, Failure, Reply
from ippmpi.wire.pickling import pack, unpack

if TYPE_CHECKING:
    from typing_extensions import Buffer


T = TypeVar("T")

Call = tuple[Callable[..., object], tuple[object, ...], dict[str, object]]


class Outcome(NamedTuple):
    """A reply, and the memory file that has to stay open until the reply's next owner has it."""

    reply: Reply
    memory: int | None = None


class Runner:
    """The engine's hands: one table of operations.

    Attributes:
        engine: this engine's id in the cluster, -1 until it is assigned.
        task: the task that runs now, or "".
        kept: what tasks have left here.
        folder: where a large result may become a file that a controller on this host takes over, or "".
    """

    def __init__(
        self,
        world: str,
        facts: WorldFacts,
        *,
        namespace: Namespace,
        shell: Shell,
        output: Output | None = None,
        interrupts: Interrupts | None = None,
    ) -> None:
        """Run on *namespace*; flush *output* after each request; tell *interrupts* whose code runs."""
        self.folder = ""
        self.engine = -1
        self.task = ""
        self._interrupts = interrupts or Interrupts(_nothing)
        self._world = world
        self._facts = facts
        self._namespace = namespace
        self._shell = shell
        self._output = output
        self._pid = os.getpid()
        self.kept = Keeping(world, facts, self._pid)
        self._operations: dict[str, Callable[[Any], object]] = {
            "apply": self.apply,
            "keep": self.keep,
            "execute": self.execute,
            "push": self.push,
            "pull": self.pull,
            "clear": self.clear,
        }

    def run(self, task: str, op: str, content: Buffer | Unread | Failure) -> Outcome:
        """Do *op* with what the blob *content* holds; never raises. A failure instead of content is passed on."""
        started = clock.now()
        self.task = task
        self._namespace.origin = task.rpartition("-")[0]
        value: object = None
        failure = content if isinstance(content, Failure) else None
        if not isinstance(content, Failure):
            value, failure = self._guarded(task, op, content)
        self._tidy()
        outcome = self._outcome(task, value, failure, started)
        self.task = ""
        pickling.use(None)  # what this call was pickled with is nobody else's choice
        return outcome

    def _guarded(self, task: str, op: str, content: Buffer | Unread) -> tuple[object, Failure | None]:
        """Run the user's part: the only place where an interrupt may strike, and where anything may be raised."""
        try:
            try:
                self._interrupts.task = task
                here = content.read() if isinstance(content, Unread) else content  # may take a second
                return (None, here) if isinstance(here, Failure) else (self._perform(op, here), None)
            finally:
                self._interrupts.task = ""
        except BaseException as error:  # sys.exit is the user's too; a second interrupt may strike in the finally
            self._interrupts.task = ""
            return None, describe(error)

    def guarded(self, name: str, call: Callable[[], T]) -> T:
        """Make a *call* to user code that is no request; it may be interrupted by its *name*."""
        try:
            try:
                self._interrupts.task = name
                return call()
            finally:
                self._interrupts.task = ""
        except BaseException:  # a second interrupt may strike in the finally
            self._interrupts.task = ""
            raise
        finally:
            self._namespace.forget_rebound()

    def _perform(self, op: str, content: Buffer) -> object:
        operation = self._operations.get(op)
        if operation is None:
            raise LookupError(f"no operation {op!r}; have {', '.join(self._operations)}")
        pickling.use(content)
        return operation(unpack(content))

    # --- the operations ------------------------------------------------------------------------

    def apply(self, call: Call) -> object:
        """Call a function: ``(function, arguments, keywords)``."""
        function, arguments, keywords = call
        self._shell.start_if_imported()
        return function(*arguments, **keywords)

    def keep(self, call: Call) -> object:
        """Call a function as ``apply`` does, and keep its value here; the result says what that is."""
        self.kept.engine = self.engine
        return self.kept.keep(self.task, self.apply(call))

    def execute(self, request: object) -> object:
        """Run code in the shell: ``{"code", "silent", "filename"}``."""
        wanted = cast("dict[str, str]", request)
        return self._shell.execute(
            wanted["code"], silent=bool(wanted.get("silent", True)), filename=wanted.get("filename")
        )

    def push(self, values: object) -> object:
        """Bind names to values: a dictionary."""
        self._namespace.push(cast("dict[str, object]", values))
        return None

    def pull(self, names: object) -> object:
        """Evaluate an expression, or each of a list. The names that a shell brings are there before it is started."""
        wanted = cast("str | list[str]", names)
        try:
            return self._namespace.pull(wanted)
        except NameError as error:
            if self._shell.started or error.name not in ("In", "Out"):
                raise
        self._shell.get_ipython()
        return self._namespace.pull(wanted)

    def clear(self, nothing: object) -> object:  # noqa: ARG002 - every operation takes one value
        """Forget all names but the initial ones, and what tasks have left here."""
        self.kept.clear()
        self._namespace.clear(self._shell.reset if self._shell.started else None)
        return None

    # --- how it ended --------------------------------------------------------------------------

    def _tidy(self) -> None:
        if self._output is not None:
            self._output.flush()
        self._namespace.forget_rebound()

    def _outcome(self, task: str, value: object, failure: Failure | None, started: float) -> Outcome:
        content, memory = Content(), None
        if failure is None:
            try:
                content, memory = store(pack(value), self.folder)
            except Exception as error:  # whatever a __reduce__ of the user's raises
                failure = _unsendable(value, error)
        if failure is not None:
            failure = self.place(failure)
        return Outcome(Reply(task, self.engine, content, failure, started, clock.now()), memory)

    def place(self, failure: Failure) -> Failure:
        """Say in *failure* that it happened here."""
        facts = self._facts
        return msgspec.structs.replace(
            failure, engine=self.engine, rank=facts.rank, world=self._world, host=facts.host, pid=self._pid
        )


def _nothing() -> None:
    """Let SIGTERM do nothing more: this runner has no process to end."""


def _unsendable(value: object, error: Exception) -> Failure:
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    described = describe(error)
    text = f"the task ran, but its result of type {kind} cannot be sent: {described.evalue}"
    return msgspec.structs.replace(described, evalue=text, made=b"")
