"""Large contents in chunks, pulled by the receiver. Pure.

The receiver of a transfer grants a range; the sender sends chunks inside it, round robin over all
its transfers. All state that matters is the receiver's: after a break it grants again from where it
is and the sender follows. The window is about 0.2 s of the measured bandwidth, so that a control
message that shares the wire (one SSH stream) waits no longer than that.

Between processes of one host the bytes need not cross the wire: a receiver that has opened the file named beside
the transfer (a ``FileSink``) says so in its grants, and a chunk then says that they are in that file. Whatever
cannot be done that way is sent, chunk by chunk.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import msgspec

from ippmpi.errors import ProtocolError
from ippmpi.wire.messages import Chunk, Grant

if TYPE_CHECKING:
    from typing_extensions import Buffer

log = logging.getLogger(__name__)

CHUNK_BYTES = 1024 * 1024  # per byte three times faster than one 64 MB message (fresh pages for each big buffer)
PLACED_BYTES = 8 * 1024 * 1024  # of a chunk in a file: about 3 ms in which a thread that has other work copies
SMALLEST_CHUNK = 32 * 1024
SMALLEST_WINDOW = 256 * 1024
LARGEST_WINDOW = 2 * PLACED_BYTES  # of a file one is filled while the other is read
WINDOW_S = 0.2
RATE_SAMPLE_S = 0.05


class Source(Protocol):
    """Where the bytes of an outgoing transfer come from."""

    @property
    def size(self) -> int:
        """Total number of bytes."""

    def available(self) -> int:
        """Return how many bytes can be read already (cut-through: a relay sends what it has)."""

    def read(self, start: int, stop: int) -> Buffer:
        """Return bytes ``start`` up to ``stop``; OSError if they cannot be had (the transfer then fails)."""

    def place(self, start: int, stop: int) -> None:
        """Put them into the file named beside the transfer; OSError if that cannot be (they are sent then)."""


class Sink(Protocol):
    """Where the bytes of an incoming transfer go."""

    @property
    def size(self) -> int:
        """Total number of bytes."""

    def write(self, offset: int, data: memoryview) -> None:
        """Take the next bytes; they come in order and without gaps."""


@runtime_checkable
class FileSink(Sink, Protocol):
    """A sink that has opened the file named beside the transfer."""

    def placed(self, offset: int, count: int) -> None:
        """Take the next bytes from that file; OSError if they cannot be had there (they are sent then)."""


class Outgoing(msgspec.Struct):
    """One content on its way out. ``step``: bytes of a chunk, so that at least two are in what was granted last."""

    source: Source
    position: int = 0
    limit: int = 0
    step: int = CHUNK_BYTES
    failed: bool = False
    by_file: bool = False


class Incoming(msgspec.Struct):
    """One content on its way in."""

    sink: Sink
    on_end: Callable[[bool], None]
    on_lost: Callable[[], None] | None = None
    received: int = 0
    granted: int = 0
    by_file: bool = False


class Transfers:
    """All transfers of one conversation, both directions. Times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        """Start with none."""
        self._number = 0
        self._outgoing: OrderedDict[int, Outgoing] = OrderedDict()
        self._incoming: dict[int, Incoming] = {}
        self._grants: list[Grant] = []
        self._window = SMALLEST_WINDOW
        self._sample_start = 0.0
        self._sample_bytes = 0

    # --- sending -----------------------------------------------------------------------------

    def offer(self, source: Source) -> int:
        """Register an outgoing content; return its number, which goes into ``Content.transfer``."""
        self._number += 1
        self._outgoing[self._number] = Outgoing(source)
        return self._number

    def withdraw(self, transfer: int) -> None:
        """Forget an outgoing content: the peer has it, or it is not wanted."""
        self._outgoing.pop(transfer, None)

    def fail(self, transfer: int) -> None:
        """Tell the peer that the rest of an outgoing content will never come."""
        out = self._outgoing.get(transfer)
        if out is not None:
            out.failed = True

    def on_grant(self, grant: Grant) -> Chunk | None:
        """Take the peer's grant. A transfer that does not exist (any more) is answered with a failed chunk."""
        out = self._outgoing.get(grant.transfer)
        if out is None:
            return None if grant.limit < 0 else Chunk(grant.transfer, 0, failed=True)
        if grant.limit < 0:
            self.withdraw(grant.transfer)
            return None
        if not -1 <= grant.start <= grant.limit <= out.source.size:
            raise ProtocolError(
                f"grant of bytes {grant.start} to {grant.limit} of transfer {grant.transfer}, "
                f"which has {out.source.size}"
            )
        position = grant.start if grant.start >= 0 else out.position
        if grant.limit - position > LARGEST_WINDOW:  # all of it would be queued on this side
            raise ProtocolError(f"a grant of {grant.limit - position} bytes; at most {LARGEST_WINDOW} are allowed")
        if grant.start >= 0:
            out.position = grant.start  # the first grant on this connection
        out.limit = grant.limit
        out.step = min(CHUNK_BYTES, max(SMALLEST_CHUNK, (grant.limit - out.position) // 2))
        out.by_file = grant.by_file
        return None

    def rewind(self) -> None:
        """Forget all grants: the connection they came on is gone and the peer will grant again."""
        for out in self._outgoing.values():
            out.limit = 0

    def chunks(self) -> Iterator[tuple[Chunk, Buffer]]:
        """Yield all chunks that may leave now, round robin."""
        progress = True
        while progress:
            progress = False
            for number, out in list(self._outgoing.items()):
                pair = self._next_chunk(number, out)
                if pair is not None:
                    progress = True
                    yield pair

    def _next_chunk(self, number: int, out: Outgoing) -> tuple[Chunk, Buffer] | None:
        if out.failed:
            self.withdraw(number)
            return Chunk(number, out.position, failed=True), b""
        stop = min(out.limit, out.source.available())
        if stop <= out.position:
            return None
        start = out.position
        if out.by_file:
            placed = min(stop, start + PLACED_BYTES)
            try:
                out.source.place(start, placed)
            except OSError as error:
                log.debug("transfer %d is sent from byte %d on: %s", number, start, error)
                out.by_file = False  # until the next grant
            else:
                out.position = placed
                return Chunk(number, start, placed=placed - start), b""
        stop = min(stop, start + out.step)
        try:
            data = out.source.read(start, stop)
        except OSError:  # a disk that fails, a process that is gone: this content is lost, not the link
            self.withdraw(number)
            return Chunk(number, start, failed=True), b""
        out.position = stop
        return Chunk(number, start), data

    # --- receiving ---------------------------------------------------------------------------

    def accept(
        self,
        transfer: int,
        sink: Sink,
        on_end: Callable[[bool], None],
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        """Pull incoming content *transfer* into *sink*; *on_end* gets True when it is whole, False if it failed.

        *on_lost* (default: it failed) is called instead if the sender has lost its memory: then the message that
        named the content will come again, with another number.
        """
        if transfer in self._incoming:
            raise ProtocolError(f"transfer {transfer} is under way already")
        if sink.size == 0:
            on_end(True)
            return
        self._incoming[transfer] = Incoming(sink, on_end, on_lost, by_file=isinstance(sink, FileSink))
        self._grant(transfer)

    def reject(self, transfer: int) -> None:
        """Do not take this content (any more)."""
        self._incoming.pop(transfer, None)
        self._grants.append(Grant(transfer, 0, -1))

    def _share(self, incoming: Incoming) -> int:
        window = LARGEST_WINDOW if incoming.by_file else self._window
        return max(SMALLEST_CHUNK, window // max(1, len(self._incoming)))

    def _grant(self, transfer: int, *, again: bool = False) -> None:
        incoming = self._incoming[transfer]
        limit = min(incoming.sink.size, incoming.received + self._share(incoming))
        if again or limit > incoming.granted:
            start = incoming.received if again or not incoming.granted else -1
            incoming.granted = limit
            self._grants.append(Grant(transfer, start, limit, incoming.by_file))

    def take_grants(self) -> list[Grant]:
        """Return the grants to be sent now."""
        grants, self._grants = self._grants, []
        return grants

    def grant_again(self) -> None:
        """Repeat all grants: the connection is new."""
        self._grants.clear()
        for transfer in self._incoming:
            self._grant(transfer, again=True)

    def on_chunk(self, chunk: Chunk, data: memoryview, now: float) -> None:
        """Take a chunk. One that is not the next of its transfer is late news from a broken connection."""
        incoming = self._incoming.get(chunk.transfer)
        if incoming is None:
            return
        if chunk.failed:
            del self._incoming[chunk.transfer]
            incoming.on_end(False)
            return
        if chunk.offset != incoming.received:
            return
        count = chunk.placed or len(data)
        if not 0 <= count <= incoming.granted - incoming.received:
            raise ProtocolError(f"transfer {chunk.transfer}: {count} bytes at {chunk.offset} exceed the grant")
        if chunk.placed:
            self._take_placed(incoming, chunk)
        else:
            incoming.sink.write(chunk.offset, data)
            incoming.received += count
            self._measure(count, now)
        if incoming.received == incoming.sink.size:
            del self._incoming[chunk.transfer]
            incoming.on_end(True)
        elif incoming.granted - incoming.received <= self._share(incoming) // 2:
            self._grant(chunk.transfer)

    def _take_placed(self, incoming: Incoming, chunk: Chunk) -> None:
        """Have bytes taken from their file; if that fails, ask for them by wire."""
        if not incoming.by_file or not isinstance(incoming.sink, FileSink):
            raise ProtocolError(f"transfer {chunk.transfer}: bytes in a file that was not asked for")
        try:
            incoming.sink.placed(chunk.offset, chunk.placed)
            incoming.received += chunk.placed
        except OSError as error:
            log.debug("transfer %d is pulled from byte %d on: %s", chunk.transfer, chunk.offset, error)
            incoming.by_file = False
            self._grant(chunk.transfer, again=True)

    def _measure(self, size: int, now: float) -> None:
        self._sample_bytes += size
        elapsed = now - self._sample_start
        if elapsed < RATE_SAMPLE_S:
            return
        if elapsed < 1.0:  # a longer gap was idle time, not bandwidth
            rate = self._sample_bytes / elapsed
            self._window = int(min(LARGEST_WINDOW, max(SMALLEST_WINDOW, rate * WINDOW_S)))
        self._sample_start, self._sample_bytes = now, 0

    def lose_incoming(self) -> None:
        """The sender lost its memory: what was coming never will."""
        lost, self._incoming = self._incoming, {}
        self._grants.clear()
        for incoming in lost.values():
            if incoming.on_lost is not None:
                incoming.on_lost()
            else:
                incoming.on_end(False)

    @property
    def active(self) -> bool:
        """Whether anything is to be sent or received over the data connection."""
        return bool(self._outgoing or self._incoming or self._grants)
