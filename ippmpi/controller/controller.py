"""Carries out what the hub decides: messages to peers, records to the store, contents through the spool.

A message is acknowledged to its sender (``done``) when its next owner has it: when all that the hub
wants kept because of it is in the store, and all its contents are in the spool.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from typing import Any

from ippmpi import clock
from ippmpi.controller.absences import Absences, Patience
from ippmpi.controller.archive import GIVEN_UP, Archive, missing
from ippmpi.controller.contents import Contents
from ippmpi.controller.items import Item
from ippmpi.controller.late import Late
from ippmpi.controller.memory import Memory, trim
from ippmpi.controller.recalls import Recalls
from ippmpi.controller.seams import Alarm, Brain, Cache, Callback, Clock, Mail, Post, Records, Speaker
from ippmpi.core.effects import (
    Consult,
    Effect,
    Keep,
    Look,
    Recall,
    Release,
    Remember,
    Replay,
    Retell,
    Send,
    Shelve,
    Stop,
)
from ippmpi.core.restoring import Past
from ippmpi.errors import ProtocolError
from ippmpi.ids import Peer, TaskId
from ippmpi.net.quiet import Quiet
from ippmpi.store.spool import Spool
from ippmpi.wire.messages import (
    Content,
    Deliver,
    EnginesChanged,
    Farewell,
    Message,
    Replies,
    Reply,
    StopEngines,
    Submit,
)

log = logging.getLogger(__name__)

FAREWELL_S = 5.0
"""How long a client that said farewell may still take its acknowledgement."""


HUNG_S = 2.0
"""After so long engines that join need not be in the store first: a disk that hangs must not stop the work."""

REPEATED = frozenset({Submit, Reply, Replies})
"""What is sent again to the same controller when the one that it came from has died before its acknowledgement."""

COMINGS = 200
"""Lines about peers that come and go which are logged per ten seconds."""


class Controller:
    """The glue. Everything here belongs to the loop's thread."""

    def __init__(  # noqa: PLR0913 - it joins that many parts
        self,
        loop: Clock,
        hub: Brain,
        store: Records,
        spool: Spool,
        cache: Cache,
        *,
        patience: Patience,
        on_end: Callback,
    ) -> None:
        """Join the parts; *on_end* is called once, when a stop has come to its end."""
        self._loop = loop
        self._hub = hub
        self._store = store
        self._contents = Contents(spool, loop.call_soon, self._on_content_failed, call_later=loop.call_later)
        self._recalls = Recalls(cache, self._contents, self._on_recalled)
        self._archive = Archive(store, self._contents, self._speaker, self._recalls.consult)
        self._slow = Late(store, self._speaker, self._send_now, patience.away_bytes)
        self._absences = Absences(
            loop.call_later,
            patience,
            on_upload_lost=self._contents.fail_unfinished,
            on_gone=self._on_gone,
        )
        self._rare: dict[type[Effect], Callable[[Any], None]] = {
            Shelve: lambda effect: self._contents.shelve(effect.content),
            Look: self._archive.look,
            Recall: self._recalls.recall,
            Remember: self._recalls.remember,
            Consult: self._archive.consult,
            Retell: self._archive.replay,
            Replay: self._replay,
            Stop: lambda effect: self.stop(effect.reason),
        }
        self._stop_s = patience.stop_s
        self._on_end = on_end
        self._quiet = Quiet(log)
        self._comings = Quiet(log, COMINGS)
        self._memory = Memory(loop.call_later, trim)
        self._ticked = -math.inf
        self._alarm: Alarm | None = None
        self._alarm_due = math.inf
        self._stopping = False
        self._ended = False
        self._post: Post | None = None

    def attach(self, post: Post) -> None:
        """Use *post* (the router, whose callbacks are methods of this object) from now on."""
        self._post = post

    def restore(self, past: Past) -> None:
        """Go on where a controller was killed; before anybody connects. Its peers have as long as any that are away."""
        post = self._post
        assert post is not None
        # the microsecond: larger than all that were given before, unless the clock was set back
        self._contents.start_keys(max([time.time_ns() // 1000, *past.keys()]))
        for task in past.tasks:
            for content in task.submit.contents if task.submit is not None else ():
                self._contents.restore(task.task, content)
        for reply in (*past.early, *past.spooled):
            self._contents.restore(reply.task, reply.content, reply.engine)
        self._contents.tidy()
        agents = {f"agent:{engine.world}@{engine.host}" for engine in past.engines}
        clients = {str(task.owner) for task in past.tasks if task.submit is not None}
        for name in sorted(agents | clients):
            role = name.partition(":")[0]
            post.expect(name, role)
            self._absences.left(name, role)
        self._do(lambda: self._hub.restore(past))

    def _replay(self, effect: Replay) -> None:
        """Send again what may not have been delivered."""
        self._store.replies(effect.task, lambda replies: self._repeat(effect, replies))

    def _repeat(self, effect: Replay, replies: list[Reply]) -> None:
        found = {reply.engine: reply for reply in replies}
        for engine in effect.engines or list(found) or [-1]:
            reply = found.get(engine)
            if reply is not None:
                if reply.content.transfer and not self._contents.unshelve(reply.content):
                    reply = missing(reply.task, engine, f"its value of {reply.content.size} bytes {GIVEN_UP}")
                self._send(Send(effect.peer, reply), None, stored=False)
            elif not self._contents.arriving(effect.task, engine):
                lost = missing(effect.task, engine, "the store has no record of how it ended")
                self._send(Send(effect.peer, lost), None, stored=False)

    # --- what peers do -----------------------------------------------------------------------

    def on_message(self, mail: Mail) -> None:
        """Take one message; a wrong one is logged, dropped and acknowledged."""
        if self._ended:
            return
        self._tick()
        self._memory.used()
        peer = mail.peer
        items: list[Item] = []
        try:
            message, items = self._contents.take(peer, mail.message)
            effects = list(self._hub.handle(Peer(peer.name), message))
        except Exception as error:  # a bug in one request must not end everybody's work
            self._drop(mail, items, error)
            return
        kept = [effect for effect in effects if type(effect) is Keep]
        done = _countdown(len(items) + len(kept), mail.done if kept else self._owned(mail))
        if items:
            self._carry_out_when_whole(effects, kept, items, done, mail)
        else:
            self._carry_out(effects, done, mail)
        if type(message) is Farewell:
            self._loop.call_later(FAREWELL_S, lambda: self._forget(peer.name))
        self._after()

    def _owned(self, mail: Mail) -> Callback:
        """Return what acknowledges a message of which nothing is kept: what came twice, not before the first one is."""
        if type(mail.message) in REPEATED:
            return lambda: self._store.when_written(mail.done)
        return mail.done

    def _carry_out_when_whole(
        self, effects: list[Effect], kept: list[Keep], items: list[Item], done: Callback, mail: Mail
    ) -> None:
        """Carry out *effects* now, but write records only when their contents are here: what is stored is whole.

        A value is cached then too, and looked for by those that have waited for it.
        """

        later = {Keep, Recall, Remember} if any(type(effect) is Remember for effect in effects) else {Keep}
        cached = [effect for effect in effects if type(effect) in later and type(effect) is not Keep]

        def keep() -> None:
            for effect in kept:
                self._store.keep(effect, done)
            self._carry_out(cached, done, mail)

        whole = _countdown(len(items), keep)

        def ended() -> None:
            whole()
            done()

        self._contents.start(items, ended)
        now = [effect for effect in effects if type(effect) not in later]
        self._carry_out(now, done, mail, stored=False)

    def _drop(self, mail: Mail, items: list[Item], error: Exception) -> None:
        known = isinstance(error, ProtocolError)
        text = "dropped a %s of %s: %s"
        mail.peer.quiet.warning(text, type(mail.message).__name__, mail.peer.name, error, exc_info=not known)
        self._contents.refuse(items)
        mail.done()

    def on_peer(self, speaker: Speaker, connected: bool) -> None:
        """A peer's connection came or went."""
        peer = Peer(speaker.name)
        self._comings.info("%s %s", peer, "is connected" if connected else "cannot be reached")
        if connected:
            self._absences.back(peer)
            self._do(lambda: self._hub.connected(peer, speaker.about))
            if self._stopping and speaker.role == "agent":
                speaker.send(StopEngines(None))
        else:
            self._absences.left(peer, speaker.role, max(0.0, self._loop.now - speaker.heard))
            self._do(lambda: self._hub.disconnected(peer))

    def _on_gone(self, name: str, reason: str) -> None:
        self._comings.info("%s; it is given up", reason)
        self._do(lambda: self._hub.gone(Peer(name), reason))
        self._forget(name)

    def _forget(self, name: str) -> None:
        self._absences.back(name)
        for message in self._slow.forget(name):
            self._contents.release_unsent(message)
        self._contents.forget(name)
        if self._post is not None:
            self._post.forget(name)

    def _on_content_failed(self, task: str, content: Content, why: str) -> None:
        self._do(lambda: self._hub.content_failed(TaskId(task), content, why))

    def _on_recalled(self, task: TaskId, content: Content | None) -> None:
        self._do(lambda: self._hub.recalled(task, content, clock.now()))

    # --- what the hub wants ------------------------------------------------------------------

    def _do(self, call: Callable[[], Iterable[Effect]]) -> None:
        """Carry out the effects of something that is no message."""
        if self._ended:
            return
        self._tick()
        try:
            effects = list(call())
        except ProtocolError as error:
            self._quiet.warning("the hub refused: %s", error)
            return
        self._carry_out(effects, _nothing, None)
        self._after()

    def _carry_out(self, effects: Iterable[Effect], done: Callback, mail: Mail | None, *, stored: bool = True) -> None:
        for effect in effects:
            if type(effect) is Send:
                self._send(effect, mail, stored=stored)
            elif type(effect) is Keep:
                if type(effect.message) is EnginesChanged:
                    done = self._on_change(effect.message, done)
                self._store.keep(effect, done)
            elif type(effect) is Release:
                self._contents.release(effect.content)
            else:
                self._carry_out_rare(effect)

    def _on_change(self, change: EnginesChanged, done: Callback) -> Callback:
        """Follow up who came and went; return what to call when it is stored."""
        self._contents.fail_interrupted(change.left)
        if not change.joined:
            return done

        def stored() -> None:
            self._do(lambda: self._hub.stored(change))

        self._loop.call_later(HUNG_S, stored)

        def both() -> None:
            stored()
            done()

        return both

    def _carry_out_rare(self, effect: Effect) -> None:
        self._rare[type(effect)](effect)

    def _send_now(self, peer: str, message: Message) -> None:
        self._send(Send(Peer(peer), message), None, stored=False)

    def _speaker(self, name: str) -> Speaker | None:
        return self._post.conversation(name) if self._post is not None else None

    def _send(self, effect: Send, mail: Mail | None, *, stored: bool = True) -> None:
        """Send a message. *stored*: if it is about a task, it was handed to the store before."""
        speaker = self._speaker(effect.peer)
        message = effect.message
        if speaker is None:
            log.debug("no link to %s for %s", effect.peer, type(message).__name__)
            self._contents.release_unsent(message)
            return
        waiting = self._archive.waiting(effect.peer, message)
        if waiting is not None:
            waiting.append(self._contents.give(speaker, message))
            return
        if self._slow.takes(speaker, message, stored=stored):
            return
        if mail is not None and message is mail.message:  # relayed unchanged: it is encoded already
            speaker.send_raw(mail.raw, on_ack=self._slow.watch(speaker, message, None))
            return
        given, on_ack = self._contents.give(speaker, message)
        on_ack = self._slow.watch(speaker, message, on_ack)
        # A signal overtakes work that waits in the link. A Revoke must not: it would overtake the Run it is about.
        speaker.send(given, on_ack=on_ack, urgent=type(message) is Deliver)

    # --- time --------------------------------------------------------------------------------

    def _tick(self) -> None:
        """Give the hub the time of this round of the loop, once."""
        now = self._loop.now
        if now > self._ticked:
            self._ticked = now
            self._carry_out(list(self._hub.tick(now)), _nothing, None)

    def _after(self) -> None:
        """Look what the last event has changed: the hub's next deadline, and the end of a stop."""
        due = self._hub.next_deadline()
        if due is not None and due < self._alarm_due:
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm_due = due
            self._alarm = self._loop.call_later(max(0.0, due - self._loop.now), self._on_alarm)
        if self._stopping and not self._hub.engine_count:
            self._end()

    def _on_alarm(self) -> None:
        self._alarm, self._alarm_due = None, math.inf
        self._do(lambda: ())

    # --- the end -----------------------------------------------------------------------------

    def stop(self, reason: str) -> None:
        """End in good order: engines first, for at most ``stop_s`` seconds. The second time: at once."""
        if self._stopping:
            self._end()
            return
        self._stopping = True
        log.info("stopping: %s", reason)
        for speaker in self._post.conversations() if self._post is not None else ():
            if speaker.role == "agent":
                speaker.send(StopEngines(None))
        self._loop.call_later(self._stop_s, self._late)
        self._loop.call_soon(lambda: self._do(lambda: ()))  # perhaps there is nobody to wait for

    def _late(self) -> None:
        if not self._ended:
            log.warning(
                "%d engines did not end within %.0f s; their agents end them", self._hub.engine_count, self._stop_s
            )
            self._end()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._on_end()


def _nothing() -> None:
    """Acknowledge nobody: what happened was no message."""


def _countdown(count: int, call: Callback) -> Callback:
    """Return what is to be called *count* times before *call* is called; for 0 that is now."""
    if count == 0:
        call()
        return _nothing
    if count == 1:
        return call
    left = count

    def one() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            call()

    return one
