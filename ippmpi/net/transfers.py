"""Large contents in chunks, pulled by the receiver. Pure.

The receiver of a transfer grants a range; the sender sends chunks inside it, round robin over all
its transfers. All state that matters is the receiver's: after a break it grants again from where it
is and the sender follows. The window is about 0.2 s of the measured bandwidth, so that a control
message that shares the wire (one SSH stream) waits no longer than that.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

import msgspec

from ippmpi.errors import ProtocolError
from ippmpi.wire.messages import Chunk, Grant

if TYPE_CHECKING:
    from typing_extensions import Buffer

CHUNK_BYTES = 1024 * 1024  # per byte three times faster than one 64 MB message (fresh pages for each big buffer)
SMALLEST_CHUNK = 32 * 1024
SMALLEST_WINDOW = 256 * 1024
LARGEST_WINDOW = 8 * 1024 * 1024
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


class Sink(Protocol):
    """Where the bytes of an incoming transfer go."""

    @property
    def size(self) -> int:
        """Total number of bytes."""

    def write(self, offset: int, data: memoryview) -> None:
        """Take the next bytes; they come in order and without gaps."""


class Outgoing(msgspec.Struct):
    """One content on its way out."""

    source: Source
    position: int = 0
    limit: int = 0
    failed: bool = False


class Incoming(msgspec.Struct):
    """One content on its way in."""

    sink: Sink
    on_end: Callable[[bool], None]
    on_lost: Callable[[], None] | None = None
    received: int = 0
    granted: int = 0


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
        wish = max(SMALLEST_CHUNK, (out.limit - out.position) // 2)
        start, stop = out.position, min(stop, out.position + min(CHUNK_BYTES, wish))
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
        self._incoming[transfer] = Incoming(sink, on_end, on_lost)
        self._grant(transfer)

    def reject(self, transfer: int) -> None:
        """Do not take this content (any more)."""
        self._incoming.pop(transfer, None)
        self._grants.append(Grant(transfer, 0, -1))

    def _share(self) -> int:
        return max(SMALLEST_CHUNK, self._window // max(1, len(self._incoming)))

    def _grant(self, transfer: int, *, again: bool = False) -> None:
        incoming = self._incoming[transfer]
        limit = min(incoming.sink.size, incoming.received + self._share())
        if again or limit > incoming.granted:
            start = incoming.received if again or not incoming.granted else -1
            incoming.granted = limit
            self._grants.append(Grant(transfer, start, limit))

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
        if incoming.received + len(data) > incoming.granted:
            raise ProtocolError(f"transfer {chunk.transfer}: {len(data)} bytes at {chunk.offset} exceed the grant")
        incoming.sink.write(chunk.offset, data)
        incoming.received += len(data)
        self._measure(len(data), now)
        if incoming.received == incoming.sink.size:
            del self._incoming[chunk.transfer]
            incoming.on_end(True)
        elif incoming.granted - incoming.received <= self._share() // 2:
            self._grant(chunk.transfer)

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
