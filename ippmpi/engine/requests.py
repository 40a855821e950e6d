"""What the agent asks for, from its arrival on the link's loop to its turn in the main thread.

Requests run strictly in the order of arrival; the first one waits for its content if need be.
Whoever claims a request decides its fate: the main thread, which then runs it, or a revocation.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ippmpi import clock
from ippmpi.engine.memory import Arriving, Unread, no_content
from ippmpi.errors import ProtocolError
from ippmpi.wire.messages import Assigned, Content, ContentReady, Failure, Message, Reply, Revoke, Run

if TYPE_CHECKING:
    from typing_extensions import Buffer

_log = logging.getLogger(__name__)

_REMEMBERED = 10_000
"""Tasks whose replies are safe and that are not run again, should they be sent again after the death of an agent."""

_TOLD = 1024
"""How many of them a new agent hears of."""


class Delivery(Protocol):
    """One message of the agent's (``net.Delivery``)."""

    @property
    def message(self) -> Message:
        """The message, validated."""

    @property
    def settled(self) -> bool:
        """Whether the agent had taken all that was said to it before it sent this."""

    def done(self) -> None:
        """Let its acknowledgement go out; exactly once."""


class Performer(Protocol):
    """Who runs the requests (``Runner``)."""

    engine: int
    task: str

    def place(self, failure: Failure) -> Failure:
        """Say in *failure* that it happened here."""


class Work(NamedTuple):
    """What the main thread has to do. A failure instead of content: there is none, and why.

    Without ``op`` it is no request: the content is a call of ours, for which there is no reply.
    ``sole``: whatever is printed from now on can only be its output, also for the agent.
    """

    task: str
    op: str | None
    content: Buffer | Unread | Failure | Callable[[], None]
    sole: bool = False


LOST = "it has run, and its result is lost: the controller that took it could not store it, and was then killed"


class Request:
    """One task for this engine. ``content`` is there when its turn may come: its bytes, or why there are none."""

    __slots__ = ("_free", "arriving", "attempt", "content", "op", "replied", "revoked", "sole", "task")

    def __init__(
        self,
        run: Run,
        content: Buffer | Unread | Failure | Callable[[], None] | None,
        arriving: Arriving | None = None,
    ) -> None:
        """Wait for *arriving* if there is no *content* yet."""
        self.task = run.task
        self.op: str | None = run.op
        self.attempt = run.attempt
        self.content = content
        self.arriving = arriving
        self.revoked = False
        self.replied = False
        self.sole = False
        self._free = [True]

    def claim(self) -> bool:
        """Return True to the first who asks, whatever their thread."""
        try:
            return self._free.pop()  # one step, so no lock is needed
        except IndexError:
            return False


class Requests:
    """The queue. Its ``on_`` methods and ``acknowledged`` belong to the link's loop, ``take`` to the main thread.

    Attributes:
        stopped: nothing more is to be run.
    """

    def __init__(self, performer: Performer, reply: Callable[[Reply], None], interrupt: Callable[[str], None]) -> None:
        """Send replies of requests that never ran with *reply*; interrupt a running task with *interrupt*."""
        self._performer = performer
        self._reply = reply
        self._interrupt = interrupt
        self._known: dict[str, Request] = {}  # queued, running, or replied to without acknowledgement
        self._unanswered = 0  # of these, those without a reply
        self._finished: dict[str, int] = {}  # attempts of the last ones whose replies were acknowledged
        self._held: deque[Request] = deque()  # behind a first one whose content is not there
        self._ready: deque[Request] = deque()
        self.stopped = False

    # --- main thread -----------------------------------------------------------------------------

    def news(self) -> bool:
        """Whether the main thread has something to do."""
        return bool(self._ready) or self.stopped

    def take(self) -> Work | None:
        """Return the next request to run; None: there is none, or there will be no more."""
        while self._ready and not self.stopped:
            request = self._ready.popleft()
            self._performer.task = request.task  # before the claim: a revocation that loses it must see what runs
            if request.claim() and request.content is not None:
                content, request.content = request.content, None  # or it would live as long as the reply
                return Work(request.task, request.op, content, request.sole)
            self._performer.task = ""
        return None

    def stop(self) -> None:
        """Hand out nothing more. From any thread, and from a signal handler."""
        self.stopped = True

    # --- the loop: messages ----------------------------------------------------------------------

    def on_run(self, delivery: Delivery) -> None:
        """Queue a request; drop one that is here already. One that was here is answered: whoever asks has no result."""
        run = delivery.message
        assert isinstance(run, Run)
        known = self._known.get(run.task)
        if known is not None and (known.attempt == run.attempt or known.arriving is not None):
            self._refresh(known, run)
        elif self._finished.get(run.task) != run.attempt:
            self._queue(run, sole=not self._unanswered and delivery.settled)
        else:  # the hub drops this if it has a reply; one that was restored from a store with gaps would wait for ever
            self._fail(run.task, LOST, run.attempt)
        delivery.done()

    def add(self, name: str, call: Callable[[], None]) -> None:
        """Queue *call* behind what is ready."""
        request = Request(Run(name, "", [], []), call)
        request.op = None
        self._ready.append(request)

    def _queue(self, run: Run, *, sole: bool) -> None:
        request = self._known[run.task] = self._request(run)
        request.sole = sole
        self._unanswered += 1
        if request.content is None or self._held:
            self._held.append(request)
        else:
            self._ready.append(request)

    def _request(self, run: Run) -> Request:
        content = self._own_content(run)
        if not content.path:
            return Request(run, content.inline)
        try:
            return Request(run, None, Arriving(content))
        except OSError as error:
            return Request(run, _no_content(content, str(error)))

    def _own_content(self, run: Run) -> Content:
        if len(run.contents) == 1:
            return run.contents[0]
        try:
            return run.contents[run.engines.index(self._performer.engine)]
        except (ValueError, IndexError):
            raise ProtocolError(f"task {run.task}: no content for engine {self._performer.engine}") from None

    def _refresh(self, request: Request, run: Run) -> None:
        """Take the content of a repeated request if the first copy still waits for it: its agent may be gone."""
        if request.arriving is not None:
            request.arriving.close()
            request.attempt = run.attempt  # that of a restarted controller may be another one
            fresh = self._request(run)
            request.content, request.arriving = fresh.content, fresh.arriving
            self._hand_over()

    def agent_changed(self) -> list[Request]:
        """Expect nothing more of what was arriving: a new agent has other numbers, and sends the requests again.

        Return those that wait for that.
        """
        waiting = [request for request in self._held if request.arriving is not None]
        for request in waiting:
            if request.arriving is not None:
                request.arriving.transfer = 0
        return waiting

    def give_up(self, waiting: Iterable[Request]) -> None:
        """Fail those of *waiting* that were not sent again: others may have got them, and those behind must go on."""
        for request in waiting:
            if request.arriving is not None and request.arriving.transfer == 0:
                self._complete(request, request.arriving, failed=True)
        self._hand_over()

    def on_content_ready(self, delivery: Delivery) -> None:
        """Map what has arrived; the requests behind it may have waited only for it."""
        message = delivery.message
        assert isinstance(message, ContentReady)
        for request in self._held:
            if request.arriving is not None and request.arriving.transfer == message.transfer:
                if request.arriving.opened or message.failed:
                    self._complete(request, request.arriving, failed=message.failed)
                else:  # the last words of a dead agent: its successor sends another
                    request.arriving.transfer = 0
        self._hand_over()
        delivery.done()

    def _complete(self, request: Request, arriving: Arriving, *, failed: bool) -> None:
        request.arriving = None
        if failed:
            arriving.close()
            request.content = _no_content(Content(), "its transfer broke off")
            return
        try:
            request.content = arriving.complete()
        except (OSError, ValueError) as error:
            request.content = _no_content(Content(), str(error))

    def _hand_over(self) -> None:
        while self._held and (self._held[0].content is not None or self._held[0].revoked):
            self._ready.append(self._held.popleft())

    def on_revoke(self, delivery: Delivery) -> None:
        """Take a task back where it waits; interrupt it where it runs, if that is wished."""
        message = delivery.message
        assert isinstance(message, Revoke)
        request = self._known.get(message.task)
        if request is not None and request.claim():
            self._abort(request, "TaskReturned" if message.reclaim else "TaskAborted")
        elif message.interrupt and self._performer.task == message.task:
            self._interrupt(message.task)
        delivery.done()

    def _abort(self, request: Request, kind: str) -> None:
        request.revoked = True
        if request.arriving is not None:
            request.arriving.close()
            request.arriving = None
        if isinstance(request.content, Unread):
            request.content.close()
        self._hand_over()
        self._fail(request.task, "taken back before it started", kind=kind)

    def _fail(self, task: str, why: str, attempt: int = 0, *, kind: str = "TaskAborted") -> None:
        now = clock.now()
        failure = self._performer.place(Failure(kind, why, kind=kind))
        self._reply(Reply(task, self._performer.engine, Content(), failure, now, now, attempt))

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

    # --- the loop: replies -----------------------------------------------------------------------

    def replied(self, task: str) -> int:
        """Note that the reply to *task* is on its way; return its attempt."""
        request = self._known.get(task)
        if request is None:
            return 0
        if not request.replied:
            request.replied = True
            self._unanswered -= 1
        return request.attempt

    def acknowledged(self, task: str, attempt: int = 0) -> None:
        """Forget this attempt at *task* but for its name: the next owner has its reply."""
        request = self._known.get(task)
        if request is None or request.attempt != attempt:
            return
        del self._known[task]
        self._finished.pop(task, None)  # to become the youngest
        self._finished[task] = attempt
        if len(self._finished) > _REMEMBERED:
            del self._finished[next(iter(self._finished))]

    def open_tasks(self) -> dict[str, int]:
        """Return the tasks without a reply, oldest first, then those whose reply is not acknowledged, latest first.

        So the first one is that to which the output belongs that is left in the pipes. Those whose content is still
        under way are not among them: they must be sent again.
        """
        here = {task: request for task, request in self._known.items() if request.arriving is None}
        found = {task: request.attempt for task, request in here.items() if not request.replied}
        return found | {task: r.attempt for task, r in reversed(here.items()) if r.replied}

    def finished_tasks(self) -> dict[str, int]:
        """Return the last tasks whose replies are safe."""
        names = list(self._finished)[-_TOLD:]
        return {task: self._finished[task] for task in names}


def _no_content(content: Content, why: str) -> Failure:
    return no_content(f" of {content.size} bytes" if content.size else "", why)
