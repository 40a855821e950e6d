"""What the core asks the outside world to do.

Structs of msgspec: they are made four times faster than frozen dataclasses.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ippmpi.ids import Peer, TaskId
from ippmpi.wire.messages import CacheKey, Content, Message


class Wanted(msgspec.Struct, frozen=True):
    """Of the question ``results``: which stored requests. None: whatever they have there."""

    limit: int = 1000
    tasks: list[str] | None = None
    client: str | None = None
    label: str | None = None
    state: str | None = None


class History(msgspec.Struct, frozen=True):
    """The ids of all stored requests, the oldest first."""


KEYS = (
    "msg_id", "client_uuid", "label", "op", "queue", "state", "submitted", "received",
    "engines", "started", "completed", "error", "stdout", "stderr",
)  # fmt: skip
"""What a search may ask for, and about; from ``engines`` on it has to be read from other tables."""


class Search(msgspec.Struct, frozen=True):
    """The *keys* of the stored requests that match *query* (see ``matching.py``)."""

    query: dict[str, Any] = {}
    keys: tuple[str, ...] = KEYS


class Purge(msgspec.Struct, frozen=True):
    """Forget *tasks*, which have ended (None: all that have), and those that ended on one of *engines*."""

    tasks: list[str] | None = []
    engines: list[int] = []


class Originals(msgspec.Struct, frozen=True):
    """The requests themselves, as they came (encoded ``Submit``), to be sent again."""

    tasks: list[str]


class Cached(msgspec.Struct, frozen=True):
    """Which results are cached, those used last first: at most *limit*, of functions called *name* (empty: all)."""

    limit: int = 1000
    name: str = ""


class Uncache(msgspec.Struct, frozen=True):
    """Drop cached results: with these *digests*, of functions with these *names*; or *everything*."""

    digests: list[str] = []
    names: list[str] = []
    everything: bool = False


Job = History | Search | Purge | Originals
CacheJob = Cached | Uncache


class Found(msgspec.Struct, frozen=True):
    """The outcome of a job: a ``value``, or an ``error``. ``dropped``: the tasks that were forgotten."""

    value: Any = None
    error: str = ""
    dropped: list[str] = []


class Send(msgspec.Struct, frozen=True, gc=False):
    """Send *message* to *peer*.

    Inside the core ``Content.transfer`` is a key of the controller's spool; the controller
    translates it to and from the transfer numbers of each link.
    """

    peer: Peer
    message: Message


class Keep(msgspec.Struct, frozen=True, gc=False):
    """Store a new request (``Submit``), one of its ends (``Reply``), what it printed, or who came and went.

    The sender of the message that caused it is acknowledged when it is stored.
    """

    task: TaskId
    message: Message


class Release(msgspec.Struct, frozen=True, gc=False):
    """Nobody needs this spooled content any more."""

    content: Content


class Replay(msgspec.Struct, frozen=True, gc=False):
    """Send the stored replies of *task* to *peer* again: those of *engines*, or (none named) the one there is.

    What is not in the store is lost, and fails.
    """

    peer: Peer
    task: TaskId
    engines: list[int]


class Shelve(msgspec.Struct, frozen=True, gc=False):
    """Nobody waits for the spooled content of this result: keep it for whoever asks, as long as there is room."""

    content: Content


class Look(msgspec.Struct, frozen=True, gc=False):
    """Answer question *request* of *peer* with the stored requests that *wanted* describes."""

    peer: Peer
    request: int
    wanted: Wanted


class Consult(msgspec.Struct, frozen=True, gc=False):
    """Have the store, or the cache, do *job* for *peer*, and answer its question *request* with the outcome."""

    peer: Peer
    request: int
    job: Job | CacheJob


class Retell(msgspec.Struct, frozen=True, gc=False):
    """Send *peer* all that is stored of *tasks* (replies and output), then answer its question *request*.

    What is sent to it about one of them meanwhile waits until that is through, so everything comes once and in order.
    *live* are those that still run: what is missing of the others will never come.
    """

    peer: Peer
    request: int
    tasks: tuple[TaskId, ...]
    live: frozenset[TaskId]


class Recall(msgspec.Struct, frozen=True, gc=False):
    """Look for a cached result for *task*, and tell ``Hub.recalled`` what was found."""

    task: TaskId
    digest: str


class Remember(msgspec.Struct, frozen=True, gc=False):
    """Put the value *content* into the cache, once it is whole."""

    key: CacheKey
    content: Content


class Stop(msgspec.Struct, frozen=True, gc=False):
    """End the controller, in good order."""

    reason: str


Effect = Send | Keep | Release | Replay | Shelve | Look | Consult | Retell | Recall | Remember | Stop
