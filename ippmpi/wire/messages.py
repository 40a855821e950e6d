"""The protocol: every message, who sends it to whom, and its version.

A message is a frozen record. On the wire it is a msgpack array ``[tag, field, field, ...]`` (fields
in order; new fields go last and have defaults). ``ROUTE`` says who sends it to whom; the receiver
has a method ``on_<tag>`` and ``tests/test_architecture.py`` checks that it does.

Messages ride in sessions (``ippmpi/net/session.py``): numbered, acknowledged, sent again after a
break. Link records at the end of this file are the session layer's own.
"""

from __future__ import annotations

import re
from typing import ClassVar

import msgspec

PROTOCOL_VERSION = 1

INLINE_LIMIT = 64 * 1024
"""Bytes of content that travel inside the message; larger content is a transfer (chunks, credits)."""


def _tag(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


class Message(msgspec.Struct, frozen=True, array_like=True, tag=_tag, gc=False):
    """Base of everything that rides in a session."""

    ROUTE: ClassVar[str]


class Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of the parts of messages."""


# --- parts ---------------------------------------------------------------------------------------


class Content(Record, frozen=True):
    """A blob (see ``pickling.py``) that belongs to a message, opaque to controller and agent.

    Exactly one way: ``inline`` (``transfer`` is 0), or transfer number ``transfer`` of this link
    (``size`` bytes follow on the data connection), or, between agent and engine on one host, the
    file that can be opened at ``path`` (complete once ``ContentReady(transfer)`` came). Between the
    controller and a peer on its host a transfer may have a ``path`` too: a file that the sender can
    put the bytes into instead of sending them (``Grant.by_file``, ``ippmpi/handed.py``).
    """

    inline: bytes = b""
    size: int = 0
    transfer: int = 0
    path: str = ""


class EngineRecord(Record, frozen=True):
    """One rank, as everybody may know it. ``joined``: it came with the so-many-th world, counted by the hub."""

    id: int
    rank: int
    world: str
    host: str
    pid: int
    size: int = 1
    joined: int = 0


class Failure(Record, frozen=True):
    """Why there is no value. ``kind`` is ``"code"`` when the task's own code raised.

    Other kinds name a class of ``errors.py`` (``EngineError``, ``TaskAborted``, ``TaskTimeout``,
    ``ImpossibleDependency``, ``InvalidDependency``, ``UnmetDependency``, ``ResultNotKept``, ``HandleError``).

    ``types`` (``module:qualified name``) and ``made`` say what kind of exception the code raised, see
    ``wire/exceptions.py``; both are empty if nobody should make one of that type.
    """

    ename: str
    evalue: str
    traceback: str = ""
    kind: str = "code"
    engine: int | None = None
    rank: int | None = None
    world: str = ""
    host: str = ""
    pid: int = 0
    types: list[str] = []
    made: bytes = b""


class Dependency(Record, frozen=True):
    """A condition on other balanced tasks. ``any_of`` False: all of them."""

    tasks: list[str]
    any_of: bool = False
    success: bool = True
    failure: bool = False


class Placement(Record, frozen=True):
    """Where and when a balanced task may run. ``near``: engines that have its data, so they are better if idle."""

    candidates: list[int] | None = None
    after: Dependency | None = None
    follow: Dependency | None = None
    timeout_s: float = 0.0
    retries: int = 0
    near: list[int] = []


class CacheKey(Record, frozen=True):
    """Under which the result of a balanced task is kept for calls that are equal, and found again.

    ``digest``: hexadecimal, of all that the result depends on, as far as the client knows. ``name``: the function's,
    for people. ``engineless``: the client knows of no engine, so without a cached result the task fails.
    """

    digest: str
    name: str = ""
    engineless: bool = False


# --- client -> hub -------------------------------------------------------------------------------


class Submit(Message, frozen=True):
    """Do *op* on every engine of ``targets``, or, with a ``placement``, on one engine of the hub's choice.

    ``contents`` has one entry for all targets, or one per target (scatter, map), in their order.
    ``op`` is a name of ``engine/runner.py``'s table: apply, keep, execute, push, pull, clear. ``seen`` is the highest
    ``EngineRecord.joined`` that the client knew: a target that joined later is another process than it meant, and may
    not run what an earlier one may have run already. -1: whoever is there.

    With a ``cache`` (only with a ``placement``) the result may be that of an equal call before: then its ``Reply`` is
    a success on engine -1.
    """

    ROUTE: ClassVar[str] = "client -> hub"
    task: str
    op: str
    targets: list[int]
    contents: list[Content]
    label: str = ""
    placement: Placement | None = None
    seen: int = -1
    cache: CacheKey | None = None


class Abort(Message, frozen=True):
    """Take back work of this client that has not started: ``tasks`` (None: all), on ``targets`` (None: all)."""

    ROUTE: ClassVar[str] = "client -> hub"
    request: int
    tasks: list[str] | None = None
    targets: list[int] | None = None


class Interrupt(Message, frozen=True):
    """Raise KeyboardInterrupt in exactly these tasks where they run; take them back where they wait."""

    ROUTE: ClassVar[str] = "client -> hub"
    request: int
    tasks: list[str]


class Free(Message, frozen=True):
    """Let go of what was kept: of each of ``tasks`` on the engine in the same place of ``engines``.

    The hub sends it to the agents that these engines are behind, and one with ``client`` to all agents when that
    client, which has kept something, has left for good: then it is all that this one's tasks have left anywhere, or
    would still leave.
    """

    ROUTE: ClassVar[str] = "client -> hub, hub -> agent, agent -> engine"
    tasks: list[str]
    engines: list[int]
    client: str = ""


class SendSignal(Message, frozen=True):
    """Deliver a POSIX signal to engines, at once, whatever they do. ``targets`` None: all."""

    ROUTE: ClassVar[str] = "client -> hub"
    request: int
    signal: int
    targets: list[int] | None = None


class Query(Message, frozen=True):
    """Ask the hub. ``arguments`` are msgpack; ``what`` is ``status``, ``queue_status``, ``result_status``, or:

    ``explain`` says why tasks have no result yet (``wire/reasons.py`` has question and answer).
    ``results`` lists stored requests of all clients; ``history``, ``search``, ``purge`` and ``originals`` are for the
    store alone, ``cached`` and ``uncache`` for the cache (``core/effects.py`` has their arguments). ``fetch`` (a list
    of task ids) has all their replies and output sent to who asks, first what is stored, then what still comes; the
    answer, ids that are not known, follows what is stored.
    """

    ROUTE: ClassVar[str] = "client -> hub"
    request: int
    what: str
    arguments: bytes = b"\xc0"


class Shutdown(Message, frozen=True):
    """End engines (``targets`` None: all) and, if ``controller``, everything."""

    ROUTE: ClassVar[str] = "client -> hub"
    request: int
    targets: list[int] | None = None
    controller: bool = False


class Awaited(Record, frozen=True):
    """A task that a client waits for: on these engines, or (none named) wherever the hub has placed it."""

    task: str
    engines: list[int]


class StillWaiting(Message, frozen=True):
    """What this client waits for, told to a controller that knows no session of it; follows what is sent again.

    The hub repeats the replies that an earlier life of it has stored. What nobody knows of fails.
    """

    ROUTE: ClassVar[str] = "client -> hub"
    tasks: list[Awaited]


class Farewell(Message, frozen=True):
    """This client is closed on purpose and takes no more replies."""

    ROUTE: ClassVar[str] = "client -> hub"


# --- hub -> client -------------------------------------------------------------------------------


class EnginesChanged(Message, frozen=True):
    """Who joined and who left (with reasons, same length). The first one after the hello is the whole list."""

    ROUTE: ClassVar[str] = "hub -> client"
    joined: list[EngineRecord]
    left: list[int]
    reasons: list[str]


class Answer(Message, frozen=True):
    """The one answer to request ``request``: ``value`` (msgpack), or ``error`` (a text) if not empty."""

    ROUTE: ClassVar[str] = "hub -> client"
    request: int
    value: bytes = b"\xc0"
    error: str = ""


# --- hub -> agent --------------------------------------------------------------------------------


class Registered(Message, frozen=True):
    """The world is complete: its ranks are engines ``base + rank``. The agent tells its engines.

    ``pids``: the processes that it is for (none named: all). Others, which have been started since under the same
    name, must not be taken for them: what waits for the dead would run on the living.
    """

    ROUTE: ClassVar[str] = "hub -> agent"
    world: str
    base: int
    pids: list[int] = []


class Run(Message, frozen=True):
    """Do *op* on these local engines; ``contents`` as in ``Submit``. The agent fans it out.

    An engine runs a task once per ``attempt``, however often it is sent.
    """

    ROUTE: ClassVar[str] = "hub -> agent, agent -> engine"
    task: str
    op: str
    engines: list[int]
    contents: list[Content]
    attempt: int = 0


class Revoke(Message, frozen=True):
    """Take the task back where it waits; where it runs, interrupt it if ``interrupt``.

    An engine that took it back replies with a failure: ``TaskAborted``, or ``TaskReturned`` if ``reclaim`` (another
    engine is to have it; a hub that was started again since need not know that). One that has finished or goes on does
    nothing.
    """

    ROUTE: ClassVar[str] = "hub -> agent, agent -> engine"
    task: str
    engines: list[int]
    interrupt: bool = False
    reclaim: bool = False


class Deliver(Message, frozen=True):
    """Send POSIX signal ``signal`` to these engines' processes."""

    ROUTE: ClassVar[str] = "hub -> agent"
    engines: list[int]
    signal: int


class StopEngines(Message, frozen=True):
    """End these engines in good order (``MPI_Finalize``); None: all of the agent's."""

    ROUTE: ClassVar[str] = "hub -> agent"
    engines: list[int] | None = None


# --- agent -> hub --------------------------------------------------------------------------------


class Held(Record, frozen=True):
    """A task that an engine has, as this attempt.

    ``absent``: it has it not, as its content is still under way, or its reply was a failure that may have led to
    another attempt. If the task is handed out again, this is the lowest attempt that the engine takes for a new one.
    """

    task: str
    attempt: int = 0
    absent: bool = False


class RegisterEngines(Message, frozen=True):
    """Ranks of one world that live on one node. ``EngineRecord.id`` is -1 here: the hub chooses.

    ``whole``: they are all that this node has; others that an earlier agent had there are gone.

    ``tasks``, one list per engine: what it has, or has replied to without an acknowledgement; for a
    controller that was started again.
    """

    ROUTE: ClassVar[str] = "agent -> hub"
    world: str
    size: int
    engines: list[EngineRecord]
    whole: bool = False
    tasks: list[list[Held]] = []


class EngineLost(Message, frozen=True):
    """An engine's process is gone. ``cause`` is for people; ``expected`` if it was told to stop.

    ``untouched``: tasks that it had been given and had certainly not begun.
    """

    ROUTE: ClassVar[str] = "agent -> hub"
    world: str
    rank: int
    cause: str
    expected: bool = False
    exit_code: int | None = None
    signal: int | None = None
    output: str = ""
    untouched: list[str] = []


# --- engine -> agent -> hub -> client ------------------------------------------------------------


class Reply(Message, frozen=True):
    """How a task ended on one engine: ``content`` is its value unless there is a ``failure``.

    Times are seconds since the epoch on the engine's clock.
    """

    ROUTE: ClassVar[str] = "engine -> agent, agent -> hub, hub -> client"
    task: str
    engine: int
    content: Content
    failure: Failure | None = None
    started: float = 0.0
    completed: float = 0.0
    attempt: int = 0


class Replies(Message, frozen=True):
    """Replies of several engines of one node to one request, without large contents, which were ready together."""

    ROUTE: ClassVar[str] = "agent -> hub, hub -> client"
    task: str
    replies: list[Reply]


class Output(Message, frozen=True):
    """What a task printed, as bytes of ``stream`` (stdout, stderr). ``task`` is empty before the first one."""

    ROUTE: ClassVar[str] = "agent -> hub, hub -> client"
    task: str
    engine: int
    stream: str
    text: bytes


class Display(Message, frozen=True):
    """A rich result or display of a task: ``data`` is msgpack ``{"kind", "data", "metadata"}``."""

    ROUTE: ClassVar[str] = "engine -> agent, agent -> hub, hub -> client"
    task: str
    engine: int
    data: bytes


class Fetch(Message, frozen=True):
    """``engine`` needs what ``task`` has kept on ``holder``, for a task that runs on it.

    ``number`` counts its questions: only the answer to the last one is of use. One may be asked again.
    """

    ROUTE: ClassVar[str] = "engine -> agent, agent -> hub, hub -> agent, agent -> engine"
    engine: int
    number: int
    holder: int
    task: str


class Fetched(Message, frozen=True):
    """The answer to ``Fetch``: a copy of the value, or a ``failure``, on its way to ``engine``."""

    ROUTE: ClassVar[str] = "engine -> agent, agent -> hub, hub -> agent, agent -> engine"
    engine: int
    number: int
    content: Content
    failure: Failure | None = None


class Published(Message, frozen=True):
    """What a running task shows (``datapub.publish_data``): names and pickled values, the latest of each.

    It is not stored, and a client that does not take its messages misses it.
    """

    ROUTE: ClassVar[str] = "engine -> agent, agent -> hub, hub -> client"
    task: str
    engine: int
    values: dict[str, bytes]


# --- hub -> client -------------------------------------------------------------------------------


class Recheck(Message, frozen=True):
    """News of what you wait for may have been dropped: say what that is (``StillWaiting``), fetch what you follow."""

    ROUTE: ClassVar[str] = "hub -> client"


# --- engine <-> agent ----------------------------------------------------------------------------


class EngineReady(Message, frozen=True):
    """A rank introduces itself. ``stdout_fd`` and ``stderr_fd`` are the read ends of its output pipes,
    to be opened under ``/proc/<pid>/fd``. ``started`` is the process's start time in clock ticks.

    The last fields are for an agent in the place of one that died: the engine's id (-1: none yet),
    the tasks that it has not replied to, and some that it has, oldest first, with their attempts, and the
    task that ran last.
    """

    ROUTE: ClassVar[str] = "engine -> agent"
    world: str
    rank: int
    size: int
    local_size: int
    pid: int
    host: str
    started: int
    stdout_fd: int
    stderr_fd: int
    parent_records_exit: bool = False
    engine: int = -1
    tasks: dict[str, int] = {}
    finished: dict[str, int] = {}
    printing: str = ""


class Assigned(Message, frozen=True):
    """The engine's id in the cluster."""

    ROUTE: ClassVar[str] = "agent -> engine"
    engine: int


class ContentReady(Message, frozen=True):
    """The memory file of transfer ``transfer`` is complete (or, ``failed``, never will be)."""

    ROUTE: ClassVar[str] = "agent -> engine"
    transfer: int
    failed: bool = False


class StopEngine(Message, frozen=True):
    """Finish: no more requests come. The engine ends as soon as its main thread is free.

    ``reason`` is for people, if this is not a normal end; the engine says it with its last words.
    """

    ROUTE: ClassVar[str] = "agent -> engine"
    reason: str = ""


# --- the session layer's own ---------------------------------------------------------------------


class LinkRecord(msgspec.Struct, frozen=True, array_like=True, tag=_tag, gc=False):
    """Base of what a session says for itself, one per ZeroMQ message."""


class Hello(LinkRecord, frozen=True):
    """First message on a connection, from the dialling side.

    ``token`` (16 bytes) names the session, ``channel`` is control or data, ``received`` the highest
    sequence number that arrived, ``peer`` and ``about`` (msgpack) say who speaks. ``key`` is the public
    key of the connection file: where CURVE has not shown it (a Unix socket), it says which cluster and
    role the file is of. ``life`` is that of the last Welcome, whose session ``received`` and a data connection
    belong to. In every version the tag and ``version`` come first.
    """

    version: int
    role: str
    peer: str
    token: bytes
    channel: str
    received: int
    python: str = ""
    about: bytes = b"\xc0"
    key: str = ""
    life: bytes = b""


class Welcome(LinkRecord, frozen=True):
    """The listening side accepts. ``known``: it still has this session; else both sides number anew.

    ``life``: random, of the listening process.
    """

    known: bool
    received: int
    about: bytes = b"\xc0"
    life: bytes = b""


class Denied(LinkRecord, frozen=True):
    """The listening side refuses; final. ``reason`` names both sides' values. The same in every version."""

    reason: str


class Batch(LinkRecord, frozen=True):
    """Messages ``first``, ``first + 1``, ... of one direction, and two facts about the other one.

    ``ack``: up to here the next owner has it. ``received``: up to here it has arrived (for flow
    control only). Without messages it acknowledges, or is a sign of life.
    """

    first: int
    ack: int
    received: int
    messages: list[bytes] = []


class Grant(LinkRecord, frozen=True):
    """The receiver of a transfer asks for its bytes from ``start`` up to ``limit``.

    ``start`` -1: go on from where you are (the first grant on a connection says where).
    ``limit`` -1: stop sending, this transfer is not wanted any more.
    ``by_file``: put them into the file that was named beside the transfer; it is open here.
    """

    transfer: int
    start: int
    limit: int
    by_file: bool = False


class Chunk(LinkRecord, frozen=True):
    """Bytes of a transfer at ``offset``; they follow in the next frame. ``failed``: there will be no more.

    ``placed``: nothing follows; so many bytes are in the file that was named beside the transfer.
    """

    transfer: int
    offset: int
    failed: bool = False
    placed: int = 0
