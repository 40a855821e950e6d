"""What is noted about ranks while they live, since it cannot be asked once they are dead.

Which shared memory segments they map (a killed rank leaves them behind), and how often the kernel
had killed for lack of memory where they run. Looked at when a rank joins, and every ``SAMPLE_S``
seconds for ranks that got work since: an idle node has no timer. The segments are written down in the
node folder too, for whoever comes after an agent that is killed together with its ranks.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

from ippmpi.agent import procfs
from ippmpi.agent.seams import Loop, Timer

_log = logging.getLogger(__name__)

SAMPLE_S = 10.0
"""Seconds between two looks at busy ranks."""


class Traces:
    """Notes about the processes of this node's ranks, by pid."""

    def __init__(self, loop: Loop, notes: Path | None = None) -> None:
        """Start with what an agent before has written to the file *notes*."""
        self._loop = loop
        self._notes = notes
        self._timer: Timer | None = None
        self._busy: set[int] = set()
        self._segments: set[str] = set() if notes is None else procfs.read_segments(notes)
        self._counters: dict[int, str] = {}
        self._oom_kills: dict[str, int] = {}

    def note(self, pid: int) -> None:
        """Look at a rank that has just joined."""
        self._note_segments(pid)
        found = procfs.oom_kills(pid)
        if found is not None:
            counter, kills = found
            self._counters[pid] = counter
            self._oom_kills.setdefault(counter, kills)

    def busy(self, pid: int) -> None:
        """Look at this rank again at the next sampling: it works."""
        self._busy.add(pid)
        if self._timer is None:
            self._timer = self._loop.call_later(SAMPLE_S, self._sample)

    def claim_oom_kill(self, pid: int) -> bool:
        """Say whether the kernel's count of OOM kills where *pid* ran has an increase that explains its death.

        Each increase explains one death: MPI kills the other ranks by SIGKILL too.
        """
        counter = self._counters.pop(pid, None)
        kills = procfs.count_oom_kills(counter) if counter is not None else None
        if counter is None or kills is None or kills <= self._oom_kills[counter]:
            return False
        self._oom_kills[counter] += 1
        return True

    def clean_up(self, since: float | None = None) -> None:
        """Remove the segments that ranks left behind and nobody maps.

        *since*: when the first rank began (s since the epoch), if there are ranks that never joined.
        """
        if self._timer is not None:
            self._timer.cancel()
        if since is not None:
            self._segments |= procfs.abandoned(since)
        for path in procfs.remove_segments(self._segments):
            _log.debug("removed %s, left behind by a rank", path)
        if self._notes is not None:
            self._notes.unlink(missing_ok=True)

    def _sample(self) -> None:
        self._timer = None
        busy, self._busy = self._busy, set()
        for pid in busy:
            self._note_segments(pid)

    def _note_segments(self, pid: int) -> None:
        new = procfs.segments(pid) - self._segments
        self._segments |= new
        if new and self._notes is not None:
            with contextlib.suppress(OSError), self._notes.open("a") as file:
                file.write("".join(f"{path}\n" for path in sorted(new)))
