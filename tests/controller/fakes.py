"""A loop that is stepped by hand, a brain that follows a script, and conversations whose wires are queues."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from ippmpi.controller.controller import Controller
from ippmpi.core.effects import CacheJob, Effect, Found, Job, Keep
from ippmpi.net.conversation import Conversation, Delivery
from ippmpi.store.cachefile import Value
from ippmpi.store.missed import Missed, Point
from ippmpi.store.records import RequestRecord, Selection
from ippmpi.wire.frames import decode_link
from ippmpi.wire.messages import Batch, Chunk, Content, EnginesChanged, Grant, Message, Reply

Callback = Callable[[], None]


class Alarm:
    def __init__(self, due: float, call: Callback) -> None:
        self.due, self.call = due, call
        self.on = True

    def cancel(self) -> None:
        self.on = False


class FakeLoop:
    """Time passes only in ``pass_time``."""

    def __init__(self) -> None:
        self.now = 100.0
        self._soon: deque[Callback] = deque()
        self._alarms: list[Alarm] = []

    def call_soon(self, call: Callback) -> None:
        self._soon.append(call)

    def call_later(self, delay_s: float, call: Callback) -> Alarm:
        self._alarms.append(Alarm(self.now + delay_s, call))
        return self._alarms[-1]

    def run(self) -> None:
        while self._soon:
            self._soon.popleft()()

    def pass_time(self, delay_s: float) -> None:
        self.run()
        end = self.now + delay_s
        while due := [a for a in self._alarms if a.on and a.due <= end]:
            first = min(due, key=lambda a: a.due)
            self._alarms.remove(first)
            self.now = max(self.now, first.due)
            first.call()
            self.run()
        self.now = end

    @property
    def alarms(self) -> list[float]:
        return sorted(a.due - self.now for a in self._alarms if a.on)


class Brain:
    """Answers each call with what the test put into ``script``; remembers the calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.script: dict[object, Callable[..., Iterable[Effect]]] = {}
        self.deadline: float | None = None
        self.engine_count = 0

    def _play(self, name: object, *values: object) -> Iterator[Effect]:
        self.calls.append((name, *values))
        yield from self.script.get(name, lambda *_: ())(*values)

    def restore(self, past: object) -> Iterator[Effect]:
        return self._play("restore", past)

    def connected(self, peer: str, about: Mapping[str, object]) -> Iterator[Effect]:
        return self._play("connected", peer, dict(about))

    def disconnected(self, peer: str) -> Iterator[Effect]:
        return self._play("disconnected", peer)

    def gone(self, peer: str, reason: str) -> Iterator[Effect]:
        return self._play("gone", peer, reason)

    def handle(self, peer: str, message: Message) -> Iterator[Effect]:
        return self._play(type(message), peer, message)

    def content_failed(self, task: str, content: Content, reason: str) -> Iterator[Effect]:
        return self._play("content_failed", task, content, reason)

    def recalled(self, task: str, content: Content | None, now: float) -> Iterator[Effect]:  # noqa: ARG002
        return self._play("recalled", task, content)

    def stored(self, change: EnginesChanged) -> Iterator[Effect]:
        return self._play("stored", change)

    def tick(self, now: float) -> Iterator[Effect]:
        return self._play("tick", now)

    def next_deadline(self) -> float | None:
        return self.deadline

    def heard(self, name: object) -> list[tuple[object, ...]]:
        return [values for what, *values in self.calls if what == name]


class Records:
    """Keeps records until the test commits them."""

    def __init__(self) -> None:
        self.kept: list[Keep] = []
        self._waiting: list[Callback] = []
        self.looks: list[tuple[str, Point, Callable[[Missed], None]]] = []
        self.jobs: list[tuple[Job, Callable[[Found], None]]] = []
        self.questions: list[tuple[Selection, bool, Callable[[list[RequestRecord]], None]]] = []

    def select(self, selection: Selection, found: Callable[[list[RequestRecord]], None], *, whole: bool) -> None:
        self.questions.append((selection, whole, found))

    def consult(self, job: Job, found: Callable[[Found], None]) -> None:
        self.jobs.append((job, found))

    def keep(self, record: Keep, done: Callback) -> None:
        self.kept.append(record)
        self._waiting.append(done)

    def when_written(self, done: Callback) -> None:
        if self._waiting:
            self._waiting.append(done)
        else:
            done()

    losses = 0
    writable = True

    def replies(self, task: str, found: Callable[[list[Reply]], None]) -> None:
        found([k.message for k in self.kept if isinstance(k.message, Reply) and k.task == task])

    def latest(self, found: Callable[[Point], None]) -> None:
        found(Point(0, len(self.kept)))

    def missed(self, client: str, after: Point, found: Callable[[Missed], None]) -> None:
        self.looks.append((client, after, found))

    def commit(self) -> None:
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done()


class Caching:
    """Holds values in memory, and questions until the test answers them."""

    def __init__(self) -> None:
        self.values: dict[str, bytes | Path] = {}
        self.questions: list[tuple[str, Path, Callable[[Value | None], None]]] = []
        self.jobs: list[tuple[CacheJob, Callable[[Found], None]]] = []

    def get(self, digest: str, folder: Path, found: Callable[[Value | None], None]) -> None:
        self.questions.append((digest, folder, found))

    def put(self, digest: str, name: str, value: bytes | Path, size: int, done: Callback) -> None:  # noqa: ARG002
        self.values[digest] = value if isinstance(value, bytes) else value.read_bytes()
        done()

    def consult(self, job: CacheJob, found: Callable[[Found], None]) -> None:
        self.jobs.append((job, found))


class _Wire:
    peer_pid = 0

    def __init__(self, frames: deque[tuple[bytes, bytes]]) -> None:
        self._frames = frames

    def full(self) -> bool:
        return False

    def send(self, frame: bytes) -> None:
        self._frames.append((frame, b""))

    def send_bulk(self, frame: bytes, data: bytes) -> None:
        self._frames.append((frame, bytes(data)))


class Pair:
    """A peer and the controller's side of the conversation with it; ``chunks`` is how many may pass."""

    def __init__(self, name: str, role: str) -> None:
        self.near = Conversation(name, role, lambda _: None)  # the controller's
        self.far = Conversation("controller", "controller", lambda _: None)
        self.got: list[Delivery] = []
        self.acked: list[object] = []
        self.chunks = 1_000_000
        self.connect()

    def connect(self) -> None:
        """Connect the two sides by empty wires."""
        self._to_near: deque[tuple[bytes, bytes]] = deque()
        self._to_far: deque[tuple[bytes, bytes]] = deque()
        for side, frames in ((self.near, self._to_far), (self.far, self._to_near)):
            side.open_control(_Wire(frames), known=True, received=0)
            side.open_data(_Wire(frames))

    def local(self, pid: int) -> None:
        """Let the peer be process *pid* of this host."""
        assert isinstance(self.near.control, _Wire)
        self.near.control.peer_pid = pid

    def say(self, message: Message) -> None:
        self.far.send(message, on_ack=lambda: self.acked.append(message))

    def pump(self, on_message: Callable[[Delivery], None]) -> bool:
        """Move everything that is to be moved once; return whether there was anything."""
        for side in (self.near, self.far):
            side.flush()
            if side.session.owes_ack:
                side.notice()
        moved = self._move(self._to_near, self.near, on_message)
        return self._move(self._to_far, self.far, self.got.append) or moved

    def _move(self, frames: deque[tuple[bytes, bytes]], side: Conversation, on_message: Callable[..., None]) -> bool:
        later: list[tuple[bytes, bytes]] = []
        moved = False
        while frames:
            frame, data = frames.popleft()
            record = decode_link(frame)
            if isinstance(record, Chunk) and not record.failed:
                if not self.chunks:
                    later.append((frame, data))
                    continue
                self.chunks -= 1
            moved = True
            if isinstance(record, Batch):
                for delivery in side.on_batch(record):
                    on_message(delivery)
            elif isinstance(record, Grant):
                side.on_grant(record)
            elif isinstance(record, Chunk):
                side.on_chunk(record, memoryview(data))
        frames.extend(later)
        return moved


class Post:
    """The router's part: knows the pairs by name."""

    def __init__(self) -> None:
        self.pairs: dict[str, Pair] = {}
        self.forgotten: list[str] = []

    def add(self, pair: Pair) -> Pair:
        self.pairs[pair.near.name] = pair
        return pair

    def conversation(self, name: str) -> Conversation | None:
        return self.pairs[name].near if name in self.pairs else None

    def expect(self, name: str, role: str) -> Conversation:
        pair = self.pairs.get(name) or self.add(Pair(name, role))
        return pair.near

    def conversations(self) -> list[Conversation]:
        return [pair.near for pair in self.pairs.values()]

    def forget(self, name: str) -> None:
        self.forgotten.append(name)
        pair = self.pairs.pop(name, None)
        if pair is not None:
            pair.near.transfers.lose_incoming()

    def pump(self, loop: FakeLoop, controller: Controller) -> None:
        """Let everything that can move come to rest."""
        moved = True
        while moved:
            moved = sum(pair.pump(controller.on_message) for pair in list(self.pairs.values())) > 0
            loop.run()


class Bytes:
    """A content in memory: a source, and a sink."""

    def __init__(self, data: bytes = b"", size: int = 0) -> None:
        self.data = bytearray(data)
        self.size = size or len(data)

    def available(self) -> int:
        return len(self.data)

    def read(self, start: int, stop: int) -> bytes:
        return bytes(self.data[start:stop])

    def write(self, offset: int, data: memoryview) -> None:
        assert offset == len(self.data)
        self.data += data
