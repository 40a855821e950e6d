"""Output and displays on their way from an engine to the owner of the task, up to a limit."""

from __future__ import annotations

from collections.abc import Iterator

from ippmpi.core.effects import Effect, Send
from ippmpi.core.ledger import Ledger
from ippmpi.wire.messages import Display, Output


class Relay:
    """Passes on what belongs to a known task of a client that is not gone; the rest is dropped."""

    def __init__(self, ledger: Ledger) -> None:
        """Look up tasks in *ledger*."""
        self._ledger = ledger

    def output(self, message: Output) -> Iterator[Effect]:
        """Pass on what a task printed."""
        return self._pass_on(message, len(message.text))

    def display(self, message: Display) -> Iterator[Effect]:
        """Pass on what a task displayed."""
        return self._pass_on(message, len(message.data))

    def _pass_on(self, message: Output | Display, size: int) -> Iterator[Effect]:
        record = self._ledger.record_of(message.task)
        if record is None or record.owner not in self._ledger.clients:
            return
        limit = self._ledger.limits.output_bytes
        before = record.printed
        record.printed = before + size
        if record.printed <= limit:
            yield Send(record.owner, message)
        elif before <= limit:
            notice = f"\n[ippmpi: output of task {message.task} beyond {limit} bytes is not shown]\n"
            yield Send(record.owner, Output(message.task, message.engine, "stderr", notice.encode()))
