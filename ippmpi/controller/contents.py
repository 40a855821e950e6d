"""Large contents on their way through the controller: from one link into the spool, from there to others.

Inside the hub ``Content.transfer`` is a key of this table; on every link it is a number of that
link. A content is passed on while it still arrives. Its file is free again when the hub has
released it (a reply's: when its receiver has acknowledged it) and nobody pulls it any more.
A reply's that no client waits for goes to the shelf.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import msgspec

from ippmpi.controller.items import Arrival, FileArrival, Item, Nothing, Offer, open_given
from ippmpi.controller.seams import Callback, Speaker
from ippmpi.controller.shelf import Shelf
from ippmpi.errors import ProtocolError
from ippmpi.handed import SMALLEST
from ippmpi.net.quiet import Quiet
from ippmpi.store.spool import Spool, SpoolFile
from ippmpi.wire.messages import Content, Fetched, Message, Reply, Run, Submit

log = logging.getLogger(__name__)

REPEAT_S = 60.0
"""How long the rest of a reply's content is waited for when its agent is lost: the engine sends it again by another.

Less if that engine, or its whole node, is lost as well.
"""
SHELF_PART = 4
"""The shelf may take one part in so many of the spool."""

LARGEST_CONTENT = 1 << 40
"""Bytes; more is a broken peer."""

MOST_CONTENTS = 100_000
"""Contents of one task that are transfers; more is a broken peer."""


class Contents:
    """All contents that are here now. Belongs to the loop's thread."""

    def __init__(
        self,
        spool: Spool,
        call_soon: Callable[[Callback], None],
        on_failed: Callable[[str, Content, str], None],
        *,
        call_later: Callable[[float, Callback], object],
    ) -> None:
        """Keep contents in *spool*; *on_failed* hears ``(task, content, why)`` of one that will never be whole.

        It is called by *call_soon* (the loop's), never in the middle of something.
        """
        self._spool = spool
        self._call_soon = call_soon
        self._call_later = call_later
        self._on_failed = on_failed
        self._quiet = Quiet(log)
        self._items: dict[int, Item] = {}
        self._offers: dict[str, dict[int, Offer]] = {}
        self._results: dict[tuple[str, int], int] = {}
        self._shelf = Shelf(spool.limit_bytes // SHELF_PART, lambda key: self._stop(self._items[key]))
        self._last_key = 0

    def __len__(self) -> int:
        """Return how many contents the hub may still ask for."""
        return len(self._items)

    def start_keys(self, after: int) -> None:
        """Give keys larger than *after*, and than those in the spool, from now on."""
        self._last_key = max(after, self._spool.last_key())

    def tidy(self) -> None:
        """Remove from the spool what has not been restored."""
        self._spool.tidy()

    def restore(self, task: str, content: Content, engine: int | None = None) -> None:
        """Take over a content that an earlier controller has left in the spool; nothing happens if it has not.

        A reply's (of *engine*) goes to the shelf until its client asks for it. None: a request's.
        """
        if not content.transfer or content.transfer in self._items:
            return
        file = self._spool.reopen(content.transfer, content.size)
        if file is not None:
            key = content.transfer
            self._items[key] = Item(key, task, content.size, None, 0, -1 if engine is None else engine, file=file)
            if engine is not None:
                self._results[task, engine] = key
                self._shelf.put(key, content.size, crowded=True)

    def load(self, task: str, path: Path, size: int) -> Content | None:
        """Make our file at *path*, in the spool's folder, the result of *task*, which ran on no engine; None: no room.

        Either way it is not at *path* any more.
        """
        self._shelf.make_room(lambda: self._spool.fits(size))
        self._last_key += 1
        key = self._last_key
        try:
            file = self._spool.rename(path, key, size)
        except OSError as error:
            self._quiet.warning("a cached result of %d bytes for task %s cannot be used: %s", size, task, error)
            path.unlink(missing_ok=True)
            return None
        self._items[key] = Item(key, task, size, None, 0, file=file)
        self._results[task, -1] = key
        return Content(size=size, transfer=key)

    def borrow(self, content: Content) -> SpoolFile | None:
        """Return the file of a content that is whole, which the caller must release; None if there is none."""
        item = self._items.get(content.transfer)
        if item is None or item.file is None or item.file.available() < item.size:
            return None
        item.file.retain()
        return item.file

    @property
    def folder(self) -> Path:
        """Where files are made that ``load`` takes."""
        return self._spool.folder

    def unshelve(self, content: Content) -> bool:
        """Keep a result's content, for a client that waits for it, whatever needs the room; say whether it is here."""
        self._shelf.take(content.transfer)
        return content.transfer in self._items

    # --- in ----------------------------------------------------------------------------------

    def take(self, sender: Speaker, message: Message) -> tuple[Message, list[Item]]:
        """Return *message* with keys in the place of its link's numbers, and an item for each; nothing is pulled yet.

        Call ``start`` when the hub has taken the message, ``refuse`` if it has not.

        Raises:
            ProtocolError: a size or a number cannot be right.
        """
        items: list[Item] = []
        if type(message) is Submit:
            if any(c.transfer for c in message.contents):
                if len(message.contents) > MOST_CONTENTS:
                    raise ProtocolError(f"task {message.task[:200]}: {len(message.contents)} contents")
                contents = [self._enter(sender, message.task, c, items) for c in message.contents]
                if len({item.transfer for item in items}) < len(items):
                    raise ProtocolError(f"task {message.task[:200]}: one transfer stands for two of its contents")
                message = msgspec.structs.replace(message, contents=contents)
        elif type(message) is Fetched and message.content.transfer:
            content = self._enter(sender, f"what engine {message.engine} asked for", message.content, items)
            message = msgspec.structs.replace(message, content=content)
        elif type(message) is Reply and message.content.transfer:
            item = self._interrupted(sender, message)
            if item is not None:
                items.append(item)
                return msgspec.structs.replace(message, content=Content()), items
            content = self._enter(sender, message.task, message.content, items)
            items[0].engine = message.engine
            message = msgspec.structs.replace(message, content=content)
        return message, items

    def _enter(self, sender: Speaker, task: str, content: Content, items: list[Item]) -> Content:
        number = content.transfer
        if not number:
            return content
        if number < 0 or not 0 < content.size <= LARGEST_CONTENT:
            raise ProtocolError(f"task {task[:200]}: transfer {number} of {content.size} bytes")
        self._last_key += 1
        items.append(Item(self._last_key, task, content.size, sender, number, path=content.path))
        return Content(size=content.size, transfer=self._last_key)

    def _interrupted(self, sender: Speaker, reply: Reply) -> Item | None:
        """Return the item that *reply*, which has come before, goes on with."""
        for item in self._items.values():
            if item.interrupted and (item.task, item.engine, item.size) == (
                reply.task,
                reply.engine,
                reply.content.size,
            ):
                item.interrupted = False
                item.sender, item.transfer, item.path = sender, reply.content.transfer, reply.content.path
                return item
        return None

    def start(self, items: list[Item], on_end: Callback) -> None:
        """Pull *items*; *on_end* is called once for each, when it is whole or never will be.

        For one that was interrupted that is after what was to be called for its first half.
        """
        for item in items:
            item.on_end = _in_turn(item.on_end, on_end)
            self._items[item.key] = item
            if item.engine >= 0:
                self._results.setdefault((item.task, item.engine), item.key)  # the hub drops one that came again
            self._shelf.make_room(lambda size=item.size: self._spool.fits(size))  # type: ignore[misc]
            try:
                by_file = open_given(item, self._spool)
                item.file = item.file or self._spool.create(item.key, item.size)
                assert item.sender is not None
                sink = (FileArrival if by_file else Arrival)(item, self._fail_soon)
                item.sender.accept(item.transfer, sink, self._ending(item))
            except OSError as error:
                self._fail(item, str(error))
            except ProtocolError as error:
                item.transfer = 0  # the number is that of another content, which must go on
                self._fail(item, str(error))

    def _ending(self, item: Item) -> Callable[[bool], None]:
        def ended(whole: bool) -> None:
            item.transfer = 0  # the link has forgotten it
            item.close_given()
            if whole and not item.broken:
                item.end()
            elif not whole and item.engine >= 0:
                item.interrupted = True
                item.breaks += 1
                self._call_later(REPEAT_S, functools.partial(self._miss, item, item.breaks))
            elif not whole:
                self._cannot_go_on(item)

        return ended

    def _miss(self, item: Item, breaks: int) -> None:
        if item.interrupted and item.breaks == breaks:  # else it went on, and broke again later
            self._cannot_go_on(item)

    def _cannot_go_on(self, item: Item) -> None:
        self._fail(item, f"{_name(item)} cannot send the rest")

    def fail_interrupted(self, engines: Sequence[int]) -> None:
        """Give up what *engines*, which are lost, would have sent again."""
        for item in list(self._items.values()):
            if item.interrupted and item.engine in engines:
                self._fail(item, f"engine {item.engine} is lost, and the agent that had the rest")

    def refuse(self, items: list[Item]) -> None:
        """Tell the sender that nobody wants *items*."""
        for item in items:
            self._stop(item)

    def fail_unfinished(self, sender: str, why: str) -> None:
        """Give up what *sender* has not sent completely."""
        for item in list(self._items.values()):
            if (item.transfer or item.interrupted) and _name(item) == sender:
                self._fail(item, why)

    def _fail_soon(self, item: Item, why: str) -> None:
        """Fail from within a sink, where net does not expect a rejection yet."""
        self._call_soon(lambda: self._fail(item, why))

    def _fail(self, item: Item, why: str) -> None:
        if self._items.get(item.key) is not item:
            return  # it was released, or failed for another reason
        self._quiet.warning("content of task %s from %s (%d bytes) failed: %s", item.task, _name(item), item.size, why)
        self._stop(item)
        content = Content(size=item.size, transfer=item.key)
        self._call_soon(lambda: self._on_failed(item.task, content, why))

    def _stop(self, item: Item) -> None:
        """Let go of *item*. Who still pulls it gets all of it if it is whole, else hears that it failed."""
        if item.transfer and item.sender is not None:
            item.sender.reject(item.transfer)
            item.transfer = 0
        item.close_given()
        self._items.pop(item.key, None)
        self._shelf.take(item.key)
        if self._results.get((item.task, item.engine)) == item.key:
            del self._results[item.task, item.engine]
        file, item.file = item.file, None
        if file is not None and file.available() < item.size:
            for offer in list(item.offers.values()):
                offer.receiver.fail(offer.number)
                self._close(offer)
        if file is not None:
            file.release()
        item.end()

    def release(self, content: Content) -> None:
        """Nobody but those who pull it already needs this content any more. Harmless if it is gone or inline."""
        item = self._items.get(content.transfer)
        if item is not None:
            self._stop(item)

    def shelve(self, content: Content) -> None:
        """No client waits for this result's content (any more): keep it while there is room."""
        item = self._items.get(content.transfer)
        if item is not None:
            self._shelf.put(item.key, item.size)

    def drop_shelved(self, tasks: Collection[str]) -> None:
        """Let go of results of *tasks* that are only kept for whoever asks."""
        for (task, _), key in list(self._results.items()):
            if task in tasks and key in self._shelf:
                self._stop(self._items[key])

    # --- out ---------------------------------------------------------------------------------

    def result(self, task: str, engine: int) -> Content | None:
        """Return the large value of *task* on *engine*, if it is here."""
        key = self._results.get((task, engine))
        return None if key is None else Content(size=self._items[key].size, transfer=key)

    def arriving(self, task: str, engine: int) -> bool:
        """Say whether a large value of *task* on *engine* (negative: on any) is here, whole or not."""
        return (task, engine) in self._results or (engine < 0 and any(name == task for name, _ in self._results))

    def give(self, receiver: Speaker, message: Message, *, last: bool = True) -> tuple[Message, Callback | None]:
        """Offer the contents of *message*; return it with that link's numbers, and what its acknowledgement does.

        *last*: a reply's content is not needed here any more when *receiver* has it, unless it is on the shelf.
        """
        numbers: dict[int, int] = {}
        if type(message) is Run:
            if any(c.transfer for c in message.contents):
                contents = [self._offer(receiver, c, numbers, last=False) for c in message.contents]
                message = msgspec.structs.replace(message, contents=contents)
        elif (type(message) is Reply or type(message) is Fetched) and message.content.transfer:
            content = self._offer(receiver, message.content, numbers, last=last)
            message = msgspec.structs.replace(message, content=content)
        if not numbers:
            return message, None
        return message, lambda: self._taken(receiver.name, list(numbers.values()))

    def _offer(self, receiver: Speaker, content: Content, numbers: dict[int, int], *, last: bool) -> Content:
        key = content.transfer
        if not key:
            return content
        if key not in numbers:
            numbers[key] = self._open(receiver, self._items.get(key), content.size, last=last)
        offer = self._offers.get(receiver.name, {}).get(numbers[key])
        by_file = offer is not None and receiver.peer_pid and content.size >= SMALLEST
        return Content(size=content.size, transfer=numbers[key], path=offer.file.handed if offer and by_file else "")

    def _open(self, receiver: Speaker, item: Item | None, size: int, *, last: bool) -> int:
        if item is None or item.file is None:  # it failed; the hub hears of it or has heard already
            number = receiver.offer(Nothing(size))
            receiver.fail(number)
            return number
        item.file.retain()
        number = receiver.offer(item.file)
        offer = Offer(item, item.file, receiver, number, last)
        item.offers[receiver.name, number] = offer
        self._offers.setdefault(receiver.name, {})[number] = offer
        return number

    def _taken(self, receiver: str, numbers: list[int]) -> None:
        for number in numbers:
            offer = self._offers.get(receiver, {}).get(number)
            if offer is not None:
                self._end(offer)

    def _end(self, offer: Offer) -> None:
        offer.receiver.withdraw(offer.number)
        self._close(offer)
        if offer.last and offer.item.key not in self._shelf:
            self._stop(offer.item)

    def _close(self, offer: Offer) -> None:
        name = offer.receiver.name
        offers = self._offers[name]
        del offers[offer.number], offer.item.offers[name, offer.number]
        if not offers:
            del self._offers[name]
        offer.file.release()

    def release_unsent(self, message: Message) -> None:
        """Shelve the content of a reply that nobody will get; one that an engine asked for is of no use to others."""
        if type(message) is Reply:
            self.shelve(message.content)
        elif type(message) is Fetched:
            self.release(message.content)

    # --- peers go ----------------------------------------------------------------------------

    def forget(self, peer: str) -> None:
        """Take back all that was offered to *peer* and give up what it was sending: it will not come back."""
        for offer in list(self._offers.get(peer, {}).values()):
            offer.receiver.withdraw(offer.number)
            self._close(offer)
            if offer.last and offer.item.key in self._items:
                if offer.item.engine >= 0:
                    self._shelf.put(offer.item.key, offer.item.size)
                else:  # no result
                    self._stop(offer.item)
        self.fail_unfinished(peer, f"{peer} is gone")


def _in_turn(first: Callback | None, second: Callback) -> Callback:
    if first is None:
        return second

    def both() -> None:
        first()
        second()

    return both


def _name(item: Item) -> str:
    return "an earlier controller" if item.sender is None else item.sender.name
