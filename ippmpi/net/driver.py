"""Who runs a loop: a thread of its own, or for a while the very thread that waits for its news.

Handing a message from an I/O thread to a waiting thread costs two wake-ups each way. So a thread that
would only wait may *drive* the loop itself; the loop's own thread then stands by. It takes over again
when the driver has been away for a moment: when it runs user code, so that the process still answers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ippmpi.net.loop import Loop

LOOK_S = 0.025
"""How long the loop may stand still before its own thread takes over: between one and two looks."""

LOOKS = 10
"""After so many looks without news the standing-by thread sleeps until it is called."""


class Driver:
    """Runs *loop* on a daemon thread, unless another thread drives."""

    def __init__(self, loop: Loop, name: str, end: Callable[[], None]) -> None:
        """Prepare; *end* is called last, on the thread."""
        self._loop = loop
        self._end = end
        self._lock = threading.Lock()  # held by whoever runs the loop
        self._wanted = False
        self._driving = False
        self._turns = 0
        self._parked = False
        self._call = threading.Event()
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self.thread.start()

    # --- the loop's own thread ---------------------------------------------------------------

    def _run(self) -> None:
        loop = self._loop
        try:
            while True:
                with self._lock:
                    while self._may_go_on():
                        if not loop.work() and self._may_go_on():
                            loop.sleep()
                if loop.stopped:
                    break
                self._stand_by()
            with self._lock:
                loop.flush()
        finally:
            self._end()

    def _may_go_on(self) -> bool:
        return not (self._wanted or self._loop.stopped)

    def _stand_by(self) -> None:
        """Return when nobody has driven for a moment, or the loop is to stop."""
        turns, still = -1, 0
        while not self._loop.stopped:
            time.sleep(LOOK_S)
            if not self._driving and not self._wanted and turns == self._turns:
                return
            still = still + 1 if turns == self._turns else 0
            turns = self._turns
            if still > LOOKS:
                self._parked = True
                if self._driving:  # looked at after _parked is set: a driver that leaves now will call
                    self._call.wait()
                self._call.clear()
                self._parked = False
                still = 0

    # --- another thread ----------------------------------------------------------------------

    def drive(self, until: Callable[[], bool]) -> None:
        """Run the loop on this thread until *until* is true or the loop is to stop.

        No exception may be raised into this thread meanwhile (a signal handler must not raise).
        """
        loop = self._loop
        self._take_over()
        try:
            while not until() and not loop.stopped:
                if not loop.work() and not until() and not loop.stopped:
                    loop.sleep()
        finally:
            self._hand_back()

    def turn(self) -> None:
        """Run one round of the loop on this thread, without waiting for anything; else as ``drive``."""
        self._take_over()
        try:
            if not self._loop.stopped:
                self._loop.sleep(wait=False)
                self._loop.work()
        finally:
            self._hand_back()

    def _take_over(self) -> None:
        if not self._lock.acquire(blocking=False):
            self._wanted = True
            self._loop.call_soon(_nothing)
            self._lock.acquire()
            self._wanted = False
        self._driving = True

    def _hand_back(self) -> None:
        self._turns += 1
        self._driving = False
        self._lock.release()
        if self._parked or self._loop.stopped:
            self._call.set()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread's end, if it is not this one; return whether it has ended."""
        self._call.set()
        if self.thread.is_alive() and threading.current_thread() is not self.thread:
            self.thread.join(timeout_s)
        return not self.thread.is_alive()


def _nothing() -> None:
    """Do nothing: being called is the message."""
