"""Calls whose results are cached: what users say about them, and the keys that go to the controller."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ippmpi.client.codekeys import file_digest
from ippmpi.client.futures import ANSWER_S
from ippmpi.client.keys import Walk
from ippmpi.wire.messages import CacheKey

if TYPE_CHECKING:
    from ippmpi.client.questions import Questions

FORMAT = 1
"""Of keys; another number makes all that is cached unreachable."""

LONGEST_NAME = 200

File = str | os.PathLike[str]


class Cache:
    """What the results of cached calls depend on besides code and arguments: ``cache=ipp.Cache(files=[...])``.

    ``cache=True`` is the same as ``Cache()``. *files*: files that the function reads; what counts is their content
    (as this client sees it, at each call). *version*: any value; another one means other results.
    """

    def __init__(self, *, files: File | Iterable[File] = (), version: object = None) -> None:
        """See the class."""
        some = [files] if isinstance(files, str | os.PathLike) else files
        self.files = tuple(Path(file).expanduser() for file in some)
        self.version = version

    def __repr__(self) -> str:
        """Show what was declared."""
        return f"Cache(files={[str(file) for file in self.files]}, version={self.version!r})"


def declared(cache: object) -> Cache | None:
    """Return what a view's flag ``cache`` says; None: calls are not cached.

    Raises:
        TypeError: it is none of True, False, None and a ``Cache``.
    """
    if isinstance(cache, Cache):
        return cache
    if cache is None or isinstance(cache, bool):
        return Cache() if cache else None
    raise TypeError(f"cache= must be True, False, or ipp.Cache(files=..., version=...), not {cache!r}")


class Keys:
    """Makes keys for calls of one function, whose code is looked at once."""

    def __init__(self, function: Callable[..., Any], cache: Cache, form: str, *, engineless: bool = False) -> None:
        """*form* says how it is called, as its values differ: a call, an item of a map, ...

        *engineless*: there are no engines, so the calls are good for nothing but looking for their results.

        Raises:
            UncacheableError: nobody can say what the function does.
            OSError: a declared file cannot be read.
        """
        walk = Walk()
        walk.sequence("ippmpi", (FORMAT, *sys.version_info[:2], form))
        with walk.at("the version"):
            walk.add(cache.version)
        walk.sequence("files", [file_digest(file) for file in cache.files])
        walk.add(function)
        self._base = walk.digest()
        self._name = name_of(function)
        self._engineless = engineless

    def key(self, args: Sequence[Any], kwargs: dict[str, Any] | None = None) -> CacheKey:
        """Return the key of a call with these arguments.

        Raises:
            UncacheableError: they have none.
        """
        walk = Walk()
        walk.mark("call", self._base)
        walk.mark("arguments", count=len(args))
        for number, argument in enumerate(args):
            with walk.at(f"argument {number}"):
                walk.add(argument)
        walk.names("keywords", kwargs or {}, "the argument")
        return CacheKey(walk.digest().hex(), self._name, self._engineless)


def key_of(keys: Keys | None, args: Sequence[Any], kwargs: dict[str, Any] | None = None) -> CacheKey | None:
    """Return the key of a call; None if there are no *keys*, so that it is not cached."""
    return None if keys is None else keys.key(args, kwargs)


def name_of(function: object) -> str:
    """Return under which name results of *function* are listed."""
    inner = getattr(function, "func", function)  # of a partial, or of a remote function
    module = getattr(inner, "__module__", None) or ""
    name = str(getattr(inner, "__qualname__", type(inner).__qualname__))
    return (name if module in ("", "__main__") else f"{module}.{name}")[:LONGEST_NAME]


class CachedResult(NamedTuple):
    """One result in the cache. ``hits``: how often it was used instead of computing."""

    key: str
    name: str
    size: int
    created: datetime
    used: datetime
    hits: int


class CachedResults:
    """The results of cached calls, of all sessions of this user: ``rc.cache``."""

    def __init__(self, questions: Questions) -> None:
        """Ask by *questions*."""
        self._questions = questions

    def list(
        self, function: Callable[..., Any] | str = "", *, limit: int = 1000, timeout: float = ANSWER_S
    ) -> list[CachedResult]:
        """Return what is cached, what was used last first; of one *function* (or its name), or of all."""
        name = function if isinstance(function, str) else name_of(function)
        found = self._questions.ask_store("cached", {"limit": limit, "name": name}, timeout)["entries"]
        return [
            CachedResult(
                each["digest"], each["name"], each["size"], _at(each["created"]), _at(each["used"]), each["hits"]
            )
            for each in found
        ]

    def drop(self, *what: Any, timeout: float = ANSWER_S) -> int:
        """Forget results: keys, members of ``list()``, functions or their names; return how many there were."""
        digests, names = [], []
        for each in what:
            if isinstance(each, CachedResult):
                digests.append(each.key)
            elif isinstance(each, str):
                digests.append(each)
                names.append(each)
            elif callable(each):
                names.append(name_of(each))
            else:
                raise TypeError(f"drop() needs keys, members of list(), functions or their names, not {each!r}")
        dropped: int = self._questions.ask_store("uncache", {"digests": digests, "names": names}, timeout)
        return dropped

    def clear(self, *, timeout: float = ANSWER_S) -> int:
        """Forget all results; return how many there were."""
        dropped: int = self._questions.ask_store("uncache", {"everything": True}, timeout)
        return dropped

    def counts(self, *, timeout: float = ANSWER_S) -> dict[str, Any]:
        """Return ``entries``, ``bytes``, their limits (``most_entries``, ``most_bytes``, ``age_s``), and ``folder``."""
        counts: dict[str, Any] = self._questions.ask_store("cached", {"limit": 0}, timeout)["counts"]
        return counts

    def __len__(self) -> int:
        """Return how many results there are."""
        return int(self.counts()["entries"])

    def __bool__(self) -> bool:
        """A cache is true, also without results."""
        return True

    def __repr__(self) -> str:
        """Say what it is, without asking anybody."""
        return "<results of cached calls: list(), drop(...), clear(), counts()>"


def _at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
