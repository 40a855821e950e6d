"""Output and displays on their way from an engine to the store and to the owner of the task, up to limits."""

from __future__ import annotations

from collections.abc import Iterator

from ippmpi.core.effects import Effect, Keep, Send
from ippmpi.core.ledger import Ledger
from ippmpi.ids import TaskId
from ippmpi.wire.messages import Display, Output, Published


class Relay:
    """Stores and passes on what belongs to a known task; the rest is dropped."""

    def __init__(self, ledger: Ledger) -> None:
        """Look up tasks in *ledger*."""
        self._ledger = ledger

    def output(self, message: Output) -> Iterator[Effect]:
        """Pass on what a task printed."""
        return self._pass_on(message, len(message.text))

    def display(self, message: Display) -> Iterator[Effect]:
        """Pass on what a task displayed."""
        return self._pass_on(message, len(message.data))

    def published(self, message: Published) -> Iterator[Effect]:
        """Pass on what a task shows while it runs: to those who are there, and nobody keeps it."""
        record = self._ledger.tasks.get(TaskId(message.task))
        if record is None:
            return
        if record.owner in self._ledger.clients:
            yield Send(record.owner, message)
        yield from self._ledger.tell_followers(message)

    def _pass_on(self, message: Output | Display, size: int) -> Iterator[Effect]:
        record = self._ledger.record_of(message.task)
        if record is None:
            return
        before = record.printed
        record.printed = after = before + size
        stored = _within(message, before, after, self._ledger.limits.stored_output, "stored")
        if stored is not None:
            yield Keep(TaskId(message.task), stored)
        shown = _within(message, before, after, self._ledger.limits.output_bytes, "shown")
        if shown is None:
            return
        if record.owner in self._ledger.clients:
            yield Send(record.owner, shown)
        yield from self._ledger.tell_followers(shown)


def _within(message: Output | Display, before: int, after: int, limit: int, what: str) -> Output | Display | None:
    """Return *message* while *limit* is kept, a notice once it is not, then None."""
    if after <= limit:
        return message
    if before > limit:
        return None
    notice = f"\n[ippmpi: output of task {message.task} beyond {limit} bytes is not {what}]\n"
    return Output(message.task, message.engine, "stderr", notice.encode())
