"""What is stored of tasks, for any client that asks: also another one than the one that submitted them."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from ippmpi.core.effects import (
    KEYS,
    Cached,
    CacheJob,
    Consult,
    Effect,
    History,
    Job,
    Look,
    Originals,
    Purge,
    Retell,
    Search,
    Send,
    Uncache,
    Wanted,
)
from ippmpi.core.ledger import Ledger
from ippmpi.core.matching import check
from ippmpi.ids import Peer, TaskId
from ippmpi.wire.messages import Answer, Query

MOST_LISTED = 100_000
MOST_REPLAYED = 100
"""Tasks of one question, so that what it brings into memory is bounded."""


JOBS: dict[str, type[Job | CacheJob]] = {
    "history": History,
    "search": Search,
    "purge": Purge,
    "originals": Originals,
    "cached": Cached,
    "uncache": Uncache,
}
"""Questions that the store, or the cache, answers by itself, and what their arguments are."""

QUESTIONS = frozenset(("results", "fetch", *JOBS))


class Archive:
    """Turns questions into readings of the store, and lets their senders follow what still runs."""

    def __init__(self, ledger: Ledger) -> None:
        """Share the tables."""
        self._ledger = ledger

    def answer(self, peer: Peer, message: Query) -> Iterator[Effect]:
        """Answer one of ``QUESTIONS``, with an error text if it cannot be understood."""
        try:
            if message.what == "results":
                wanted = msgspec.msgpack.decode(message.arguments, type=Wanted)
                effect: Effect = Look(peer, message.request, _bounded(wanted))
            elif message.what in JOBS:
                effect = Consult(peer, message.request, _job(message))
            else:
                effect = self._fetch(peer, message)
        except (msgspec.DecodeError, ValueError) as error:
            effect = Send(peer, Answer(message.request, error=str(error)))
        yield effect

    def _fetch(self, peer: Peer, message: Query) -> Effect:
        names = msgspec.msgpack.decode(message.arguments, type=list[str])
        if len(names) > MOST_REPLAYED:
            text = f"{len(names)} tasks in one question; {MOST_REPLAYED} are the limit"
            return Send(peer, Answer(message.request, error=text))
        tasks = tuple(map(TaskId, dict.fromkeys(names)))
        live = frozenset(task for task in tasks if task in self._ledger.tasks)
        for task in live:
            self._ledger.follow(peer, task)
        return Retell(peer, message.request, tasks, live)


def _job(message: Query) -> Job | CacheJob:
    job: Job | CacheJob = msgspec.msgpack.decode(message.arguments, type=JOBS[message.what])
    if isinstance(job, Search):
        check(job.query, KEYS)
        check(dict.fromkeys(job.keys), KEYS)
    if isinstance(job, Cached):
        job = msgspec.structs.replace(job, limit=max(0, min(job.limit, MOST_LISTED)))
    return job


def _bounded(wanted: Wanted) -> Wanted:
    return msgspec.structs.replace(wanted, limit=max(0, min(wanted.limit, MOST_LISTED)))
