"""When the agent leaves: its ranks are gone and the controller knows, or nobody ever comes."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ippmpi.agent.members import Members
from ippmpi.agent.seams import Conversation, Loop, Timer
from ippmpi.agent.stopping import GRACE_S, TERM_GRACE_S

_log = logging.getLogger(__name__)

STRAGGLERS_S = 10.0
"""How long ranks of this node that never joined are waited for when all others are gone."""

STARTER_GONE_S = 4.0
"""How long the first rank is waited for when the one that started this agent has died."""

FIRST_S = 30.0
"""How long the first rank is waited for when nobody knows who started this agent."""

STARTER_LOOK_S = 2.0
"""Between two looks at the starter, as long as no rank has joined."""

TELL_S = 2.0
"""How long the controller may be silent while it still has to hear of something."""

STOP_S = GRACE_S + TERM_GRACE_S + 5.0
"""How long a stop of everything may take; then the agent leaves whatever there is."""

_LOOK_S = 0.05


class Lifetime:
    """Calls ``leave`` once, when there is nothing left to do."""

    def __init__(
        self,
        loop: Loop,
        members: Members,
        controller: Conversation,
        *,
        progress: Callable[[], int],
        leave: Callable[[], None],
    ) -> None:
        """Watch over *members*; *controller* must hear of their end. *progress* changes while contents are sent."""
        self._loop = loop
        self._members = members
        self._controller = controller
        self._leave = leave
        self._timer: Timer | None = None
        self._ranks: set[int] = set()
        self._local_size = 0
        self._silence_s = 0.0
        self._content_progress = progress
        self._progress = (0, 0)
        self.closing = False

    def await_first(self, starter_lives: Callable[[], bool | None], waited_s: float = 0.0) -> None:
        """Wait for a rank to join as long as *starter_lives* (None: not known), and a while longer."""
        lives = starter_lives()
        if lives:
            waited_s = 0.0
        if waited_s >= (FIRST_S if lives is None else STARTER_GONE_S):
            _log.debug("no rank has come; leaving")
            self._tell()
            return
        self._set_timer(STARTER_LOOK_S, lambda: self.await_first(starter_lives, waited_s + STARTER_LOOK_S))

    def joined(self, rank: int, local_size: int) -> None:
        """A rank has come, of *local_size* on this node."""
        self._ranks.add(rank)
        self._local_size = local_size
        self._stop_timer()

    @property
    def all_came(self) -> bool:
        """Whether all ranks of this node have joined, whatever became of them."""
        return 0 < self._local_size <= len(self._ranks)

    def lost(self) -> None:
        """A rank has gone."""
        if self._members:
            return
        if self.closing or self.all_came:
            self._tell()
        else:
            self._set_timer(STRAGGLERS_S, self._tell)

    def close(self) -> None:
        """Everything has been asked to stop: leave as soon as that has happened."""
        if not self.closing:
            self.closing = True
            self._loop.call_later(STOP_S, self._give_up)
        self.lost()

    def _tell(self) -> None:
        """Wait until the controller has everything (results on their way too), then leave."""
        self._silence_s = 0.0
        self._look()

    def _look(self) -> None:
        progress = (self._controller.backlog, self._content_progress())
        if progress != self._progress:
            self._progress, self._silence_s = progress, 0.0
        if self._controller.idle or self._silence_s >= TELL_S:
            self._leave()
            return
        self._silence_s += _LOOK_S
        self._set_timer(_LOOK_S, self._look)

    def _give_up(self) -> None:
        _log.error("not everything ended in %.0f s; leaving", STOP_S)
        self._leave()

    def _set_timer(self, delay_s: float, call: Callable[[], None]) -> None:
        self._stop_timer()
        self._timer = self._loop.call_later(delay_s, call)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
