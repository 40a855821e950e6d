"""What the agent asks for, from its arrival on the I/O thread to its turn in the main thread.

Requests run strictly in the order of arrival; the first one waits for its content if need be.
Whoever removes a task from ``_waiting`` decides its fate: the main thread, which then runs it, or
a revocation. ``dict.pop`` does it in one step, so no lock is needed.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol

from ippmpi.engine.memory import Arriving
from ippmpi.errors import ProtocolError
from ippmpi.wire.messages import Assigned, Content, ContentReady, Failure, Message, Reply, Revoke, Run

if TYPE_CHECKING:
    from typing_extensions import Buffer

_log = logging.getLogger(__name__)


class Delivery(Protocol):
    """One message of the agent's (``net.Delivery``)."""

    @property
    def message(self) -> Message:
        """The message, validated."""

    def done(self) -> None:
        """Let its acknowledgement go out; exactly once."""


class Performer(Protocol):
    """Who runs the requests (``Runner``)."""

    engine: int
    task: str

    def place(self, failure: Failure) -> Failure:
        """Say in *failure* that it happened here."""


class Request:
    """One task for this engine. ``content`` is there when its turn may come: its bytes, or why there are none."""

    __slots__ = ("arriving", "content", "op", "task")

    def __init__(self, task: str, op: str, content: Buffer | Failure | None, arriving: Arriving | None = None) -> None:
        """Wait for *arriving* if there is no *content* yet."""
        self.task = task
        self.op = op
        self.content = content
        self.arriving = arriving


class Requests:
    """The queue. Its ``on_`` methods and ``acknowledged`` belong to the I/O thread, ``take`` to the main thread."""

    def __init__(self, performer: Performer, reply: Callable[[Reply], None], interrupt: Callable[[str], None]) -> None:
        """Send replies of requests that never ran with *reply*; interrupt a running task with *interrupt*."""
        self._performer = performer
        self._reply = reply
        self._interrupt = interrupt
        self._known: set[str] = set()  # queued, running, or replied to without acknowledgement
        self._waiting: dict[str, Request] = {}
        self._held: deque[Request] = deque()  # behind a first one whose content is not there
        self._ready: SimpleQueue[Request | None] = SimpleQueue()
        self._stopped = False

    # --- main thread -----------------------------------------------------------------------------

    def take(self) -> Request | None:
        """Wait for the next request to run; None: there will be no more."""
        while not self._stopped:
            request = self._ready.get()
            if request is None:
                continue
            self._performer.task = request.task  # before it leaves _waiting: a revocation must find it somewhere
            if self._waiting.pop(request.task, None) is request:
                return request
            self._performer.task = ""
        return None

    def stop(self) -> None:
        """Let ``take`` return None next. From any thread, and from a signal handler."""
        self._stopped = True
        self._ready.put(None)

    # --- I/O thread: messages --------------------------------------------------------------------

    def on_run(self, delivery: Delivery) -> None:
        """Queue a request; drop one that is here already."""
        run = delivery.message
        assert isinstance(run, Run)
        if run.task in self._known:
            self._refresh(run)
        else:
            request = self._request(run)
            self._known.add(run.task)
            self._waiting[run.task] = request
            if request.content is None or self._held:
                self._held.append(request)
            else:
                self._ready.put(request)
        delivery.done()

    def _request(self, run: Run) -> Request:
        content = self._own_content(run)
        if not content.path:
            return Request(run.task, run.op, content.inline)
        try:
            return Request(run.task, run.op, None, Arriving(content))
        except OSError as error:
            return Request(run.task, run.op, _no_content(content, str(error)))

    def _own_content(self, run: Run) -> Content:
        if len(run.contents) == 1:
            return run.contents[0]
        try:
            return run.contents[run.engines.index(self._performer.engine)]
        except (ValueError, IndexError):
            raise ProtocolError(f"task {run.task}: no content for engine {self._performer.engine}") from None

    def _refresh(self, run: Run) -> None:
        """Take the content of a repeated request if the first copy still waits for it: its agent may be gone."""
        request = self._waiting.get(run.task)
        if request is not None and request.arriving is not None:
            request.arriving.close()
            fresh = self._request(run)
            request.content, request.arriving = fresh.content, fresh.arriving
            self._hand_over()

    def on_content_ready(self, delivery: Delivery) -> None:
        """Map what has arrived; the requests behind it may have waited only for it."""
        message = delivery.message
        assert isinstance(message, ContentReady)
        for request in self._held:
            if request.arriving is not None and request.arriving.transfer == message.transfer:
                self._complete(request, request.arriving, failed=message.failed)
        self._hand_over()
        delivery.done()

    def _complete(self, request: Request, arriving: Arriving, *, failed: bool) -> None:
        request.arriving = None
        if failed:
            arriving.close()
            request.content = _no_content(Content(), "its transfer broke off")
            return
        try:
            request.content = arriving.map()
        except (OSError, ValueError) as error:
            request.content = _no_content(Content(), str(error))

    def _hand_over(self) -> None:
        while self._held and (self._held[0].content is not None or self._held[0].task not in self._waiting):
            self._ready.put(self._held.popleft())

    def on_revoke(self, delivery: Delivery) -> None:
        """Take a task back where it waits; interrupt it where it runs, if that is wished."""
        message = delivery.message
        assert isinstance(message, Revoke)
        request = self._waiting.pop(message.task, None)
        if request is not None:
            self._abort(request)
        elif message.interrupt and self._performer.task == message.task:
            self._interrupt(message.task)
        delivery.done()

    def _abort(self, request: Request) -> None:
        if request.arriving is not None:
            request.arriving.close()
            request.arriving = None
        self._hand_over()
        now = time.time()
        failure = Failure("TaskAborted", "taken back before it started", kind="TaskAborted")
        place = self._performer.place
        self._reply(Reply(request.task, self._performer.engine, Content(), place(failure), now, now))

    def on_assigned(self, delivery: Delivery) -> None:
        """Learn this engine's id."""
        message = delivery.message
        assert isinstance(message, Assigned)
        self._performer.engine = message.engine
        delivery.done()

    def on_stop_engine(self, delivery: Delivery) -> None:
        """End as soon as the main thread is free; what waits will not run."""
        delivery.done()
        self.stop()

    # --- I/O thread: replies ---------------------------------------------------------------------

    def acknowledged(self, task: str) -> None:
        """Forget *task*: the next owner has its reply."""
        self._known.discard(task)


def _no_content(content: Content, why: str) -> Failure:
    size = f" of {content.size} bytes" if content.size else ""
    return Failure("EngineError", f"the request's content{size} did not arrive: {why}", kind="EngineError")
