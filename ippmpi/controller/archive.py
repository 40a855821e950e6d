"""What is stored, for clients that ask: lists of requests, and results with their output, replayed.

A client that asks for a task which still runs gets what is stored, then what still comes. Between
the question and the end of the replay its live messages wait here, so that nothing comes twice or
out of order.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ippmpi.controller.contents import Contents
from ippmpi.controller.seams import Callback, Records, Speaker
from ippmpi.core.effects import CacheJob, Consult, Found, Look, Retell
from ippmpi.ids import Peer
from ippmpi.store.records import ReplyRecord, RequestRecord, Selection
from ippmpi.wire.messages import Answer, Content, Failure, Message, Reply

GIVEN_UP = "is not kept any more: a large value is kept until its own client has it, or while there is room"

Waiting = list[tuple[Message, Callback | None]]


class Archive:
    """Reads the store for clients. Belongs to the loop's thread."""

    def __init__(
        self,
        records: Records,
        contents: Contents,
        speaker_of: Callable[[str], Speaker | None],
        consult_cache: Callable[[CacheJob, Callable[[Found], None]], None],
    ) -> None:
        """Read *records*, and *contents* for what is too large for them; *consult_cache* is for jobs of the cache."""
        self._consult_cache = consult_cache
        self._records = records
        self._contents = contents
        self._speaker_of = speaker_of
        self._waiting: dict[tuple[str, str], Waiting] = {}

    def waiting(self, peer: str, message: Message) -> Waiting | None:
        """Return the line that *message* to *peer* has to join, if its task is being replayed to that peer."""
        if not self._waiting:
            return None
        return self._waiting.get((peer, getattr(message, "task", "")))

    # --- lists -------------------------------------------------------------------------------

    def look(self, effect: Look) -> None:
        """Answer with a list of requests."""
        wanted = effect.wanted
        tasks = None if wanted.tasks is None else tuple(wanted.tasks)
        selection = Selection(wanted.limit, tasks, wanted.client, wanted.label, wanted.state)

        def found(records: list[RequestRecord]) -> None:
            self._answer(effect.peer, effect.request, [_describe(record) for record in records])

        self._records.select(selection, found, whole=False)

    def consult(self, effect: Consult) -> None:
        """Answer with what the store, or the cache, says; contents of what the store has forgotten go too."""

        def found(outcome: Found) -> None:
            if outcome.dropped:
                self._contents.drop_shelved(frozenset(outcome.dropped))
            speaker = self._speaker_of(effect.peer)
            if speaker is not None:
                speaker.send(Answer(effect.request, msgspec.msgpack.encode(outcome.value), outcome.error))

        if isinstance(effect.job, CacheJob):
            self._consult_cache(effect.job, found)
        else:
            self._records.consult(effect.job, found)

    def _answer(self, peer: Peer, request: int, value: object) -> None:
        speaker = self._speaker_of(peer)
        if speaker is not None:
            speaker.send(Answer(request, msgspec.msgpack.encode(value)))

    # --- replays -----------------------------------------------------------------------------

    def replay(self, effect: Retell) -> None:
        """Send what is stored of some tasks, then what has come meanwhile, then the answer."""
        for task in effect.tasks:
            self._waiting.setdefault((effect.peer, task), [])
        selection = Selection(len(effect.tasks), effect.tasks)
        self._records.select(selection, lambda records: self._found(effect, records), whole=True)

    def _found(self, effect: Retell, records: list[RequestRecord]) -> None:
        speaker = self._speaker_of(effect.peer)
        known = {record.task: record for record in records}
        for task in effect.tasks:
            waiting = self._waiting.pop((effect.peer, task), [])
            if speaker is None:
                continue  # it is gone; what was offered to it is taken back already
            if task in known:
                self._send_stored(speaker, known[task], live=task in effect.live)
            for message, on_ack in waiting:
                speaker.send(message, on_ack=on_ack)
        unknown = [task for task in effect.tasks if task not in known and task not in effect.live]
        self._answer(effect.peer, effect.request, unknown)

    def _send_stored(self, speaker: Speaker, record: RequestRecord, *, live: bool) -> None:
        for output in record.outputs:
            speaker.send(output)
        for reply in record.replies:
            message, on_ack = self._contents.give(speaker, self._restored(record.task, reply), last=False)
            speaker.send(message, on_ack=on_ack)
        if live:
            return
        ended = {reply.engine for reply in record.replies}
        for engine in record.targets or ([] if ended else [-1]):
            if engine not in ended:
                speaker.send(missing(record.task, engine, "the store has no record of how it ended"))

    def _restored(self, task: str, reply: ReplyRecord) -> Reply:
        content = Content()
        if reply.content is not None:
            content = Content(reply.content, len(reply.content))
        elif reply.failure is None:
            large = self._contents.result(task, reply.engine)
            if large is None:
                return missing(task, reply.engine, f"its value of {reply.size} bytes {GIVEN_UP}")
            content = large
        return Reply(task, reply.engine, content, reply.failure, reply.started, reply.completed)


def missing(task: str, engine: int, why: str) -> Reply:
    """Return what is sent for a result that is not there, and *why*."""
    about = engine if engine >= 0 else None
    return Reply(task, engine, Content(), Failure("ResultNotKept", why, kind="ResultNotKept", engine=about))


def _describe(record: RequestRecord) -> dict[str, object]:
    return {
        "task": record.task,
        "client": record.client,
        "op": record.op,
        "label": record.label,
        "state": record.state.value,
        "balanced": not record.targets,
        "engines": list(record.engines),
        "submitted": record.submitted,
        "finished": record.finished,
    }
