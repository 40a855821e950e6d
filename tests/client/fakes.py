"""A hub and its engines in this process, behind the client's transport seam.

What a client offers and accepts goes through real pickling and in small chunks, so everything but
the network is as in real life. Engines are namespaces; each has a thread that works in order.
"""

from __future__ import annotations

import queue
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import msgspec

from ippmpi.client.client import Client
from ippmpi.client.transport import Receiver
from ippmpi.wire.exceptions import take_apart
from ippmpi.wire.frames import decode, encode
from ippmpi.wire.messages import (
    INLINE_LIMIT,
    Abort,
    Answer,
    Content,
    Display,
    EngineRecord,
    EnginesChanged,
    Failure,
    Interrupt,
    Message,
    Output,
    Query,
    Reply,
    SendSignal,
    Shutdown,
    Submit,
)
from ippmpi.wire.pickling import pack, unpack
from ippmpi.wire.reasons import Explained, Reason

CHUNK = 50_001  # odd, so that chunks never end where parts do


class Incoming:
    """One message from the hub; the test's own ``net.Delivery``."""

    def __init__(self, message: Message) -> None:
        self.message = decode(encode(message))
        self.acknowledged = 0

    def done(self) -> None:
        self.acknowledged += 1


class FakeHub:
    """Answers a client. With ``automatic=False`` it keeps the submits and the test answers them."""

    def __init__(self, engines: int = 4, *, automatic: bool = True) -> None:
        self.automatic = automatic
        self.deaf = False  # to questions
        self.submits: list[Submit] = []
        self.messages: list[Message] = []
        self.incoming: list[Incoming] = []
        self.sources: dict[int, Any] = {}
        self.blobs: dict[int, bytes] = {}
        self.withdrawn: list[int] = []
        self.acks: list[Callable[[], None]] = []
        self.acknowledges = True
        self.took_s = 0.01  # what engines say of every task
        self.names: dict[int, dict[str, Any]] = {i: {"__name__": "__main__", "engine": i} for i in range(engines)}
        self.aborted: set[str] = set()
        self.reasons: list[Reason] = []
        self.stored: list[dict[str, object]] = []
        self.replays: dict[str, list[Message]] = {}
        self.silent: set[str] = set()
        self.replied: dict[str, set[int]] = defaultdict(set)
        self._turn = 0
        self._numbers = 0
        self._workers = {i: ThreadPoolExecutor(1, f"engine {i}") for i in range(engines)}
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="fake hub", daemon=True)
        self.receiver: Receiver

    # --- the client's transport ---

    def connect(self, client_id: str, receiver: Receiver) -> FakeHub:  # noqa: ARG002 - one client a hub
        self.receiver = receiver
        self._thread.start()
        self.call_soon(lambda: receiver.connected(fresh=True))
        self.tell(EnginesChanged([self.record(i) for i in self.names], [], []))
        return self

    def record(self, engine: int) -> EngineRecord:
        return EngineRecord(engine, engine, "world", "host", 1000 + engine, len(self.names))

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()

    def call_soon(self, call: Callable[[], None]) -> None:
        self._calls.put(call)

    folder = ""
    peer_pid = 0
    reachable = True

    def inside(self) -> bool:
        return threading.current_thread() is self._thread

    def offer(self, source: Any) -> int:
        self._numbers += 1
        self.sources[self._numbers] = source
        return self._numbers

    def withdraw(self, transfer: int) -> None:
        del self.sources[transfer]
        self.withdrawn.append(transfer)

    def accept(self, transfer: int, sink: Any, on_end: Callable[[bool], None], on_lost: Any = None) -> None:  # noqa: ARG002
        blob = self.blobs.pop(transfer, None)
        if blob is None:
            on_end(False)
            return
        for start in range(0, len(blob), CHUNK):
            sink.write(start, memoryview(blob)[start : start + CHUNK])
        on_end(True)

    def reject(self, transfer: int) -> None:
        self.blobs.pop(transfer, None)

    def close(self) -> None:
        if self._thread.is_alive():
            self._calls.put(None)
            self._thread.join(10)
        for worker in self._workers.values():
            worker.shutdown(wait=False, cancel_futures=True)

    def send(self, message: Message, on_ack: Callable[[], None] | None = None) -> None:
        assert self.inside()
        message = decode(encode(message))
        self.messages.append(message)
        if isinstance(message, Submit):
            self._submit(message)
        elif isinstance(message, Abort | Interrupt):
            self.aborted |= set([s.task for s in self.submits] if message.tasks is None else message.tasks)
            self.tell(Answer(message.request))
        elif isinstance(message, Query):
            self._query(message)
        elif isinstance(message, SendSignal | Shutdown):
            self.tell(Answer(message.request))
        if on_ack is not None:
            if self.acknowledges:
                self.call_soon(on_ack)
            else:
                self.acks.append(on_ack)

    def _query(self, message: Query) -> None:
        if message.what in ("results", "fetch"):
            self.look_up(message)
        elif message.what == "explain":
            self.tell(Answer(message.request, msgspec.msgpack.encode(Explained(self.reasons))))
        else:
            status = {i: {"queue": 0, "tasks": 0, "completed": 1} for i in self.names}
            self.tell(Answer(message.request, msgspec.msgpack.encode({**status, "unassigned": 0})))

    def look_up(self, message: Query) -> None:
        """Answer what ``stored`` says; the test tells what it has to say of a fetched task with ``replay``."""
        wanted = msgspec.msgpack.decode(message.arguments)
        if message.what in self.silent:
            return
        if message.what == "fetch":
            for task in wanted:
                for said in self.replays.get(task, []):
                    self.tell(said)
            answer: object = [task for task in wanted if task not in self.replays]
        else:
            answer = [r for r in self.stored if wanted["tasks"] is None or r["task"] in wanted["tasks"]]
        self.tell(Answer(message.request, msgspec.msgpack.encode(answer)))

    def store(self, task: str, engines: list[int], *said: Message, **fields: object) -> None:
        """Have a task in the store, of another client unless *fields* say otherwise, with what is to be replayed."""
        record = {"task": task, "client": "other", "op": "apply", "label": "", "state": "pending", "balanced": False}
        self.stored.append({**record, "engines": engines, "submitted": 1.0, "finished": None, **fields})
        self.replays[task] = list(said)

    # --- what the hub says ---

    def tell(self, message: Message) -> None:
        if self.deaf and isinstance(message, Answer):
            return
        incoming = Incoming(message)
        self.incoming.append(incoming)
        self.call_soon(lambda: self.receiver.take(incoming))

    def lose(self, engine: int, reason: str) -> None:
        del self.names[engine]
        self.tell(EnginesChanged([], [engine], [reason]))

    def join(self, engine: int) -> None:
        self.names[engine] = {"__name__": "__main__", "engine": engine}
        self._workers[engine] = ThreadPoolExecutor(1, f"engine {engine}")
        self.tell(EnginesChanged([self.record(engine)], [], []))

    def reply(self, task: str, engine: int, value: object) -> None:
        blob = pack(value).join()
        content = Content(inline=blob)
        if len(blob) > INLINE_LIMIT:
            self._numbers += 1
            self.blobs[self._numbers] = blob
            content = Content(size=len(blob), transfer=self._numbers)
        self._end(Reply(task, engine, content, None, time.time() - self.took_s, time.time()))

    def fail(self, task: str, engine: int, failure: Failure) -> None:
        self._end(Reply(task, engine, Content(), failure, time.time() - 0.01, time.time()))

    def _end(self, reply: Reply) -> None:
        self.replied[reply.task].add(reply.engine)
        self.tell(reply)

    def print(self, task: str, engine: int, text: str, stream: str = "stdout") -> None:
        self.tell(Output(task, engine, stream, text.encode()))

    def display(self, task: str, engine: int, text: str) -> None:
        record = {"kind": "display_data", "data": {"text/plain": text}, "metadata": {}}
        self.tell(Display(task, engine, msgspec.msgpack.encode(record)))

    # --- work ---

    def _submit(self, message: Submit) -> None:
        self.submits.append(message)
        blobs = [self._bytes(content) for content in message.contents]
        if not self.automatic:
            return
        targets = message.targets
        if message.placement is not None:
            candidates = sorted(message.placement.candidates or self.names)
            targets = [candidates[self._turn % len(candidates)]]
            self._turn += 1
        for place, engine in enumerate(targets):
            blob = blobs[0] if len(blobs) == 1 else blobs[place]
            self._workers[engine].submit(self._work, message, engine, blob)

    def _bytes(self, content: Content) -> bytes:
        if not content.transfer:
            return content.inline
        source = self.sources[content.transfer]
        assert content.size == source.size == source.available()
        return b"".join(bytes(source.read(i, min(i + CHUNK, source.size))) for i in range(0, source.size, CHUNK))

    def _work(self, message: Submit, engine: int, blob: bytes) -> None:
        where = {"engine": engine, "rank": engine, "world": "world", "host": "host", "pid": 1000 + engine}
        if message.task in self.aborted:
            self.fail(message.task, engine, Failure("TaskAborted", "taken back", kind="TaskAborted", **where))
            return
        try:
            value = self._perform(message, engine, unpack(blob))
        except BaseException as error:
            text = traceback.format_exc()
            types, made = take_apart(error)
            said = Failure(type(error).__name__, str(error), text, types=types, made=made, **where)
            self.fail(message.task, engine, said)
        else:
            self.reply(message.task, engine, value)

    def _perform(self, message: Submit, engine: int, request: Any) -> Any:
        names = self.names[engine]
        if message.op == "apply":
            function, args, kwargs = request
            return function(*args, **kwargs)
        if message.op == "push":
            names.update(request)
        elif message.op == "pull":
            return eval(request, names) if isinstance(request, str) else [eval(name, names) for name in request]
        elif message.op == "clear":
            names.clear()
        else:
            return self._execute(message, engine, request)
        return None

    def _execute(self, message: Submit, engine: int, request: dict[str, Any]) -> dict[str, Any]:
        names = self.names[engine]

        def say(*items: object) -> None:
            self.print(message.task, engine, " ".join(map(str, items)) + "\n")

        code = request["code"]
        result = None
        try:
            value = eval(code, {**names, "print": say})
            result = None if value is None or request["silent"] else {"text/plain": repr(value)}
        except SyntaxError:
            exec(compile(code, request["filename"] or "<cell>", "exec"), names | {"print": say}, names)
        return {"execution_count": 7, "source": code, "result": result, "metadata": {}}


@contextmanager
def connected(engines: int = 4, *, automatic: bool = True) -> Iterator[tuple[Client, FakeHub]]:
    """Give a client and the hub that it talks to."""
    hub = FakeHub(engines, automatic=automatic)
    client = Client(_connect=hub.connect)
    try:
        yield client, hub
    finally:
        client.close()
