"""How long a peer may be away: first its uploads are given up, then the peer.

Only time in which this process could have heard of it counts: it may have been stopped itself, or its machine asleep.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ippmpi.controller.seams import Alarm


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds until a client's unfinished uploads fail (they hold up others), until a client or an agent is gone.

    ``stop_s``: how long engines may take to end at a normal stop. ``away_bytes``: what may wait in memory for a client.
    """

    upload_s: float = 30.0
    client_s: float = 7 * 86400.0
    agent_s: float = 12.0
    stop_s: float = 8.0
    away_bytes: int = 16 << 20


AGENT_RETURNS_S = 4.0
"""At least this long an agent has to dial again, however long it was silent before its connection was given up."""


OVERSLEPT_S = 1.0
"""A timer that is so late was held up with all of this process: peers that dialled meanwhile were not heard."""


class Clock(Protocol):
    """The part of a loop that is used here."""

    @property
    def now(self) -> float:
        """The time of this round (s)."""

    def call_later(self, delay_s: float, call: Callable[[], None], /) -> Alarm:
        """Call after a delay."""


class Waiting:
    """A timer that gives a second chance when it is called much too late."""

    def __init__(self, loop: Clock, wait_s: float, call: Callable[[], None]) -> None:
        """Call *call* in *wait_s* seconds."""
        self._loop = loop
        self._call = call
        self._set(wait_s)

    def _set(self, wait_s: float) -> None:
        self._due = self._loop.now + wait_s
        self._alarm = self._loop.call_later(wait_s, self._ring)

    def _ring(self) -> None:
        if self._loop.now - self._due > OVERSLEPT_S:
            self._set(AGENT_RETURNS_S)
        else:
            self._call()

    def cancel(self) -> None:
        """Do not call."""
        self._alarm.cancel()


class Absences:
    """Timers of the peers that are away."""

    def __init__(
        self,
        loop: Clock,
        patience: Patience,
        *,
        on_upload_lost: Callable[[str, str], None],
        on_gone: Callable[[str, str], None],
    ) -> None:
        """Call *on_upload_lost* and then *on_gone* with the peer's name and a reason."""
        self._loop = loop
        self._patience = patience
        self._on_upload_lost = on_upload_lost
        self._on_gone = on_gone
        self._alarms: dict[str, list[Waiting]] = {}

    def left(self, name: str, role: str, silent_s: float = 0.0) -> None:
        """The peer's connection is down; nothing was heard of it for *silent_s* seconds before."""
        self.back(name)
        patience = self._patience
        wait_s = patience.agent_s if role == "agent" else patience.client_s
        if role == "agent":
            wait_s = max(min(wait_s, AGENT_RETURNS_S), wait_s - silent_s)
        alarms = [self._later(wait_s, lambda: self._gone(name, wait_s + silent_s))]
        if patience.upload_s < wait_s:
            reason = f"{name} was away for {patience.upload_s:.0f} s in the middle of sending it"
            alarms.append(self._later(patience.upload_s, lambda: self._on_upload_lost(name, reason)))
        self._alarms[name] = alarms

    def _later(self, wait_s: float, call: Callable[[], None]) -> Waiting:
        return Waiting(self._loop, wait_s, call)

    def back(self, name: str) -> None:
        """The peer is connected (again), or need not be waited for."""
        for alarm in self._alarms.pop(name, ()):
            alarm.cancel()

    def _gone(self, name: str, wait_s: float) -> None:
        self._alarms.pop(name, None)
        self._on_gone(name, f"{name} was out of reach for {wait_s:.0f} s")
