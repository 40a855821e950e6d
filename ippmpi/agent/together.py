"""Replies that wait a moment for those of other local engines to the same request, so that they travel as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ippmpi.agent.seams import Conversation
from ippmpi.wire.messages import Replies, Reply

TOGETHER_S = 0.001
"""How long the first one waits at most."""


MOST_BYTES = 256 * 1024
"""Once so much waits, it leaves: a message is a frame, which has a limit, and what is urgent waits behind it."""


class _Waiting(NamedTuple):
    """``total``: bytes up to here."""

    reply: Reply
    raw: bytes
    done: Callable[[], None]
    total: int


class Together:
    """What is about to leave to the controller."""

    def __init__(self, controller: Conversation, later: Callable[[float, Callable[[], None]], object]) -> None:
        """Send to *controller*; *later* is the loop's ``call_later``."""
        self._controller = controller
        self._later = later
        self._waiting: dict[str, list[_Waiting]] = {}

    def send(self, reply: Reply, raw: bytes, done: Callable[[], None], *, more: bool) -> None:
        """Send *reply*, which has no large content; if there is *more* to come for its task, not yet.

        *raw* is the reply as bytes; *done* is called when the controller has acknowledged it.
        """
        task = reply.task
        waiting = self._waiting.get(task)
        if waiting is None:
            if not more:
                self._controller.send_raw(raw, on_ack=done)
                return
            waiting = self._waiting[task] = []
            self._later(TOGETHER_S, lambda: self._let_go(task, waiting))
        total = len(raw) + (waiting[-1].total if waiting else 0)
        waiting.append(_Waiting(reply, raw, done, total))
        if not more or total >= MOST_BYTES:
            self._let_go(task, waiting)

    def flush(self) -> None:
        """Let all of them leave before what is sent next."""
        for task, waiting in list(self._waiting.items()):
            self._let_go(task, waiting)

    def _let_go(self, task: str, waiting: list[_Waiting]) -> None:
        if self._waiting.get(task) is not waiting:
            return  # they have left already
        del self._waiting[task]
        if len(waiting) == 1:
            self._controller.send_raw(waiting[0].raw, on_ack=waiting[0].done)
            return
        dones = [one.done for one in waiting]

        def all_done() -> None:
            for done in dones:
                done()

        self._controller.send(Replies(task, [one.reply for one in waiting]), on_ack=all_done)
