"""One thread's loop: ZeroMQ sockets, file descriptors, timers, and wake-ups from other threads.

ZeroMQ's descriptor is edge-triggered: it tells that *something* may have changed, and a send may
swallow the news. So the loop asks every socket for its events before it sleeps, and asks again
after every round in which anything was done.
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

import zmq

Callback = Callable[[], None]
_POLLIN = int(zmq.POLLIN)


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


class Loop:
    """Polls, calls, sleeps. Everything but ``call_soon`` and ``stop`` belongs to the loop's own thread."""

    def __init__(self) -> None:
        """Make the selector and the wake-up pipe; run nothing yet."""
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        self._awake = False
        self._soon: deque[Callback] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._tie = itertools.count()
        self._sockets: dict[int, tuple[zmq.Socket[bytes], Callback]] = {}
        self._polled: list[tuple[Callable[[int], int | bytes], Callback]] = []
        self._flushes: list[Callable[[], bool]] = []
        self._stopped = False
        self.now = time.monotonic()

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
        self._stopped = True

    # --- registration ------------------------------------------------------------------------

    def call_later(self, delay_s: float, call: Callback) -> Timer:
        """Call *call* once in *delay_s* seconds."""
        timer = Timer(time.monotonic() + delay_s, call)
        heapq.heappush(self._timers, (timer.due, next(self._tie), timer))
        return timer

    def add_reader(self, fd: int, call: Callback) -> None:
        """Call *call* whenever *fd* is readable (level-triggered)."""
        self._selector.register(fd, selectors.EVENT_READ, call)

    def remove_reader(self, fd: int) -> None:
        """Stop watching *fd*; harmless if it is not watched."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(fd)

    def add_socket(self, socket: zmq.Socket[bytes], call: Callback) -> None:
        """Call *call* while *socket* has something to receive."""
        fd = int(socket.getsockopt(zmq.FD))
        self._selector.register(fd, selectors.EVENT_READ, None)
        self._sockets[fd] = (socket, call)
        self._rebuild()

    def remove_socket(self, socket: zmq.Socket[bytes]) -> None:
        """Stop watching *socket*; call before it is closed."""
        for fd, (known, _) in list(self._sockets.items()):
            if known is socket:
                del self._sockets[fd]
                self._selector.unregister(fd)
        self._rebuild()

    def _rebuild(self) -> None:
        self._polled = [(socket.getsockopt, call) for socket, call in self._sockets.values()]

    def add_flush(self, flush: Callable[[], bool]) -> None:
        """Call *flush* at the end of every round; it returns whether it sent anything."""
        self._flushes.append(flush)

    # --- running -----------------------------------------------------------------------------

    def run(self) -> None:
        """Run until ``stop``; then flush once more."""
        while not self._stopped:
            worked = self._round()
            if not worked and not self._stopped:
                self._sleep()
        self.flush()

    def _round(self) -> bool:
        self.now = time.monotonic()
        worked = self._poll_sockets()
        soon = self._soon
        if soon:
            worked = True
            for _ in range(len(soon)):
                soon.popleft()()
        if self._timers and self._timers[0][0] <= self.now:
            worked = True
            self._fire_timers()
        return self.flush() or worked

    def _poll_sockets(self) -> bool:
        worked = False
        polled = self._polled
        for events, call in polled:
            if int(events(zmq.EVENTS)) & _POLLIN:
                call()
                worked = True
                if polled is not self._polled:  # the call closed or opened a socket
                    break
        return worked

    def _fire_timers(self) -> None:
        while self._timers and self._timers[0][0] <= self.now:
            heapq.heappop(self._timers)[2].fire()

    def flush(self) -> bool:
        """Send whatever is queued; tell whether there was anything."""
        sent = False
        for flush in self._flushes:
            sent = flush() or sent
        return sent

    def _sleep(self) -> None:
        timeout = None
        if self._timers:
            timeout = max(0.0, self._timers[0][0] - time.monotonic())
        self._awake = False
        if self._soon:  # came in before _awake was cleared, so nobody wrote to the pipe
            timeout = 0.0
        ready = self._selector.select(timeout)
        self._awake = True
        for key, _ in ready:
            if key.fd == self._wake_read:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_read, 4096)
            elif key.data is not None:
                key.data()

    def close(self) -> None:
        """Free the descriptors. The loop must not run."""
        self._selector.close()
        os.close(self._wake_read)
        write, self._wake_write = self._wake_write, -1
        os.close(write)
