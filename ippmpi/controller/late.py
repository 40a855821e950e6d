"""Clients that do not take what they are sent as fast as it comes, or not at all: the store keeps it for them.

Once ``limit_bytes`` wait to leave for a client, results and output of its tasks are not sent any more. (For one that
takes them but does not acknowledge, as it is busy with a large value, it is ``MOST`` times as many.) They are in the
store, behind the point that it had reached then. When the client has taken what had been sent, the rest is read from
there, page by page, until nothing is left; what comes during the last look waits here. So memory is bounded, and
everything comes once and in order.

What tasks publish while they run is not stored: what would come on top of ``limit_bytes`` is dropped.

Large values wait in the spool anyhow, so their replies (which are small) stay here and come last.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from ippmpi.controller.seams import Callback, Records, Speaker
from ippmpi.store.missed import Missed, Point
from ippmpi.wire.messages import Display, Message, Output, Published, Recheck, Replies, Reply

log = logging.getLogger(__name__)

MOST = 4

NEWS = (Reply, Replies, Output, Display)


@dataclass(slots=True, eq=False)
class _Client:
    """One of them. ``held``: what came since the store was asked, None when it is not being asked.

    ``room``: it has taken all that was sent. ``others``: it has missed something about tasks of other clients.
    """

    losses: int
    point: Point | None = None
    room: bool = False
    held: list[Message] | None = None
    large: list[Message] = field(default_factory=list)
    others: bool = False


class Late:
    """All clients that are late now. Belongs to the loop's thread."""

    def __init__(
        self,
        records: Records,
        speaker_of: Callable[[str], Speaker | None],
        send: Callable[[str, Message], None],
        limit_bytes: int,
    ) -> None:
        """Read *records*; *send* is how messages with contents, and live ones, go to a client."""
        self._records = records
        self._speaker_of = speaker_of
        self._send = send
        self._limit = limit_bytes
        self._clients: dict[str, _Client] = {}

    def takes(self, speaker: Speaker, message: Message, *, stored: bool) -> bool:
        """Say whether *message* must not be sent now. *stored*: it was handed to the store before this call."""
        if isinstance(message, Published):  # the next one will do
            return speaker.backlog > self._limit
        if not self._clients:
            return False
        late = self._clients.get(speaker.name)
        if late is None or not isinstance(message, NEWS):
            return False
        if message.task.rpartition("-")[0] != _id(speaker.name):
            late.others = True
        elif isinstance(message, Reply) and message.content.transfer:
            late.large.append(message)
        elif not stored:
            return False
        elif late.held is not None:
            late.held.append(message)
        return True

    def watch(self, speaker: Speaker, message: Message, on_ack: Callback | None) -> Callback | None:
        """Look whether *message*, which is about to be sent, is the last one for now; return what its ack does."""
        if speaker.backlog <= self._limit or not isinstance(message, NEWS) or speaker.role != "client":
            return on_ack
        if not speaker.stuck and speaker.backlog <= MOST * self._limit:
            return on_ack
        if speaker.name in self._clients or not self._records.writable:
            return on_ack
        name = speaker.name
        self._clients[name] = late = _Client(self._records.losses)
        log.info("%s has not taken %d bytes: what comes for it now is left in the store", name, speaker.backlog)

        def reached(point: Point) -> None:
            late.point = point
            self._look(name, late)

        def taken() -> None:
            if on_ack is not None:
                on_ack()
            self._taken(name, late)

        self._records.latest(reached)
        return taken

    def _taken(self, name: str, late: _Client) -> None:
        late.room = True
        self._look(name, late)

    def _look(self, name: str, late: _Client) -> None:
        """Ask the store, if it is time."""
        if self._clients.get(name) is not late or not late.room or late.point is None:
            return
        late.room, late.held = False, []
        self._records.missed(_id(name), late.point, lambda missed: self._found(name, late, missed))

    def _found(self, name: str, late: _Client, missed: Missed) -> None:
        speaker = self._speaker_of(name)
        if self._clients.get(name) is not late or speaker is None:
            return
        held, late.held, late.point = late.held or [], None, missed.point
        if missed.messages:  # what was held is in the store, behind these
            *most, last = missed.messages
            for message in most:
                speaker.send(message)
            speaker.send(last, on_ack=lambda: self._taken(name, late))
            return
        del self._clients[name]
        for rest in (*held, *late.large):  # not to be left in the store, even if the client is late again by now
            self._send(name, rest)
        if late.others or late.losses != self._records.losses:
            speaker.send(Recheck())

    def forget(self, name: str) -> list[Message]:
        """The client is gone; return the replies with large values that it has not got."""
        late = self._clients.pop(name, None)
        return [] if late is None else late.large


def _id(name: str) -> str:
    return name.partition(":")[2]
