"""How long a peer may be away: first its uploads are given up, then the peer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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


class Absences:
    """Timers of the peers that are away."""

    def __init__(
        self,
        call_later: Callable[[float, Callable[[], None]], Alarm],
        patience: Patience,
        *,
        on_upload_lost: Callable[[str, str], None],
        on_gone: Callable[[str, str], None],
    ) -> None:
        """Call *on_upload_lost* and then *on_gone* with the peer's name and a reason."""
        self._call_later = call_later
        self._patience = patience
        self._on_upload_lost = on_upload_lost
        self._on_gone = on_gone
        self._alarms: dict[str, list[Alarm]] = {}

    def left(self, name: str, role: str, silent_s: float = 0.0) -> None:
        """The peer's connection is down; nothing was heard of it for *silent_s* seconds before."""
        self.back(name)
        patience = self._patience
        wait_s = patience.agent_s if role == "agent" else patience.client_s
        if role == "agent":
            wait_s = max(min(wait_s, AGENT_RETURNS_S), wait_s - silent_s)
        alarms = [self._call_later(wait_s, lambda: self._gone(name, wait_s + silent_s))]
        if patience.upload_s < wait_s:
            reason = f"{name} was away for {patience.upload_s:.0f} s in the middle of sending it"
            alarms.append(self._call_later(patience.upload_s, lambda: self._on_upload_lost(name, reason)))
        self._alarms[name] = alarms

    def back(self, name: str) -> None:
        """The peer is connected (again), or need not be waited for."""
        for alarm in self._alarms.pop(name, ()):
            alarm.cancel()

    def _gone(self, name: str, wait_s: float) -> None:
        self._alarms.pop(name, None)
        self._on_gone(name, f"{name} was out of reach for {wait_s:.0f} s")
