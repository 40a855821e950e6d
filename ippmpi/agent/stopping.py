"""How engines are made to end: asked first, then told by signals."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterable

from ippmpi.agent.members import FanOut, LocalEngine, Members
from ippmpi.agent.seams import Loop
from ippmpi.wire.messages import StopEngine

_log = logging.getLogger(__name__)

GRACE_S = 10.0
"""Seconds an engine that was asked to stop has before it gets SIGTERM."""

TERM_GRACE_S = 5.0
"""Seconds from SIGTERM to SIGKILL."""


class Stopper:
    """Asks, waits, then sends SIGTERM and SIGKILL."""

    def __init__(self, loop: Loop, members: Members, send_signal: Callable[[LocalEngine, int], None]) -> None:
        """Look in *members* for who is still there."""
        self._loop = loop
        self._members = members
        self._send_signal = send_signal
        self.reason = ""  # why, if it is not a normal end

    def stop(self, engines: Iterable[LocalEngine], fan: FanOut | None = None) -> None:
        """Ask *engines* to end; *fan* expects their acknowledgements. Asking again does not start the clock again."""
        for engine in engines:
            on_ack = fan.expect(engine) if fan is not None else None
            engine.conversation.send(StopEngine(self.reason), on_ack=on_ack)
            if not engine.told_to_stop:
                engine.told_to_stop = True
                self._later(GRACE_S, engine, signal.SIGTERM)

    def _later(self, delay_s: float, engine: LocalEngine, number: signal.Signals) -> None:
        self._loop.call_later(delay_s, lambda: self._force(engine, number))

    def _force(self, engine: LocalEngine, number: signal.Signals) -> None:
        if engine not in self._members:
            return
        _log.warning("%s was asked to stop and goes on: %s", engine, number.name)
        self._send_signal(engine, number)
        if number == signal.SIGTERM:
            self._later(TERM_GRACE_S, engine, signal.SIGKILL)
