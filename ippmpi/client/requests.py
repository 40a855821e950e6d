"""What this client has asked for and not yet heard: its side of the protocol.

``submit`` and ``ask`` are called by user threads; they register who waits (one assignment to a
dict) and hand the message to the I/O thread, which calls everything else here.
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence, Set
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from ippmpi import clock
from ippmpi.client.beginnings import Beginnings
from ippmpi.client.chunks import ChunkPart
from ippmpi.client.collector import Collector
from ippmpi.client.contents import BlobSource, Flat, sink_for
from ippmpi.client.engines import Engines
from ippmpi.client.failures import lost_on_the_way, to_error
from ippmpi.client.handles import Keeper, near
from ippmpi.client.parts import Part
from ippmpi.client.transport import Incoming, Receiver, Transport
from ippmpi.errors import IppmpiError, RemoteError
from ippmpi.wire.handles import seen
from ippmpi.wire.messages import (
    INLINE_LIMIT,
    Abort,
    Answer,
    Awaited,
    CacheKey,
    Content,
    Display,
    EnginesChanged,
    Farewell,
    Interrupt,
    Message,
    Output,
    Placement,
    Published,
    Recheck,
    Replies,
    Reply,
    StillWaiting,
    Submit,
)
from ippmpi.wire.pickling import Blob, pack, pack_call, pack_noting

log = logging.getLogger(__name__)

MOST_FILES = 100
"""How many files for the hub may be open at a time: the user's program needs descriptors too."""

WAITING_TOGETHER = 1000
"""How many tasks one ``StillWaiting`` names."""


HISTORY = 10_000
"""How many task ids are remembered."""


class UnansweredError(IppmpiError):
    """The controller was started again before it had answered."""


@dataclass(slots=True)
class Pending:
    """A task under way. ``indices``: engine to part, None for a balanced task, which is part ``first``.

    ``sent``: the link has it; ``ended``: the parts that have replied. ``heard``: how much output of each engine came.
    ``skip``: how much will come again and is dropped. ``handles``: those that it was given; their values must stay.
    """

    collector: Collector
    first: int
    indices: dict[int, int] | None
    left: int
    sent: bool = False
    ended: Set[int] = frozenset()
    heard: Counter[int] | None = None
    skip: Counter[int] | None = None
    handles: Sequence[object] = ()

    def again(self, engine: int) -> bool:
        """Count output of *engine*; say whether it came before."""
        if self.skip is not None and self.skip[engine] > 0:
            self.skip[engine] -= 1
            return True
        if self.heard is None:
            self.heard = Counter()
        self.heard[engine] += 1
        return False

    def end(self, index: int) -> None:
        """Note that a part has replied."""
        self.left -= 1
        if isinstance(self.ended, set):
            self.ended.add(index)
        else:
            self.ended = {index} if self.left else frozenset((index,))

    def index(self, engine: int) -> int | None:
        """Return which part *engine* answers for; None if it has no part in this task."""
        return self.first if self.indices is None else self.indices.get(engine)

    def open_engines(self) -> list[int]:
        """Return the engines that have not replied; none for a balanced task."""
        return [engine for engine, index in (self.indices or {}).items() if index not in self.ended]


class Requests:
    """All requests of one client and who waits for them."""

    def __init__(self, client_id: str, connect: Callable[[Receiver], Transport]) -> None:
        """Dial with *connect*, which gets this object as the receiver of what comes."""
        self.engines = Engines()
        self.beginnings = Beginnings(self)
        self.keeper = Keeper(self)
        self.pending: dict[str, Pending] = {}
        self.pickler = "auto"  # of calls and their results, one of ``PICKLERS``
        self.show_first_error = True
        self.maps: set[Collector] = set()  # those that have not ended and make their tasks as they go
        self.problem: Exception | None = None
        self.latest: str | None = None
        self.history: deque[str] = deque(maxlen=HISTORY)
        self.on_new_life: Callable[[], None] | None = None
        self._client_id = client_id
        self._tasks = itertools.count(1)
        self._numbers = itertools.count(1)
        self._questions: dict[int, Future[Any]] = {}
        self._heard: set[int] = set()  # questions that the hub has, so that they are not sent again
        self._fresh = True
        self._was_connected = False
        self._files = 0  # of the I/O thread
        self._handlers: dict[type[Message], Callable[[Any, Incoming], None]] = {
            Reply: self.on_reply,
            Replies: self.on_replies,
            Output: self.on_output,
            Display: self.on_display,
            Published: self.on_published,
            Answer: self.on_answer,
            EnginesChanged: self.on_engines_changed,
            Recheck: self.on_recheck,
        }
        self.transport = connect(self)

    # --- asking: any thread ------------------------------------------------------------------

    def parts(
        self,
        engines: Sequence[int | None],
        method: str,
        label: str,
        *,
        tasks: int = 1,
        make: Callable[..., Part] = Part,
    ) -> list[Part]:
        """Make the parts of a new call: one task for all *engines*, or *tasks* balanced ones; each by *make*."""
        now, records = clock.now(), self.engines.records
        if engines:
            task = self._next_task()
            return [make(task, engine, method, label, now, records) for engine in engines]
        return [make(self._next_task(), None, method, label, now, records) for _ in range(tasks)]

    def chunk(self, label: str, first: int, size: int) -> ChunkPart:
        """Make the part for a task that is *size* items of a map."""
        part = ChunkPart(self._next_task(), None, "map", label, clock.now(), self.engines.records)
        part.first, part.size, part.failures = first, size, {}
        return part

    def collectors(self) -> set[Collector]:
        """Return those of all calls that have not ended; of a map also at a moment when none of its tasks is sent."""
        return {pending.collector for pending in list(self.pending.values())} | self.maps

    def candidates(self, placement: Placement) -> int:
        """Return how many engines may be chosen by *placement*; at least 1."""
        return max(1, len(self.engines.ids if placement.candidates is None else placement.candidates))

    def _next_task(self) -> str:
        return f"{self._client_id}-{next(self._tasks)}"

    def pack(self, value: object) -> Blob:
        """Pickle *value* as this client wants it; raises what pickling raises."""
        return pack_noting(value, self.pickler) if seen else pack(value, self.pickler)

    def pack_call(self, function: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Blob:
        """Pickle a call as this client wants it; raises what pickling raises."""
        if seen:
            return pack_noting((function, args, kwargs), self.pickler)
        return pack_call(function, args, kwargs, self.pickler)

    def submit(self, op: str, blobs: list[Blob], collector: Collector) -> None:
        """Send the one request for all engines of *collector*'s parts; one blob for all or one each."""
        parts = collector.parts
        targets = [part.engine for part in parts if part.engine is not None]
        indices = {engine: index for index, engine in enumerate(targets)}
        pending = Pending(collector, 0, indices, len(targets))
        if any(blob.handles for blob in blobs):
            pending.handles = [handle for blob in blobs for handle in blob.handles]
        message = Submit(parts[0].task, op, targets, [], parts[0].label, None, self.engines.joins)
        self._submit(message, blobs, pending)

    def submit_balanced(
        self,
        blob: Blob,
        collector: Collector,
        index: int,
        placement: Placement,
        op: str = "apply",
        *,
        cache: CacheKey | None = None,
    ) -> None:
        """Send part *index* of *collector* as a balanced task, best to where its data are, or from the cache."""
        part = collector.parts[index]
        pending = Pending(collector, index, None, 1)
        if blob.handles:
            pending.handles = blob.handles
            placement = near(placement, blob.handles)
        part.placement = placement
        message = Submit(part.task, op, [], [], part.label, placement, cache=cache)
        self._submit(message, [blob], pending)

    def submit_again(self, original: Submit, task: str, pending: Pending) -> None:
        """Send a stored request, whose contents are small, as the new *task*."""
        message = msgspec.structs.replace(original, task=task, seen=self.engines.joins)
        self._register(message.task, pending)
        self._post(message, pending)

    def _submit(self, message: Submit, blobs: list[Blob], pending: Pending) -> None:
        self._register(message.task, pending)
        if all(blob.size <= INLINE_LIMIT for blob in blobs):
            ready = msgspec.structs.replace(message, contents=[Content(inline=blob.join()) for blob in blobs])
            self._post(ready, pending)
        else:
            pending.collector.hold()
            self.transport.call_soon(partial(self._send_large, message, blobs, pending))
            self._check_sent(message.task)

    def _register(self, task: str, pending: Pending) -> None:
        self._check_open()
        self.pending[task] = pending
        self.latest = task
        self.history.append(task)

    def _post(self, message: Submit, pending: Pending) -> None:
        self.transport.call_soon(partial(self._send, message, pending))
        self._check_sent(message.task)

    def _check_sent(self, task: str) -> None:
        if self.problem is not None:  # broken since the check; then nobody would end this one
            self.pending.pop(task, None)
            raise self.problem

    def _send(self, message: Submit, pending: Pending, on_ack: Callable[[], None] | None = None) -> None:
        pending.sent = True
        self.transport.send(message, on_ack)

    def _send_large(self, message: Submit, blobs: list[Blob], pending: Pending) -> None:
        offered: dict[int, BlobSource] = {}
        contents = [self._content(blob, offered) for blob in blobs]

        def on_ack() -> None:
            for transfer, source in offered.items():
                self.transport.withdraw(transfer)
                self._files -= source.file is not None
                source.close()
            pending.collector.release()

        self._send(msgspec.structs.replace(message, contents=contents), pending, on_ack)

    def _content(self, blob: Blob, offered: dict[int, BlobSource]) -> Content:
        if blob.size <= INLINE_LIMIT:
            return Content(inline=blob.join())
        source = BlobSource(blob, self.transport.folder if self._files < MOST_FILES else "")
        self._files += source.file is not None
        transfer = self.transport.offer(source)
        offered[transfer] = source
        return Content(size=blob.size, transfer=transfer, path=source.file.path if source.file else "")

    def ask(self, question: Callable[[int], Message]) -> Future[Any]:
        """Send the message that *question* makes of a request number; return the future of its answer."""
        self._check_open()
        number = next(self._numbers)
        future: Future[Any] = Future()
        self._questions[number] = future
        self.transport.call_soon(lambda: self.transport.send(question(number), lambda: self._note_heard(number)))
        return future

    def _note_heard(self, number: int) -> None:
        if number in self._questions:
            self._heard.add(number)

    def interrupt(self, tasks: list[str]) -> Future[Any]:
        """End tasks, running or not."""
        return self.ask(lambda number: Interrupt(number, tasks))

    def abort(self, tasks: list[str] | None, targets: list[int] | None) -> Future[Any]:
        """Take back tasks (None: all) that have not started, on *targets* (None: everywhere)."""
        return self.ask(lambda number: Abort(number, tasks, targets))

    @property
    def reachable(self) -> bool:
        """Whether there is a connection to the controller now."""
        return self.problem is None and self.transport.reachable

    def inside(self) -> bool:
        """Say whether this is the I/O thread."""
        return self.transport.inside()

    def _check_open(self) -> None:
        if self.problem is not None:
            raise self.problem

    # --- what comes: I/O thread --------------------------------------------------------------

    def take(self, incoming: Incoming) -> None:
        """Take one message."""
        handler = self._handlers.get(type(incoming.message))
        if handler is None:
            log.warning("dropped a message that is not for clients: %s", type(incoming.message).__name__)
            incoming.done()
        else:
            handler(incoming.message, incoming)

    def connected(self, *, fresh: bool) -> None:
        """The link is open (again); if *fresh*, the next news of engines is the whole list.

        A hub that has lost its memory is told what is waited for; unacknowledged requests have been sent before that.
        """
        if fresh and self._was_connected:
            self._fail_heard()
            self._wait_on()
        self._was_connected = True
        self._fresh = self._fresh or fresh

    def _wait_on(self) -> None:
        """Say what is waited for, and ask anew for what is followed: the hub knows nothing of that."""
        if self.on_new_life is not None:
            self.on_new_life()
        tasks = [Awaited(task, p.open_engines()) for task, p in list(self.pending.items()) if p.sent]
        for start in range(0, len(tasks), WAITING_TOGETHER):
            self.transport.send(StillWaiting(tasks[start : start + WAITING_TOGETHER]))

    def _fail_heard(self) -> None:
        """Fail the questions that an earlier hub has heard; it can not answer any more."""
        for number in sorted(self._heard):
            self._heard.discard(number)
            future = self._questions.pop(number, None)
            if future is not None:
                future.set_exception(
                    UnansweredError("the controller was started again before it had answered: ask again")
                )

    def broken(self, problem: Exception) -> None:
        """The link will never open (again): *problem* is the outcome of everything."""
        if self.problem is None:
            self.problem = problem
        for pending in list(self.pending.values()):
            pending.collector.break_off(self.problem)
        self.pending.clear()
        for future in list(self._questions.values()):
            future.set_exception(self.problem)
        self._questions.clear()
        self.engines.fail(self.problem)

    def on_engines_changed(self, message: EnginesChanged, incoming: Incoming) -> None:
        """Engines joined or left."""
        whole, self._fresh = self._fresh, False
        self.beginnings.take(message, whole=whole)
        incoming.done()

    def on_recheck(self, message: Recheck, incoming: Incoming) -> None:  # noqa: ARG002 - it says nothing more
        """Something may be missing that the hub could not keep for us."""
        self._wait_on()
        incoming.done()

    def on_answer(self, message: Answer, incoming: Incoming) -> None:
        """Resolve the question."""
        incoming.done()
        self._heard.discard(message.request)
        future = self._questions.pop(message.request, None)
        if future is None:
            return
        if message.error:
            future.set_exception(IppmpiError(message.error))
        else:
            future.set_result(msgspec.msgpack.decode(message.value))

    def on_output(self, message: Output, incoming: Incoming) -> None:
        """Keep what a task printed."""
        pending = self.pending.get(message.task)
        index = None if pending is None else pending.index(message.engine)
        if pending is not None and index is not None and not pending.again(message.engine):
            pending.collector.printed(index, message.stream, message.text)
        incoming.done()

    def on_display(self, message: Display, incoming: Incoming) -> None:
        """Keep what a task displayed."""
        pending = self.pending.get(message.task)
        index = None if pending is None else pending.index(message.engine)
        if pending is not None and index is not None and not pending.again(message.engine):
            pending.collector.displayed(index, msgspec.msgpack.decode(message.data, type=dict[str, Any]))
        incoming.done()

    def on_published(self, message: Published, incoming: Incoming) -> None:
        """Keep the latest values that a task shows."""
        pending = self.pending.get(message.task)
        index = None if pending is None else pending.index(message.engine)
        if pending is not None and index is not None:
            pending.collector.parts[index].publish(message.values)
        incoming.done()

    def on_reply(self, message: Reply, incoming: Incoming) -> None:
        """Take the outcome of a task on one engine; a large value is fetched first."""
        pending = self.pending.get(message.task)
        index = None if pending is None else pending.index(message.engine)
        content = message.content
        if pending is None or index is None or index in pending.ended:
            if content.transfer:
                self.transport.reject(content.transfer)
            incoming.done()
        elif content.transfer and message.failure is None:
            self._fetch(message, pending, index, incoming)
        else:
            self._finish(message, pending, index, content.inline)
            incoming.done()

    def on_replies(self, message: Replies, incoming: Incoming) -> None:
        """Take the outcomes of a task on several engines."""
        pending = self.pending.get(message.task)
        if pending is not None:
            outcomes = []
            for reply in message.replies:
                index = pending.index(reply.engine)
                if index is not None and index not in pending.ended:
                    outcomes.append(self._outcome(reply, pending, index, reply.content.inline))
            pending.collector.take(outcomes)
        incoming.done()

    def _fetch(self, message: Reply, pending: Pending, index: int, incoming: Incoming) -> None:
        sink = sink_for(message.content, self.transport.peer_pid)

        def on_end(whole: bool) -> None:
            sink.close()
            self._finish(message, pending, index, sink.buffer if whole else None)
            incoming.done()

        # a hub that has lost its memory sends the reply again, see ``StillWaiting``
        self.transport.accept(message.content.transfer, sink, on_end, sink.close)

    def _finish(self, message: Reply, pending: Pending, index: int, value: Flat | None) -> None:
        if index not in pending.ended:  # else it came twice
            pending.collector.take([self._outcome(message, pending, index, value)])

    def _outcome(
        self, message: Reply, pending: Pending, index: int, value: Flat | None
    ) -> tuple[int, Flat | RemoteError]:
        pending.end(index)
        collector = pending.collector
        part = collector.parts[index]
        if message.engine >= 0:
            part.engine = message.engine
            if message.engine not in part.engines:  # it joined later
                part.engines = self.engines.records
        part.started, part.completed = message.started, message.completed
        if pending.left == 0:
            self.pending.pop(message.task, None)
        if message.failure is not None:
            return index, to_error(message.failure, collector.method)
        if value is None:
            engine = self.engines.last_seen(message.engine)
            return index, to_error(lost_on_the_way(message, engine), collector.method)
        return index, value

    # --- the end: any thread -----------------------------------------------------------------

    def close(self) -> None:
        """Take leave of the hub, end the I/O thread, fail what is pending."""
        if self.problem is not None and not self.pending:
            self.transport.close()
            return
        self.transport.call_soon(lambda: self.transport.send(Farewell()))
        closed = ConnectionError("this client was closed")
        self.transport.call_soon(lambda: self.broken(closed))
        self.transport.close()
        self.broken(closed)  # in case the I/O thread did not live to do it
