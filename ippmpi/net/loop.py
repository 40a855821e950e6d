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
import selectors
import time
from collections import deque
from collections.abc import Callable

Callback = Callable[[], None]

LONGEST_SLEEP_S = 3600.0  # a timer may be due in the year 10000; epoll cannot wait that long

READ_BYTES = 64 * 1024

_READ = selectors.EVENT_READ
_WRITE = selectors.EVENT_WRITE


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

    def serve(self) -> bool:
        """Call if ready, and then ask again; return whether it was."""
        self._asked = False
        if self.fd < 0 or not self.ready():
            return False
        self.hint()
        self.call()
        return True


class Loop:
    """Polls, calls, sleeps. Everything but ``call_soon`` and ``stop`` belongs to the thread that runs it."""

    def __init__(self) -> None:
        """Make the selector and the wake-up pipe; run nothing yet."""
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._selector.register(self._wake_read, _READ, (self._woken, None))
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
        self._selector.register(fd, _READ, (call, None))

    def remove_reader(self, fd: int) -> None:
        """Stop watching *fd*; harmless if it is not watched."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(fd)

    def add_writer(self, fd: int, call: Callback) -> None:
        """Call *call* too whenever *fd*, which has a reader, can be written."""
        reader, _ = self._selector.get_key(fd).data
        self._selector.modify(fd, _READ | _WRITE, (reader, call))

    def remove_writer(self, fd: int) -> None:
        """Stop watching whether *fd* can be written; go on reading."""
        with contextlib.suppress(KeyError, ValueError):
            reader, _ = self._selector.get_key(fd).data
            self._selector.modify(fd, _READ, (reader, None))

    def add_source(self, fd: int, ready: Callable[[], bool], call: Callback) -> Source:
        """Call *call* while *ready* says so; *fd* is an edge-triggered hint to ask again."""
        source = Source(fd, ready, call, self._hinted)
        self._selector.register(fd, _READ, (source.hint, None))
        source.hint()
        return source

    def remove_source(self, source: Source) -> None:
        """Stop watching an edge-triggered source; call before it is closed. Harmless the second time."""
        if source.fd >= 0:
            self._selector.unregister(source.fd)
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
        """Do what is to be done now, then flush; return whether there was anything."""
        self.now = time.monotonic()
        worked = bool(self._hinted) and self._serve_sources()
        soon = self._soon
        if soon:
            worked = True
            for _ in range(len(soon)):
                soon.popleft()()
        if self._timers and self._timers[0][0] <= self.now:
            worked = True
            self._fire_timers()
        self.flush()
        return worked or bool(self._hinted)

    def _serve_sources(self) -> bool:
        hinted = self._hinted[:]
        self._hinted.clear()
        worked = False
        while hinted:
            source = hinted.pop(0)
            try:
                worked = source.serve() or worked
            except BaseException:  # those behind it count as asked: without this nobody would ask them again
                self._hinted[:0] = hinted
                raise
        return worked

    def _fire_timers(self) -> None:
        while self._timers and self._timers[0][0] <= self.now:
            heapq.heappop(self._timers)[2].fire()

    def flush(self) -> None:
        """Send whatever is queued."""
        for flush in self._flushes:
            flush()

    def sleep(self) -> None:
        """Wait for the next event, and call who is to be called for it."""
        timeout = None
        if self._timers:
            timeout = min(LONGEST_SLEEP_S, max(0.0, self._timers[0][0] - time.monotonic()))
        self._awake = False
        if self._soon:  # came in before _awake was cleared, so nobody wrote to the pipe
            timeout = 0.0
        ready = self._selector.select(timeout)
        self._awake = True
        for key, events in ready:
            reader, writer = key.data
            if events & _READ:
                reader()
            if events & _WRITE and writer is not None:
                writer()

    def close(self) -> None:
        """Free the descriptors. The loop must not run. Harmless the second time."""
        if self._wake_write < 0:
            return
        self._selector.close()
        os.close(self._wake_read)
        write, self._wake_write = self._wake_write, -1
        os.close(write)
