"""One side of a session: what was sent, what arrived, what is owned by its next owner. Pure.

A session outlives connections. Every message gets a number when it first leaves. Two counters
travel back:

* *received*: it arrived. Used for flow control, and to know where to go on after a break.
* *ack*: its next owner has it (rule 8 of the design), so the sender may forget it. Acks are given
  by the application (``done``), in any order; what travels is the end of the unbroken run.

If the other side lost its memory (another process), both start at number 1 again and everything
not yet acked is sent again; the ends drop duplicates by task id.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ippmpi.errors import ProtocolError
from ippmpi.wire.messages import Batch

WINDOW_BYTES = 1024 * 1024
"""Control bytes that may be under way; what waits behind them can be overtaken by urgent messages."""

BATCH_BYTES = 256 * 1024
"""A batch is closed when it holds this much, so that no single frame grows without bound."""

OnAck = Callable[[], None] | None


class Session:
    """Sequence numbers, acknowledgement, resend and duplicate removal for one peer."""

    def __init__(self) -> None:
        """Start empty, at number 1 in both directions."""
        self._unsent: deque[tuple[bytes, OnAck]] = deque()
        self._unacked: deque[tuple[bytes, OnAck]] = deque()
        self._first_unacked = 1
        self._sent_sizes: deque[int] = deque()  # of messages sent and not known to have arrived
        self._in_flight = 0
        self._peer_received = 0
        self.received = 0
        self._owned = 0
        self._owned_early: set[int] = set()
        self._told_ack = 0
        self._told_received = 0
        self._unreported_bytes = 0
        self.backlog = 0
        self.epoch = 0

    # --- sending -----------------------------------------------------------------------------

    def send(self, raw: bytes, on_ack: OnAck = None, *, urgent: bool = False) -> None:
        """Queue *raw*; *on_ack* is called once its next owner has it. Urgent ones overtake what has not left."""
        self.backlog += len(raw)
        if urgent:
            self._unsent.appendleft((raw, on_ack))
        else:
            self._unsent.append((raw, on_ack))

    def overtake(self, raw: bytes, on_ack: OnAck, behind: Callable[[bytes], bool]) -> None:
        """Queue *raw* before all that cannot leave now, but after the last message of which *behind* is true."""
        self.backlog += len(raw)
        passed = 0
        if self._in_flight + sum(len(queued) for queued, _ in self._unsent) > WINDOW_BYTES:
            for queued, _ in reversed(self._unsent):
                if behind(queued):
                    break
                passed += 1
        self._unsent.insert(len(self._unsent) - passed, (raw, on_ack))

    def next_batch(self) -> Batch | None:
        """Return what may leave now, None if nothing. Whatever is queued leaves together, up to the size of a batch."""
        if not self._unsent or self._in_flight >= WINDOW_BYTES:
            return None
        first = self._first_unacked + len(self._unacked)
        return self._batch(first, self._fill())

    def _fill(self) -> list[bytes]:
        messages: list[bytes] = []
        total = 0
        unsent, unacked, sizes = self._unsent, self._unacked, self._sent_sizes
        while unsent and total < BATCH_BYTES:
            entry = unsent.popleft()
            raw = entry[0]
            size = len(raw)
            total += size
            messages.append(raw)
            sizes.append(size)
            unacked.append(entry)
        self._in_flight += total
        return messages

    def _batch(self, first: int, messages: list[bytes]) -> Batch:
        self._told_ack = self._owned
        self._told_received = self.received
        self._unreported_bytes = 0
        return Batch(first, self._owned, self.received, messages)

    def notice(self) -> Batch:
        """Return a batch without messages: the counters, or just a sign of life."""
        return self._batch(self._first_unacked + len(self._unacked), [])

    @property
    def owes_ack(self) -> bool:
        """Whether the peer has not been told the latest ``ack`` yet."""
        return self._told_ack != self._owned

    @property
    def owes_window(self) -> bool:
        """Whether so much has arrived since the last word that the peer may be waiting for window."""
        return self._unreported_bytes > WINDOW_BYTES // 4

    @property
    def has_news(self) -> bool:
        """Whether the peer is owed an answer, or something waits whose window may just have opened."""
        return (
            self._told_ack != self._owned
            or self._unreported_bytes > WINDOW_BYTES // 4
            or (bool(self._unsent) and self._in_flight < WINDOW_BYTES)
        )

    @property
    def idle(self) -> bool:
        """Whether everything sent is owned by its next owner and nothing waits."""
        return not self._unsent and not self._unacked

    @property
    def settled(self) -> bool:
        """Whether all that was ever sent had arrived when the peer spoke last."""
        return not self._unsent and self._peer_received == self._first_unacked + len(self._unacked) - 1

    @property
    def begun(self) -> bool:
        """Whether anything is known to have arrived, in either direction, since the numbers began."""
        return self.received > 0 or self._peer_received > 0

    @property
    def stuck(self) -> bool:
        """Whether more messages wait to leave than are under way: the peer does not take them, or slowly."""
        return len(self._unsent) > len(self._unacked)

    # --- receiving ---------------------------------------------------------------------------

    def take(self, batch: Batch) -> list[tuple[int, bytes]]:
        """Return the new messages of *batch* with their numbers; drop those that arrived before.

        Raises:
            ProtocolError: numbers are missing in between, or the peer acknowledges what was never sent.
        """
        if batch.received != self._peer_received:
            self._on_received(batch.received)
        if batch.ack >= self._first_unacked:
            self._on_ack(batch.ack)
        first, messages = batch.first, batch.messages
        if not messages:
            return []
        if first > self.received + 1:
            raise ProtocolError(f"expected message {self.received + 1}, got {first}: some are missing in between")
        skip = self.received + 1 - first
        new = messages[skip:] if skip else messages
        start = self.received + 1
        self.received = max(self.received, first + len(messages) - 1)
        self._unreported_bytes += sum(map(len, new))
        return list(enumerate(new, start))

    def _on_received(self, received: int) -> None:
        if received > self._first_unacked + len(self._unacked) - 1:
            raise ProtocolError(f"peer says message {received} arrived, which was never sent")
        while self._peer_received < received and self._sent_sizes:
            self._in_flight -= self._sent_sizes.popleft()
            self._peer_received += 1

    def _on_ack(self, ack: int) -> None:
        if ack > self._peer_received:
            raise ProtocolError(f"peer acknowledges message {ack} before it arrived")
        while self._first_unacked <= ack:
            raw, on_ack = self._unacked.popleft()
            self._first_unacked += 1
            self.backlog -= len(raw)
            if on_ack is not None:
                on_ack()

    def done(self, number: int, epoch: int) -> None:
        """Say that message *number* has its next owner. ``epoch``: that of its arrival, see ``restart``."""
        if epoch != self.epoch:
            return  # the peer numbers anew and sends it again; the end drops the duplicate
        if number != self._owned + 1:
            self._owned_early.add(number)
            return
        number += 1
        early = self._owned_early
        while number in early:
            early.remove(number)
            number += 1
        self._owned = number - 1

    # --- after a break -----------------------------------------------------------------------

    def can_resume(self, peer_received: int) -> bool:
        """Whether that can be true: not less than it has acknowledged, not more than was sent."""
        sent = self._first_unacked + len(self._unacked) - 1
        return max(self._first_unacked - 1, self._peer_received) <= peer_received <= sent

    def resume(self, peer_received: int) -> None:
        """Go on with the same peer, to whom everything up to *peer_received* has arrived."""
        self._on_received(peer_received)
        lost = self._first_unacked + len(self._unacked) - 1 - peer_received
        self._requeue(lost)
        self._told_ack = self._told_received = -1  # say both again

    def restart(self) -> None:
        """Go on with a peer that remembers nothing: number anew, send again what is not acked."""
        self._requeue(len(self._unacked))
        self._first_unacked = 1
        self._peer_received = 0
        self.received = self._owned = self._told_ack = self._told_received = 0
        self._owned_early.clear()
        self.epoch += 1

    def _requeue(self, count: int) -> None:
        for _ in range(count):
            self._unsent.appendleft(self._unacked.pop())
        self._sent_sizes.clear()
        self._in_flight = 0
