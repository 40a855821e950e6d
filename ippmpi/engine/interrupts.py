"""SIGINT and SIGTERM: they reach the user's code while it runs, and nothing else.

An interrupt that names a task is for that task only: between the decision and the signal another
one may have begun. SIGINT from outside (``kill``, ``send_signal``) is for whatever runs; an idle
engine ignores it. A KeyboardInterrupt is never raised in the engine's own code.
"""

from __future__ import annotations

import signal
import threading
from _signal import getsignal  # type: ignore[import-not-found] # signal.getsignal makes an enum of it, which takes a tenth of a no-op task
from collections.abc import Callable
from types import FrameType

HANDLED = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Which task's code may be interrupted now.

    ``task`` is set by the main thread only, to the task whose code it is about to run, and to ""
    afterwards.
    """

    def __init__(self, on_terminate: Callable[[], None]) -> None:
        """Call *on_terminate* (in the main thread, between any two instructions) when SIGTERM comes."""
        self.task = ""
        self._named = ""
        self._deferred = ""
        self._struck: BaseException | None = None
        self._wake: Callable[[], None] = _nothing
        self._on_terminate = on_terminate
        self._main = threading.main_thread().ident or 0

    def install(self) -> None:
        """Take over the signals; main thread only."""
        signal.signal(signal.SIGINT, self._on_interrupt)
        signal.signal(signal.SIGTERM, self._on_terminate_signal)

    def restore(self) -> None:
        """Take SIGINT back if the user's code kept it: between tasks it must not raise; main thread only."""
        if getsignal(signal.SIGINT) != self._on_interrupt:
            signal.signal(signal.SIGINT, self._on_interrupt)

    def leave(self) -> None:
        """Ignore the signals from now on: the process is ending; main thread only."""
        for number in HANDLED:
            signal.signal(number, signal.SIG_IGN)

    def interrupt(self, task: str) -> None:
        """Raise KeyboardInterrupt in *task* if its code still runs when the signal arrives. From any thread."""
        self._named = task
        signal.pthread_kill(self._main, signal.SIGINT)

    def defer(
        self, drive: Callable[[Callable[[], bool]], None], until: Callable[[], bool], wake: Callable[[], None]
    ) -> None:
        """Have *drive*, which is our own code, wait for *until*; main thread only.

        An interrupt of the task that comes meanwhile ends that (*wake* has it look), and is raised here.
        """
        task, self._wake, self._struck = self.task, wake, None
        self._deferred, self.task = task, ""  # in this order: one that comes in between is raised at once
        try:
            drive(lambda: self._struck is not None or until())
        finally:
            self.task = task
            self._deferred = ""
        struck, self._struck = self._struck, None
        if struck is not None:
            raise struck

    def _strike(self, error: BaseException) -> None:
        if self.task:
            raise error
        if self._deferred:
            self._struck = error
            self._wake()

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler
        named, self._named = self._named, ""
        if named in ("", self.task or self._deferred):
            self._strike(KeyboardInterrupt())

    def _on_terminate_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler
        self._on_terminate()
        self._strike(SystemExit("the engine was told to end (SIGTERM)"))


def _nothing() -> None:
    """Do nothing: nobody sleeps."""
