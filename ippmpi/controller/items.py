"""One large content on its way through the controller, and what net sees of it.

A peer on this host puts what it sends into a file (``ippmpi.handed``). That becomes ours (``Spool.adopt``), unless
it is in memory, or had a name with an earlier controller, or half of the content is in another file already; then it is
copied.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from ippmpi.controller.seams import Callback, Speaker
from ippmpi.handed import take
from ippmpi.store.spool import Spool, SpoolFile

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Item:
    """One content. ``transfer`` is 0 once its sender has no part in it, ``on_end`` is None once it was called.

    ``path``: where its sender, a process of this host, has the file that it can put it into. ``given``: that file, if
    it cannot be ours.

    ``sender`` is None if it came to an earlier controller.

    ``engine``: whose reply it is (-1: a request's content). ``broken``: it could not be written to
    disk and is about to fail. ``interrupted``: its agent has died; the engine offers it again. It was so ``breaks``
    times.
    """

    key: int
    task: str
    size: int
    sender: Speaker | None
    transfer: int
    engine: int = -1
    on_end: Callback | None = None
    file: SpoolFile | None = None
    broken: bool = False
    interrupted: bool = False
    breaks: int = 0
    path: str = ""
    given: int = -1
    offers: dict[tuple[str, int], Offer] = field(default_factory=dict)

    def end(self) -> None:
        """Say, once, that nothing more will arrive."""
        call, self.on_end = self.on_end, None
        if call is not None:
            call()

    def close_given(self) -> None:
        """Let go of the sender's file; harmless when done."""
        given, self.given = self.given, -1
        if given >= 0:
            os.close(given)


@dataclass(slots=True, frozen=True, eq=False)
class Offer:
    """An item that a peer may pull under ``number``. ``last``: when the peer has it, nobody needs it."""

    item: Item
    file: SpoolFile
    receiver: Speaker
    number: int
    last: bool


class Arrival:
    """Net's ``Sink`` of one item: lets those who pull it go on; a full disk fails it, not the controller."""

    __slots__ = ("_failed", "_item", "size")

    def __init__(self, item: Item, failed: Callable[[Item, str], None]) -> None:
        """Fill *item*'s file; *failed* hears why that cannot be done."""
        self.size = item.size
        self._item = item
        self._failed = failed

    def write(self, offset: int, data: memoryview) -> None:
        """Take the next bytes; what still comes after a failure is dropped, and what came before an interruption."""
        item = self._item
        if item.file is None or item.broken:
            return
        there = min(item.file.available() - offset, len(data))
        try:
            if there < len(data):
                item.file.write(offset + there, data[there:])
        except OSError as error:
            item.broken = True
            self._failed(item, f"it cannot be written to the controller's spool: {error}")
        self._go_on()

    def _go_on(self) -> None:
        for offer in self._item.offers.values():
            offer.receiver.more(offer.number)


class FileArrival(Arrival):
    """Net's ``FileSink`` of one item."""

    __slots__ = ()

    def placed(self, offset: int, count: int) -> None:
        """Take the next bytes from the sender's file. An OSError is net's: it asks for the bytes themselves."""
        item = self._item
        if item.file is None or item.broken:
            return
        there = item.file.available()
        if there < offset + count:
            item.file.placed(there, offset + count - there, item.given)
        self._go_on()


class Nothing:
    """Net's ``Source`` of a content that failed before it was offered."""

    def __init__(self, size: int) -> None:
        """Stand for *size* bytes."""
        self.size = size

    def available(self) -> int:
        """Return 0: nothing ever comes."""
        return 0

    def read(self, start: int, stop: int) -> bytes:
        """Never called, since nothing is available."""
        raise OSError(f"bytes {start} to {stop} of a content that failed")

    def place(self, start: int, stop: int) -> None:
        """Never called either."""
        self.read(start, stop)


def open_given(item: Item, spool: Spool) -> bool:
    """Open the file that the sender of *item* can put it into; make it ours if that can be. Say whether it is open."""
    item.close_given()
    if not item.path or item.sender is None:
        return False
    try:
        item.given = take(item.path, item.size, item.sender.peer_pid, write=True)
    except OSError as error:
        log.debug("content of task %s comes by wire: %s", item.task, error)
        return False
    try:
        if item.file is None:
            item.file, item.given = spool.adopt(item.key, item.size, item.given), -1
    except OSError as error:
        log.debug("content of task %s is copied: %s", item.task, error)
    return True
