"""Between the hub and the cache of results: small values as they are, large ones by way of the spool."""

from __future__ import annotations

from collections.abc import Callable

from ippmpi.controller.contents import Contents
from ippmpi.controller.seams import Cache, CachedValue
from ippmpi.core.effects import CacheJob, Found, Recall, Remember
from ippmpi.ids import TaskId
from ippmpi.wire.messages import Content


class Recalls:
    """Belongs to the loop's thread. What is remembered is found by what is recalled later."""

    def __init__(self, cache: Cache, contents: Contents, recalled: Callable[[TaskId, Content | None], None]) -> None:
        """Use *cache*; *recalled* hears what it had for a task."""
        self._cache = cache
        self._contents = contents
        self._recalled = recalled

    def recall(self, effect: Recall) -> None:
        """Look for a value."""

        def found(value: CachedValue | None) -> None:
            self._recalled(effect.task, None if value is None else self._content(effect.task, value))

        self._cache.get(effect.digest, self._contents.folder, found)

    def _content(self, task: TaskId, value: CachedValue) -> Content | None:
        if value.path is not None:
            return self._contents.load(task, value.path, value.size)
        return None if value.content is None else Content(inline=value.content)

    def remember(self, effect: Remember) -> None:
        """Keep a value that is whole; one that failed is left out."""
        key, content = effect.key, effect.content
        if not content.transfer:
            self._cache.put(key.digest, key.name, content.inline, len(content.inline), _nothing)
            return
        file = self._contents.borrow(content)
        if file is not None:
            self._cache.put(key.digest, key.name, file.path, file.size, file.release)

    def consult(self, job: CacheJob, found: Callable[[Found], None]) -> None:
        """Do *job*, and hand its outcome to *found*."""
        self._cache.consult(job, found)


def _nothing() -> None:
    """Nobody waits for a small value to be kept."""
