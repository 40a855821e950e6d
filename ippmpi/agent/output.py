"""What engines print: read from their pipes, passed on while the code runs, attributed to a task.

The agent reads because it always can: an engine that drains its own pipe deadlocks when C code prints
with the GIL held. A read is passed on at once; after a small one the pipe rests for ``_REST_S``, so
that many short lines become one message.
"""

from __future__ import annotations

import fcntl
import logging
import os
import select
import stat
from collections.abc import Callable

from ippmpi.agent.members import UNASSIGNED, LocalEngine
from ippmpi.agent.seams import Conversation, Loop, Timer
from ippmpi.wire.marks import Marks
from ippmpi.wire.messages import Output

_log = logging.getLogger(__name__)

CHUNK = 64 * 1024
"""Most bytes in one Output message."""

BACKLOG_LIMIT = 8 * 1024 * 1024
"""Bytes that may wait for the controller before engines that print have to wait."""

LAST_WORDS = 4 * 1024
"""Bytes kept per engine for the report of its loss."""

_EARLY_LIMIT = 64 * 1024  # bytes printed before the engine has an id; more are only in the last words
_SMALL = 16 * 1024  # a read below this is worth waiting for more
_REST_S = 0.01
_HOLD_S = 0.05  # between two looks at a backlog that is too long


class _Pipe:
    """One stream of one engine. ``fd`` is closed when the stream ends."""

    def __init__(self, loop: Loop, path: str, take: Callable[[bytes], None], held: Callable[[], bool]) -> None:
        """Open the read end at *path*; give to *take* what comes, unless *held*. Raises OSError."""
        self._loop = loop
        self._take = take
        self._held = held
        self._rest: Timer | None = None
        self._listening = False
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISFIFO(os.fstat(self._fd).st_mode):
            self.close()
            raise OSError(f"{path} is no pipe")
        self.listen()

    def listen(self) -> None:
        """Wait for more."""
        self._rest = None
        if self._fd >= 0 and not self._listening and not self._held():
            self._listening = True
            self._loop.add_reader(self._fd, self._on_readable)

    def fileno(self) -> int:
        """Return the descriptor; negative once closed."""
        return self._fd

    def drain(self) -> None:
        """Take what is in the pipe now, and no more than fits into it: the writer may never stop."""
        taken = 0
        while got := self._read():
            taken += got
            if self._fd < 0 or taken >= fcntl.fcntl(self._fd, fcntl.F_GETPIPE_SZ):
                return

    def close(self) -> None:
        """Stop reading for good."""
        if self._fd >= 0:
            self._pause()
            os.close(self._fd)
            self._fd = -1
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None

    def _on_readable(self) -> None:
        got = self._read()
        if self._fd < 0:
            return
        if self._held():
            self._pause()
        elif got < _SMALL:
            self._pause()
            self._rest = self._loop.call_later(_REST_S, self.listen)

    def _read(self) -> int:
        """Read at most a chunk; return its size, 0 when the pipe is empty or has ended."""
        if self._fd < 0:
            return 0
        try:
            data = os.read(self._fd, CHUNK)
        except BlockingIOError:
            return 0
        if data:
            self._take(data)
        else:
            self.close()
        return len(data)

    def _pause(self) -> None:
        if self._listening:
            self._listening = False
            self._loop.remove_reader(self._fd)


class EngineOutput:
    """Both streams of one engine.

    Attributes:
        begun: the task that was last marked as the one that prints now.
    """

    def __init__(
        self, loop: Loop, engine: LocalEngine, emit: Callable[[Output], None], held: Callable[[], bool]
    ) -> None:
        """Open the pipes; one that cannot be opened is logged and stays silent."""
        self._engine = engine
        self._emit = emit
        self._last = bytearray()
        self._early: list[tuple[str, bytes]] = []
        self._pipes: list[_Pipe] = []
        self._news = select.poll()  # one question for both pipes before each reply; most tasks print nothing
        self._marks: dict[str, Marks] = {}
        self._guess = (
            engine.ready.printing
        )  # whose the output is that comes without a mark, to an agent that is new here
        self.begun = ""
        ready = engine.ready
        for stream, fd in (("stdout", ready.stdout_fd), ("stderr", ready.stderr_fd)):
            try:
                pipe = _Pipe(loop, f"/proc/{ready.pid}/fd/{fd}", self._taker(stream), held)
                self._pipes.append(pipe)
                self._news.register(pipe.fileno(), select.POLLIN)
            except OSError as error:
                _log.warning("no %s of %s: %s", stream, engine, error)

    def last_words(self) -> str:
        """Return the last 4 KB of both streams, as text for people."""
        return self._last.decode("utf-8", "replace")

    def assigned(self) -> None:
        """Pass on what was printed before the engine had an id."""
        early, self._early = self._early, []
        for stream, data in early:
            self._emit(Output("", self._engine.id, stream, data))

    def drain(self) -> None:
        """Pass on what is in the pipes now."""
        if self._news.poll(0):
            for pipe in self._pipes:
                pipe.drain()

    def replied(self, task: str) -> None:
        """Pass on the rest of what *task* has printed; what comes now is another's, with or without a mark."""
        self.drain()
        for marks in self._marks.values():
            if marks.task == task:
                marks.task = None

    def give(self) -> None:
        """Take note that the engine is about to get a task: what it printed before is not that one's."""
        if self._guess and self._guess not in self._engine.tasks:  # it has ended, and its reply will not come any more
            self.replied(self._guess)
            self._guess = ""

    def listen(self) -> None:
        """Go on reading after a hold."""
        for pipe in self._pipes:
            pipe.listen()

    def close(self) -> None:
        """Stop reading."""
        for pipe in self._pipes:
            pipe.close()
        for stream, marks in self._marks.items():
            rest = marks.rest()
            if rest:
                self._pass_on(marks.task, stream, rest)

    def _taker(self, stream: str) -> Callable[[bytes], None]:
        marks = self._marks[stream] = Marks(self._engine.ready.printing or None)

        def take(data: bytes) -> None:
            for task, piece in marks.split(data):
                self._pass_on(task, stream, piece)
            self.begun = marks.task or self.begun

        return take

    def _pass_on(self, task: str | None, stream: str, data: bytes) -> None:
        self._last += data
        del self._last[:-LAST_WORDS]
        if self._engine.id != UNASSIGNED:
            if task is None:
                task = self._engine.current_task()
            self._emit(Output(task, self._engine.id, stream, data))
        elif sum(len(kept) for _, kept in self._early) < _EARLY_LIMIT:
            self._early.append((stream, data))


class Outputs:
    """All engines' output on its way to the controller, with back-pressure."""

    def __init__(self, loop: Loop, controller: Conversation) -> None:
        """Send to *controller*."""
        self._loop = loop
        self._controller = controller
        self._holding = False
        self._engines: dict[LocalEngine, EngineOutput] = {}

    def open(self, engine: LocalEngine) -> None:
        """Read the pipes of *engine* from now on."""
        self._engines[engine] = EngineOutput(self._loop, engine, self._emit, self._held)

    def assigned(self, engine: LocalEngine) -> None:
        """*engine* has got its id."""
        self._engines[engine].assigned()

    def drain(self, engine: LocalEngine) -> None:
        """Queue all that *engine* has printed so far, whatever the backlog (it is at most what its pipes hold)."""
        self._engines[engine].drain()

    def replied(self, engine: LocalEngine, task: str) -> None:
        """Queue all that *task* has printed on *engine*, which has replied to it."""
        self._engines[engine].replied(task)

    def give(self, engine: LocalEngine) -> None:
        """*engine* is about to get a task."""
        self._engines[engine].give()

    def close(self, engine: LocalEngine) -> tuple[str, str]:
        """Queue the rest and stop reading; return the last words of *engine* and the task that it marked last."""
        output = self._engines.pop(engine)
        output.drain()
        output.close()
        return output.last_words(), output.begun

    def _held(self) -> bool:
        """Say whether engines have to wait; once yes, until half of the backlog is acknowledged."""
        if not self._holding and self._controller.backlog > BACKLOG_LIMIT:
            self._holding = True
            self._loop.call_later(_HOLD_S, self._look_again)
        return self._holding

    def _look_again(self) -> None:
        if self._controller.backlog > BACKLOG_LIMIT // 2:
            self._loop.call_later(_HOLD_S, self._look_again)
            return
        self._holding = False
        for output in tuple(self._engines.values()):
            output.listen()

    def _emit(self, output: Output) -> None:
        self._controller.send(output)
