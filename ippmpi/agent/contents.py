"""Large contents on this node: memory files that engines map, in both directions.

Down: one memory file per content, filled as the transfer arrives, then sealed; engines open it under
``/proc/<agent>/fd`` and map it privately. What a controller on this host hands on as a file is handed
on again, for one engine to read, or copied into the memory file for several. Up: the engine's own file
is read where it is, or handed on. So nothing has a name in a file system and nothing stays behind
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
from ippmpi.handed import SMALLEST, STEP_BYTES, path_of, take
from ippmpi.wire.messages import Content, ContentReady

_log = logging.getLogger(__name__)

_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


Later = Callable[[float, Callable[[], None]], object]


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

    def close(self) -> None:
        """Close the file and drop what still comes: the number will soon name another file."""
        self.error = self.error or OSError("closed")
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
        *,
        later: Later,
    ) -> None:
        """Make the memory file; nothing arrives before ``start``."""
        self._controller = controller
        self._later = later
        self.remote = content
        self.on_lost: Callable[[], None] | None = None
        self._done = done
        self._ended = False
        fan = FanOut(self._close)
        self._targets = [(engine, fan.expect(engine)) for engine in engines]
        self._handed = _handed(controller, content)
        # several engines share the pages of one memory file; one engine reads what was handed to memory of its own
        direct = self._handed >= 0 and len(self._targets) == 1
        self._sink = None if direct else _memory_sink(f"ippmpi-{number}", content.size)
        self._whole = direct
        self._release = fan.close
        # without a memory file there is nothing to open, and the error that engines get says so
        fd = self._handed if direct else self._sink.fd if self._sink else None
        path = f"/proc/{os.getpid()}/fd/none" if fd is None else path_of(fd)
        self.local = Content(size=content.size, transfer=number, path=path)

    def start(self) -> None:
        """Let the bytes come; called after the headers that name them were queued, since order is theirs to set."""
        if self._whole:
            self._on_end(True)
        elif self._sink and self._handed >= 0:
            self._copy(self._sink, 0)
        elif self._sink:
            self._pull(self._sink)
        else:
            self._controller.reject(self.remote.transfer)
            self._on_end(False)
        self._release()

    def _pull(self, sink: MemorySink) -> None:
        self._controller.accept(self.remote.transfer, sink, self._on_end, self.on_lost)

    def _copy(self, sink: MemorySink, position: int) -> None:
        """Copy what was handed into the memory file, a step at a time, so that other work goes on."""
        if self._ended:
            return
        try:
            copied = os.sendfile(sink.fd, self._handed, position, min(STEP_BYTES, sink.size - position))
        except OSError as error:
            _log.debug("a content of %d bytes is pulled: %s", sink.size, error)
            copied = 0
        position += copied
        if position == sink.size:
            self._whole = True
            self._on_end(True)
        elif copied:
            self._later(0.0, lambda: self._copy(sink, position))
        else:
            self._pull(sink)

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
        failed = not complete or not (self._whole or (self._sink and self._sink.error is None))
        if self._sink and not failed:
            self._seal(self._sink.fd)
        for engine, met in self._targets:
            if met in engine.waiting:
                engine.conversation.send(ContentReady(self.local.transfer, failed), on_ack=met)

    def _seal(self, fd: int) -> None:
        try:
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        except OSError as error:  # an engine mapped it shared and writable; the bytes are right all the same
            _log.warning("content %d is complete but cannot be sealed: %s", self.local.transfer, error)

    def _close(self) -> None:
        if not self._ended:  # its last target was lost
            self._ended = True
            self._controller.reject(self.remote.transfer)
        if self._sink:
            self._sink.close()
        if self._handed >= 0:
            os.close(self._handed)
        self._done()


def _handed(controller: Conversation, content: Content) -> int:
    """Open the file that the controller hands on; -1: there is none that could be opened."""
    if not content.path:
        return -1
    try:
        return take(content.path, content.size, controller.peer_pid)
    except OSError as error:
        _log.debug("a content of %d bytes is pulled: %s", content.size, error)
        return -1


def _memory_sink(name: str, size: int) -> MemorySink | None:
    try:
        return MemorySink(name, size)
    except (OSError, OverflowError) as error:  # too many open files, or more than a file can hold
        _log.error("no memory file for a content of %d bytes: %s", size, error)
        return None


class Contents:
    """Numbers arrivals, opens and offers what engines reply with."""

    def __init__(self, controller: Conversation, later: Later) -> None:
        """Move contents from and to *controller*; *later* is the loop's ``call_later``."""
        self._controller = controller
        self._later = later
        self._numbers = itertools.count(1)
        self._offered: set[FileSource] = set()

    def receive(self, content: Content, engines: Iterable[LocalEngine], done: Callable[[], None]) -> Arrival:
        """Prepare to receive *content* for *engines*; see ``Arrival``."""
        return Arrival(self._controller, content, next(self._numbers), engines, done, later=self._later)

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


def _open(content: Content, engine: LocalEngine) -> FileSource:
    path = content.path
    if not re.fullmatch(rf"/proc/{engine.ready.pid}/fd/[0-9]+", path):
        raise ProtocolError(f"{engine}: content at {path!r}; right would be /proc/{engine.ready.pid}/fd/<number>")
    # O_NONBLOCK: the number may name a pipe by mistake, and nothing may make this process wait
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or not 0 < content.size <= status.st_size:
        os.close(fd)
        raise ProtocolError(f"{engine}: {path} is no file of at least {content.size} bytes, and not empty")
    return FileSource(fd, content.size)
