"""Values that stay on ranks, on their way from one to another: asking for one, and answering.

A task that is given a handle asks when it is unpickled, one value at a time, and drives the link while it waits. The
rank that has the value answers on its link's loop, so also while it computes; it may itself be waiting.
Who asks keeps asking: again after a new agent has come, and if the content broke off on its way.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

from ippmpi.engine.kept import Entry, Keeping
from ippmpi.engine.memory import Arriving, Unread, store
from ippmpi.errors import HandleError
from ippmpi.wire.handles import Kept
from ippmpi.wire.messages import Content, ContentReady, Failure, Fetch, Fetched, Free, Message
from ippmpi.wire.pickling import pack, unpack

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ippmpi.engine.requests import Delivery

TRIES = 5
"""How often the content of one value may break off: with a controller, an agent, a full disk."""

LARGE = 1_000_000
"""A value of so many bytes is pickled on a thread of its own, for the loop to go on answering."""


class Post(Protocol):
    """The way to the agent (``Engine``)."""

    def wait(self, until: Callable[[], bool]) -> None:
        """Wait in the main thread, while a task runs; raises what interrupts it, and returns if the engine ends."""

    def call_soon(self, call: Callable[[], None]) -> None:
        """Have *call* called by the loop; any thread."""

    def send(self, message: Message, on_ack: Callable[[], None] | None = None) -> None:
        """Send a message; the loop only."""


class Question:
    """One that is under way: ``arriving`` once the answer is, ``found`` (None: it broke off) once it ``ended``."""

    def __init__(self, message: Fetch) -> None:
        """Ask by *message*."""
        self.message = message
        self.arriving: Arriving | None = None
        self.found: Buffer | Unread | Failure | None = None
        self.answered = threading.Event()

    @property
    def ended(self) -> bool:
        """Whether the answer is there."""
        return self.answered.is_set()

    def end(self, found: Buffer | Unread | Failure | None) -> None:
        """Be answered, once."""
        self.arriving = None
        self.found = found
        self.answered.set()

    def complete(self, arriving: Arriving) -> None:
        """Take what has arrived whole."""
        try:
            self.end(arriving.complete())
        except (OSError, ValueError):  # its file was gone before it could be opened
            self.end(None)


class Exchange:
    """One rank's part. ``resolve`` belongs to whoever unpickles, the ``on_`` methods to the link's loop."""

    def __init__(self, kept: Keeping, post: Post, folder: str = "") -> None:
        """Give out *kept*; a large value may become a file in *folder*, see ``memory.store``."""
        self._kept = kept
        self._post = post
        self._folder = folder
        self._numbers = itertools.count(1)
        self._one = threading.Lock()  # at a time; the hub knows no more of each engine
        self._question: Question | None = None

    # --- asking: main thread, or any of the user's -------------------------------------------------

    def resolve(self, kept: Kept) -> object:
        """Return the value that *kept* says: the very object, or a copy from another rank. Raises HandleError."""
        if self._kept.is_here(kept):
            return self._kept.entry(kept.task).value
        with self._one:
            return unpack(self._content(kept))

    def _content(self, kept: Kept) -> Buffer:
        what = f"the {kept.kind} that {kept.task} has left on {kept.where()}"
        for _ in range(TRIES):
            found = self._ask(Fetch(self._kept.engine, next(self._numbers), kept.engine, kept.task))
            if isinstance(found, Unread):
                read = found.read()
                found = None if isinstance(read, Failure) else read
            if isinstance(found, Failure):
                raise HandleError(f"{what} cannot be had: {found.evalue}")
            if found is not None:
                return found
        raise HandleError(f"{what} broke off on its way here, {TRIES} times: the logs of agents and controller say why")

    def _ask(self, message: Fetch) -> Buffer | Unread | Failure | None:
        question = Question(message)
        self._post.call_soon(partial(self._begin, question))
        try:
            if threading.current_thread() is threading.main_thread():
                self._post.wait(lambda: question.ended)
            else:
                question.answered.wait()
        finally:
            self._post.call_soon(partial(self._forget, question))
        if not question.ended:
            return Failure("HandleError", "this engine is ending", kind="HandleError")
        return question.found

    # --- the loop ----------------------------------------------------------------------------------

    def _begin(self, question: Question) -> None:
        self._question = question
        self._post.send(question.message)

    def _forget(self, question: Question) -> None:
        if question.arriving is not None:
            question.arriving.close()
        if self._question is question:
            self._question = None

    def agent_changed(self) -> None:
        """Ask again: another agent, with other numbers, may know nothing of it."""
        question = self._question
        if question is not None and not question.ended:
            if question.arriving is not None:
                question.arriving.close()
                question.arriving = None
            self._post.send(question.message)

    def on_fetched(self, delivery: Delivery) -> None:
        """Take the answer, or what it will be once its content is here. One that nobody waits for is dropped."""
        message, question = delivery.message, self._question
        assert isinstance(message, Fetched)
        if question is not None and question.message.number == message.number and not question.ended:
            self._take(question, message)
        delivery.done()

    def _take(self, question: Question, message: Fetched) -> None:
        content = message.content
        if question.arriving is not None:
            question.arriving.close()
        if message.failure is not None:
            question.end(message.failure)
        elif not content.path:
            question.end(content.inline)
        else:
            try:
                arriving = Arriving(content)
            except OSError:
                question.end(None)
                return
            question.arriving = arriving
            if not content.transfer:
                question.complete(arriving)

    def content_ready(self, message: ContentReady) -> bool:
        """Take the content of an answer, if this is its; say so."""
        question = self._question
        arriving = None if question is None else question.arriving
        if question is None or arriving is None or arriving.transfer != message.transfer:
            return False
        if message.failed:
            arriving.close()
            question.end(None)
        else:
            question.complete(arriving)
        return True

    def on_fetch(self, delivery: Delivery) -> None:
        """Give out a copy of what is kept here."""
        message = delivery.message
        assert isinstance(message, Fetch)
        try:
            entry = self._kept.entry(message.task)
        except HandleError as error:
            self._fail(message, str(error))
        else:
            if entry.kept.size < LARGE:
                self._give(message, entry)
            else:
                name = f"ippmpi-giving-{message.engine}"
                threading.Thread(target=self._give, args=(message, entry), name=name, daemon=True).start()
        delivery.done()

    def _give(self, message: Fetch, entry: Entry) -> None:  # the loop, or a thread of its own
        try:
            content, memory = store(pack(entry.value, entry.pickler), self._folder)
        except Exception as error:  # whatever a __reduce__ of the user's raises
            why = f"it cannot be sent from {entry.kept.where()}: {type(error).__name__}: {error}"
            self._post.call_soon(partial(self._fail, message, why))
            return
        self._post.call_soon(partial(self._answer, message, content, memory))

    def _answer(self, message: Fetch, content: Content, memory: int | None) -> None:
        def on_ack() -> None:
            if memory is not None:
                os.close(memory)

        self._post.send(Fetched(message.engine, message.number, content), on_ack)

    def _fail(self, message: Fetch, why: str) -> None:
        failure = Failure("HandleError", why, kind="HandleError")
        self._post.send(Fetched(message.engine, message.number, Content(), failure))

    def on_free(self, delivery: Delivery) -> None:
        """Let go of what nobody has a handle of any more."""
        message = delivery.message
        assert isinstance(message, Free)
        delivery.done()
        self._kept.free(message.tasks, message.client)
