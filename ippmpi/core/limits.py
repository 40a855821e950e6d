"""How much the core keeps: every table has a bound, named here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the core's state. What is over a bound is refused with a text, or the oldest is dropped.

    Attributes:
        engines: ranks that may be registered at a time; a registration beyond is a ProtocolError.
        live_tasks: tasks that have not ended; a further one fails at once.
        held_bytes: inline content of balanced tasks that have not ended; a further task fails at once.
        targets: engines that one task may name; a Submit beyond is a ProtocolError.
        name: characters of a task's id and of its op; a Submit beyond is a ProtocolError.
        label: characters of a task's label; a Submit beyond is a ProtocolError.
        inline_bytes: inline content of one task, all its targets together; a further byte fails it at once.
        kept_tasks: records of ended tasks, for dependencies and ``result_status``; the oldest are dropped.
        kept_worlds: names of worlds without a live rank, for giving back their ids; the oldest are dropped.
        kept_losses: causes of lost engines, for the text of later failures; the oldest are dropped.
        recent_tasks: ids of ended tasks listed per engine by a verbose ``queue_status``.
        output_bytes: output and displays passed on per task; the rest is replaced by one notice.
        stored_output: bytes of output and displays stored per task, for whoever asks later; one notice for the rest.
        last_output: characters of a lost engine's last output that are put into errors.
        about_text: characters of what a client says about itself, per value.
    """

    engines: int = 100_000
    live_tasks: int = 1_000_000
    held_bytes: int = 1 << 30
    targets: int = 100_000
    name: int = 200
    label: int = 10_000
    inline_bytes: int = 12 << 20
    kept_tasks: int = 50_000
    kept_worlds: int = 1_000
    kept_losses: int = 10_000
    recent_tasks: int = 100
    output_bytes: int = 16 << 20
    stored_output: int = 1 << 20
    last_output: int = 4_000
    about_text: int = 200
