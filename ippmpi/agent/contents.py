"""Large contents on this node: memory files that engines map, in both directions.

Down: one memory file per content, filled as the transfer arrives, then sealed; engines open it under
``/proc/<agent>/fd`` and map it privately. A controller on this host has the content in a file: that is copied
into the memory file, or, if only one engine needs it, handed on for that engine to read. Up: the engine's own
file is read where it is, or handed on. So nothing has a name in a file system here and nothing stays behind
after a kill.
"""

from __future__ import annotations

import fcntl
import itertools
import logging
import os
import re
import stat
from collections.abc import Callable, Iterable

from ippmpi.agent.members import FanOut, LocalEngine
from ippmpi.agent.seams import Conversation
from ippmpi.errors import ProtocolError
from ippmpi.handed import SMALLEST, copy, path_of, take
from ippmpi.wire.messages import Content, ContentReady

_log = logging.getLogger(__name__)

_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


class MemorySink:
    """Writes a transfer into a new memory file, ``fd``."""

    def __init__(self, name: str, size: int) -> None:
        """Make the file (pages are taken when they are written). Raises OSError or OverflowError."""
        self.size = size
        self.error: OSError | None = None
        self.fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.fd, size)
        except (OSError, OverflowError):
            os.close(self.fd)
            raise

    def write(self, offset: int, data: memoryview) -> None:
        """Write *data*; an error (no memory) is kept in ``error`` and what follows is dropped."""
        view = memoryview(data).cast("B")
        try:
            while view and self.error is None:
                written = os.pwrite(self.fd, view, offset)
                offset += written
                view = view[written:]
        except OSError as error:
            self.error = error
            _log.error("content of %d bytes cannot be kept in memory: %s", self.size, error)

    def finish(self) -> None:
        """Let nobody change the file any more: it is complete."""
        try:
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _SEALS)
        except OSError as error:  # an engine mapped it shared and writable; the bytes are right all the same
            _log.warning("a content of %d bytes is complete but cannot be sealed: %s", self.size, error)

    def close(self) -> None:
        """Close the file and drop what still comes: the number will soon name another file."""
        self.error = self.error or OSError("closed")
        os.close(self.fd)


class CopyingSink(MemorySink):
    """Copies the controller's file *given*, which it owns, into a new memory file."""

    def __init__(self, name: str, size: int, given: int) -> None:
        """Make the memory file. Raises OSError or OverflowError, and does not own *given* then."""
        super().__init__(name, size)
        self._given = given

    def placed(self, offset: int, count: int) -> None:
        """Copy the next bytes. Raises OSError: they will be sent, which may show that memory is what is missing."""
        if self.error is None:
            copy(self._given, self.fd, offset, offset + count)

    def close(self) -> None:
        """Close both files."""
        super().close()
        os.close(self._given)


class ReadableSink:
    """Lets an engine read the controller's file, open as ``fd``, which it owns; waits until it is complete."""

    def __init__(self, fd: int, size: int) -> None:
        """Wait for *size* bytes in *fd*."""
        self.size = size
        self.fd = fd
        self.error: OSError | None = None

    def placed(self, offset: int, count: int) -> None:
        """Know that the next bytes are there."""

    def write(self, offset: int, data: memoryview) -> None:  # noqa: ARG002 - what net asks of a sink
        """Fail: the engine has been told to read the file, and has no other."""
        self.error = OSError(f"bytes from {offset} on are not in their file")

    def finish(self) -> None:
        """Do nothing: the file is the controller's."""

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)


class FileSource:
    """Reads a complete memory file of an engine; owns *fd*."""

    def __init__(self, fd: int, size: int) -> None:
        """Offer the first *size* bytes of *fd*. ``position``: how far it was read; ``fd``: the file."""
        self.size = size
        self.position = 0
        self.fd = fd

    def available(self) -> int:
        """Count all bytes: the engine wrote the file before it replied."""
        return self.size

    def read(self, start: int, stop: int) -> bytes:
        """Return bytes ``[start, stop)``."""
        self.position = stop
        return os.pread(self.fd, stop - start, start)

    def place(self, start: int, stop: int) -> None:  # noqa: ARG002 - what net asks of a source
        """Do nothing but count: the engine has put all of it into the file."""
        self.position = stop

    def close(self) -> None:
        """Let the memory go."""
        os.close(self.fd)


class Arrival:
    """One content on its way from the controller to some local engines.

    ``done`` is called when all of them have mapped it (acknowledged ``ContentReady``) or are lost. ``on_lost``,
    if set, is called when the controller has lost its memory: the request will come again.
    """

    def __init__(
        self,
        controller: Conversation,
        content: Content,
        number: int,
        engines: Iterable[LocalEngine],
        done: Callable[[], None],
    ) -> None:
        """Make the memory file; nothing arrives before ``start``."""
        self._controller = controller
        self.remote = content
        self.on_lost: Callable[[], None] | None = None
        self._done = done
        self._ended = False
        fan = FanOut(self._close)
        self._targets = [(engine, fan.expect(engine)) for engine in engines]
        self._sink = _sink(controller, content, f"ippmpi-{number}", sole=len(self._targets) == 1)
        self._release = fan.close
        # without a file there is nothing to open, and the error that engines get says so
        path = path_of(self._sink.fd) if self._sink else f"/proc/{os.getpid()}/fd/none"
        self.local = Content(size=content.size, transfer=number, path=path)

    def start(self) -> None:
        """Let the bytes come; called after the headers that name them were queued, since order is theirs to set."""
        if self._sink:
            self._controller.accept(self.remote.transfer, self._sink, self._on_end, self.on_lost)
        else:
            self._controller.reject(self.remote.transfer)
            self._on_end(False)
        self._release()

    def give_up(self) -> None:
        """Tell the engines that it failed."""
        self._on_end(False)

    def abandon(self) -> None:
        """Say nothing more to the engines: they have been told of another content in its place."""
        self._ended = True
        for _, met in self._targets:
            met()

    def _on_end(self, complete: bool) -> None:
        if self._ended:
            return
        self._ended = True
        failed = not complete or self._sink is None or self._sink.error is not None
        if self._sink and not failed:
            self._sink.finish()
        for engine, met in self._targets:
            if met in engine.waiting:
                engine.conversation.send(ContentReady(self.local.transfer, failed), on_ack=met)

    def _close(self) -> None:
        if not self._ended:  # its last target was lost
            self._ended = True
            self._controller.reject(self.remote.transfer)
        if self._sink:
            self._sink.close()
        self._done()


def _sink(controller: Conversation, content: Content, name: str, *, sole: bool) -> MemorySink | ReadableSink | None:
    """Return where *content* goes. *sole*: it is for one engine, which may as well read it into memory of its own."""
    given = _given(controller, content)
    if given >= 0 and sole:
        return ReadableSink(given, content.size)
    try:
        return MemorySink(name, content.size) if given < 0 else CopyingSink(name, content.size, given)
    except (OSError, OverflowError) as error:  # too many open files, or more than a file can hold
        _log.error("no memory file for a content of %d bytes: %s", content.size, error)
        if given >= 0:
            os.close(given)
        return None


def _given(controller: Conversation, content: Content) -> int:
    """Open the file in which the controller has *content*; -1: there is none that could be opened."""
    if content.path:
        try:
            return take(content.path, content.size, controller.peer_pid)
        except OSError as error:
            _log.debug("a content of %d bytes comes by wire: %s", content.size, error)
    return -1


class Contents:
    """Numbers arrivals, opens and offers what engines reply with."""

    def __init__(self, controller: Conversation) -> None:
        """Move contents from and to *controller*."""
        self._controller = controller
        self._numbers = itertools.count(1)
        self._offered: set[FileSource] = set()

    def receive(self, content: Content, engines: Iterable[LocalEngine], done: Callable[[], None]) -> Arrival:
        """Prepare to receive *content* for *engines*; see ``Arrival``."""
        return Arrival(self._controller, content, next(self._numbers), engines, done)

    def reject(self, content: Content) -> None:
        """Refuse a content that is a transfer: nobody here can use it."""
        self._controller.reject(content.transfer)

    def offer(self, content: Content, engine: LocalEngine) -> tuple[Content, Callable[[], None]]:
        """Offer the memory file that *engine* replied with; return the content to pass on, and how to end the offer.

        Raises ProtocolError if it is not a memory file of this engine, OSError if the engine is gone.
        """
        source = _open(content, engine)
        transfer = self._controller.offer(source)
        self._offered.add(source)

        def end() -> None:
            self._controller.withdraw(transfer)
            self._offered.discard(source)
            source.close()

        path = path_of(source.fd) if self._controller.peer_pid and content.size >= SMALLEST else ""
        return Content(size=content.size, transfer=transfer, path=path), end

    def progress(self) -> int:
        """Return a number that changes while offered contents are on their way."""
        return sum(source.position for source in self._offered)


def check_path(path: str, engine: LocalEngine) -> None:
    """Raise ProtocolError unless *path* names a descriptor of *engine*'s own."""
    if not re.fullmatch(rf"/proc/{engine.ready.pid}/fd/[0-9]+", path):
        raise ProtocolError(f"{engine}: content at {path!r}; right would be /proc/{engine.ready.pid}/fd/<number>")


def _open(content: Content, engine: LocalEngine) -> FileSource:
    path = content.path
    check_path(path, engine)
    # O_NONBLOCK: the number may name a pipe by mistake, and nothing may make this process wait
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or not 0 < content.size <= status.st_size:
        os.close(fd)
        raise ProtocolError(f"{engine}: {path} is no file of at least {content.size} bytes, and not empty")
    return FileSource(fd, content.size)
