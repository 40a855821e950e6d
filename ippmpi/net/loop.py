"""One thread's loop: file descriptors, edge-triggered sources, timers, wake-ups from other threads.

ZeroMQ's descriptor is edge-triggered: it tells that *something* may have changed, and any use of the
socket may swallow the news. So such a source is asked whether it is ready when its descriptor says
so and after each use (``Source.hint``), until it is not; asking costs two system calls, so it is not
done every round. Plain descriptors need none of that.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import select
import time
from collections import deque
from collections.abc import Callable

Callback = Callable[[], None]

LONGEST_SLEEP_S = 3600.0  # a timer may be due in the year 10000; epoll cannot wait that long

READ_BYTES = 64 * 1024

# The module `selectors` would do, with five more Python calls per event: an engine that wakes up has cold caches.
_EPOLL = hasattr(select, "epoll")
_PER_SECOND = 1.0 if _EPOLL else 1000.0  # units of the timeout
_READ = select.POLLIN  # epoll has the same numbers
_WRITE = select.POLLOUT


class Timer:
    """A call that is due at a time of the monotonic clock, unless cancelled."""

    __slots__ = ("_call", "due")

    def __init__(self, due: float, call: Callback) -> None:
        """Remember what and when."""
        self.due = due
        self._call: Callback | None = call

    def cancel(self) -> None:
        """Do not call. Harmless when it has been called."""
        self._call = None

    def fire(self) -> None:
        """Call, once."""
        call, self._call = self._call, None
        if call is not None:
            call()


class Source:
    """Something edge-triggered that a loop watches."""

    __slots__ = ("_asked", "_hinted", "call", "fd", "ready")

    def __init__(self, fd: int, ready: Callable[[], bool], call: Callback, hinted: list[Source]) -> None:
        """Watch *fd*; enter *hinted* when it is time to ask."""
        self.fd = fd
        self.ready = ready
        self.call = call
        self._hinted = hinted
        self._asked = False

    def hint(self) -> None:
        """Have the source asked in the next round: it was used, or its descriptor said something."""
        if not self._asked:
            self._asked = True
            self._hinted.append(self)

    def serve(self) -> None:
        """Call if ready, and then ask again."""
        self._asked = False
        if self.fd >= 0 and self.ready():
            self.hint()
            self.call()


class Loop:
    """Polls, calls, sleeps. Everything but ``call_soon`` and ``stop`` belongs to the thread that runs it."""

    def __init__(self) -> None:
        """Make the selector and the wake-up pipe; run nothing yet."""
        self._poll = select.epoll() if _EPOLL else select.poll()
        self._callbacks: dict[int, tuple[Callback, Callback | None]] = {}
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self.add_reader(self._wake_read, self._woken)
        self._awake = False
        self._soon: deque[Callback] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._tie = itertools.count()
        self._hinted: list[Source] = []
        self._flushes: list[Callable[[], object]] = []
        self.stopped = False
        self.now = time.monotonic()
        self.scratch = memoryview(bytearray(READ_BYTES))  # for whoever reads now and copies what is to stay

    # --- from any thread ---------------------------------------------------------------------

    def call_soon(self, call: Callback) -> None:
        """Have *call* called by the loop's thread. Callable from any thread."""
        self._soon.append(call)
        if not self._awake:
            self._awake = True
            with contextlib.suppress(OSError):  # full pipe: it will wake up; closed: it has ended
                os.write(self._wake_write, b"!")

    def stop(self) -> None:
        """Make ``run`` return after the present round. Callable from any thread."""
        self.call_soon(self._stop)

    def _stop(self) -> None:
        self.stopped = True

    def _woken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)

    # --- registration ------------------------------------------------------------------------

    def call_later(self, delay_s: float, call: Callback) -> Timer:
        """Call *call* once in *delay_s* seconds."""
        timer = Timer(time.monotonic() + delay_s, call)
        heapq.heappush(self._timers, (timer.due, next(self._tie), timer))
        return timer

    def add_reader(self, fd: int, call: Callback) -> None:
        """Call *call* whenever *fd* is readable (level-triggered)."""
        self._poll.register(fd, _READ)
        self._callbacks[fd] = (call, None)

    def remove_reader(self, fd: int) -> None:
        """Stop watching *fd*; harmless if it is not watched."""
        if self._callbacks.pop(fd, None) is not None:
            with contextlib.suppress(OSError):  # it is closed
                self._poll.unregister(fd)

    def add_writer(self, fd: int, call: Callback) -> None:
        """Call *call* too whenever *fd*, which has a reader, can be written."""
        self._poll.modify(fd, _READ | _WRITE)
        self._callbacks[fd] = (self._callbacks[fd][0], call)

    def remove_writer(self, fd: int) -> None:
        """Stop watching whether *fd* can be written; go on reading."""
        if fd in self._callbacks:
            self._poll.modify(fd, _READ)
            self._callbacks[fd] = (self._callbacks[fd][0], None)

    def add_source(self, fd: int, ready: Callable[[], bool], call: Callback) -> Source:
        """Call *call* while *ready* says so; *fd* is an edge-triggered hint to ask again."""
        source = Source(fd, ready, call, self._hinted)
        self.add_reader(fd, source.hint)
        source.hint()
        return source

    def remove_source(self, source: Source) -> None:
        """Stop watching an edge-triggered source; call before it is closed. Harmless the second time."""
        if source.fd >= 0:
            self.remove_reader(source.fd)
            source.fd = -1

    def add_flush(self, flush: Callable[[], object]) -> None:
        """Call *flush* at the end of every round, to send what was queued in it."""
        self._flushes.append(flush)

    # --- running -----------------------------------------------------------------------------

    def run(self) -> None:
        """Run until ``stop``; then flush once more."""
        while not self.stopped:
            if not self.work() and not self.stopped:
                self.sleep()
        self.flush()

    def work(self) -> bool:
        """Do what is to be done now, then flush; return whether there is more to do."""
        self.now = time.monotonic()
        if self._hinted:
            self._serve_sources()
        soon = self._soon
        for _ in range(len(soon)):
            soon.popleft()()
        if self._timers and self._timers[0][0] <= self.now:
            self._fire_timers()
        for flush in self._flushes:
            flush()
        return bool(soon or self._hinted)

    def _serve_sources(self) -> None:
        hinted = self._hinted[:]
        self._hinted.clear()
        while hinted:
            source = hinted.pop(0)
            try:
                source.serve()
            except BaseException:  # those behind it count as asked: without this nobody would ask them again
                self._hinted[:0] = hinted
                raise

    def _fire_timers(self) -> None:
        while self._timers and self._timers[0][0] <= self.now:
            heapq.heappop(self._timers)[2].fire()

    def flush(self) -> None:
        """Send whatever is queued."""
        for flush in self._flushes:
            flush()

    def sleep(self, *, wait: bool = True) -> None:
        """Wait for the next event (or only look, if not *wait*), and call who is to be called for it."""
        timeout_s = LONGEST_SLEEP_S
        if self._timers:
            timeout_s = min(timeout_s, max(0.0, self._timers[0][0] - time.monotonic()))
        self._awake = False
        if self._soon or not wait:  # came in before _awake was cleared, so nobody wrote to the pipe
            timeout_s = 0.0
        ready = self._poll.poll(timeout_s * _PER_SECOND)
        self._awake = True
        self.now = time.monotonic()
        for fd, events in ready:
            found = self._callbacks.get(fd)
            if found is None:  # one that was called before has removed it
                continue
            reader, writer = found
            if events & ~_WRITE:  # also when the other side hung up
                reader()
            if writer is not None and events & ~_READ:
                writer()

    def close(self) -> None:
        """Free the descriptors. The loop must not run. Harmless the second time."""
        if self._wake_write < 0:
            return
        self._callbacks.clear()
        if isinstance(self._poll, select.epoll):
            self._poll.close()
        os.close(self._wake_read)
        write, self._wake_write = self._wake_write, -1
        os.close(write)
