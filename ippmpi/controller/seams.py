"""What the controller needs of its neighbours, so that tests can stand in for sockets and threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from ippmpi.core.effects import CacheJob, Effect, Found, Job, Keep
from ippmpi.core.restoring import Past
from ippmpi.ids import Peer, TaskId
from ippmpi.net.quiet import Quiet
from ippmpi.net.transfers import Sink, Source
from ippmpi.store.missed import Missed, Point
from ippmpi.store.records import RequestRecord, Selection
from ippmpi.wire.messages import Content, EnginesChanged, Message, Reply

Callback = Callable[[], None]


class Speaker(Protocol):
    """The part of net's ``Conversation`` that is used here."""

    @property
    def name(self) -> str:
        """Return the peer's name."""

    @property
    def quiet(self) -> Quiet:
        """Return where to log this peer's mistakes."""

    @property
    def role(self) -> str:
        """Return ``client`` or ``agent``."""

    @property
    def backlog(self) -> int:
        """Return how many bytes are queued that the peer has not acknowledged."""

    @property
    def stuck(self) -> bool:
        """Return whether the peer does not take what is queued, or slowly."""

    @property
    def heard(self) -> float:
        """Return when it was last heard of, on the loop's clock."""

    @property
    def about(self) -> Mapping[str, object]:
        """Return what the peer said of itself."""

    @property
    def peer_pid(self) -> int:
        """Return which process of this host it is, 0 if it is none."""

    def send(self, message: Message, *, on_ack: Callback | None = None, urgent: bool = False) -> None:
        """Queue a message."""

    def send_raw(self, raw: bytes, *, on_ack: Callback | None = None, urgent: bool = False) -> None:
        """Queue an encoded message."""

    def offer(self, source: Source) -> int:
        """Make a content available; return its number."""

    def withdraw(self, transfer: int) -> None:
        """Stop offering."""

    def fail(self, transfer: int) -> None:
        """Say that the rest will never come."""

    def more(self, transfer: int) -> None:
        """Say that more has become available."""

    def accept(self, transfer: int, sink: Sink, on_end: Callable[[bool], None]) -> None:
        """Pull a content of the peer."""

    def reject(self, transfer: int) -> None:
        """Do not take a content of the peer."""


class Brain(Protocol):
    """The part of ``core.hub.Hub`` that is used here: every call returns effects, to be carried out in order."""

    def restore(self, past: Past) -> Iterator[Effect]:
        """Go on where an earlier life ended."""

    def connected(self, peer: Peer, about: Mapping[str, object]) -> Iterator[Effect]:
        """A peer is there (again)."""

    def disconnected(self, peer: Peer) -> Iterator[Effect]:
        """A peer cannot be reached at the moment."""

    def gone(self, peer: Peer, reason: str) -> Iterator[Effect]:
        """A peer will not come back."""

    def handle(self, peer: Peer, message: Message) -> Iterator[Effect]:
        """A peer said something."""

    def recalled(self, task: TaskId, content: Content | None, now: float) -> Iterator[Effect]:
        """The cache has this for the task, or (None) nothing."""

    def content_failed(self, task: TaskId, content: Content, reason: str) -> Iterator[Effect]:
        """A content of this task will never be whole."""

    def stored(self, change: EnginesChanged) -> Iterator[Effect]:
        """It is written who has joined, or never will be."""

    def tick(self, now: float) -> Iterator[Effect]:
        """Time has passed."""

    @property
    def engine_count(self) -> int:
        """Return how many engines are registered and not lost."""

    def next_deadline(self) -> float | None:
        """Return when ``tick`` has something to do, on its clock."""


class Records(Protocol):
    """The part of ``store.keeper.Store`` that is used here."""

    def keep(self, record: Keep, done: Callback) -> None:
        """Write a record, then call *done* on the loop's thread."""

    def when_written(self, done: Callback) -> None:
        """Call *done* on the loop's thread once all that was kept before this call is written."""

    losses: int
    """How often records were dropped that somebody may still ask for."""

    @property
    def writable(self) -> bool:
        """Say whether records can be written."""

    def replies(self, task: str, found: Callable[[list[Reply]], None]) -> None:
        """Read the replies to a task, as ``select`` does."""

    def latest(self, found: Callable[[Point], None]) -> None:
        """Find the point behind all that was kept before this call, as ``select`` does."""

    def missed(self, client: str, after: Point, found: Callable[[Missed], None]) -> None:
        """Read some of what was kept about a client's tasks behind *after*, as ``select`` does."""

    def consult(self, job: Job, found: Callable[[Found], None]) -> None:
        """Do *job*, as ``select`` does."""

    def select(self, selection: Selection, found: Callable[[list[RequestRecord]], None], *, whole: bool) -> None:
        """Read what was kept before this call, then call *found* on the loop's thread."""


class CachedValue(Protocol):
    """The part of ``store.cachefile.Value`` that is used here."""

    @property
    def size(self) -> int:
        """Return how many bytes it has."""

    @property
    def content(self) -> bytes | None:
        """Return a small one."""

    @property
    def path(self) -> Path | None:
        """Return where a large one is, in a file of the caller's own."""


class Cache(Protocol):
    """The part of ``store.cache.Cache`` that is used here; answers come on the loop's thread, in order."""

    def get(self, digest: str, folder: Path, found: Callable[[CachedValue | None], None]) -> None:
        """Look for a value; a large one is put into *folder*."""

    def put(self, digest: str, name: str, value: bytes | Path, size: int, done: Callback) -> None:
        """Keep a value."""

    def consult(self, job: CacheJob, found: Callable[[Found], None]) -> None:
        """Do *job*."""


class Mail(Protocol):
    """The part of net's ``Delivery`` that is used here."""

    @property
    def peer(self) -> Speaker:
        """Return who sent it."""

    @property
    def message(self) -> Message:
        """Return what it says."""

    @property
    def raw(self) -> bytes:
        """Return it as it came."""

    def done(self) -> None:
        """Let it be acknowledged."""


class Post(Protocol):
    """The part of net's ``Router`` that is used here."""

    def conversation(self, name: str) -> Speaker | None:
        """Return the conversation with the peer of that name."""

    def conversations(self) -> Iterable[Speaker]:
        """Return all conversations."""

    def expect(self, name: str, role: str) -> Speaker:
        """Begin a conversation with a peer that will come back."""

    def forget(self, name: str) -> None:
        """End a conversation for good."""


class Clock(Protocol):
    """The part of net's ``Loop`` that is used here."""

    @property
    def now(self) -> float:
        """Return the time of this round, monotonic."""

    def call_soon(self, call: Callback) -> None:
        """Call in the next round."""

    def call_later(self, delay_s: float, call: Callback) -> Alarm:
        """Call in *delay_s* seconds."""


class Alarm(Protocol):
    """The part of net's ``Timer`` that is used here."""

    def cancel(self) -> None:
        """Do not call."""
