"""Values that stay on ranks, on their way from one to another: between two of this node, or by way of the controller.

The agent owns nothing here either: an answer is acknowledged when its next owner has it. A question is not kept by
anybody but who asks, so it is asked again when the controller is a new one, and by engines when the agent is.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ippmpi.agent.contents import Contents, check_path
from ippmpi.agent.members import FanOut, LocalEngine, Members
from ippmpi.agent.seams import Conversation, Delivery
from ippmpi.errors import ProtocolError
from ippmpi.wire.frames import encode
from ippmpi.wire.messages import Content, Failure, Fetch, Fetched, Free


class Exchange:
    """Passes on questions, answers, and what may be let go."""

    def __init__(self, controller: Conversation, members: Members, contents: Contents) -> None:
        """Stand between *controller* and *members*."""
        self._controller = controller
        self._members = members
        self._contents = contents
        self._asked: dict[LocalEngine, Fetch] = {}  # the last question of each that has gone to the controller
        self._here: dict[LocalEngine, tuple[LocalEngine, Callable[[], None]]] = {}  # those to another one of this node

    def _local(self, engine: int) -> LocalEngine | None:
        return next(iter(self._members.with_ids([engine])), None)

    def _speaker(self, delivery: Delivery) -> LocalEngine:
        engine = self._members.of_conversation(delivery.peer)
        if engine is None:
            raise ProtocolError(f"{delivery.peer.name} has not introduced itself")
        return engine

    # --- questions -----------------------------------------------------------------------------------

    def on_fetch(self, delivery: Delivery) -> None:
        """Take the question of an engine of this node."""
        message = delivery.message
        assert isinstance(message, Fetch)
        asking = self._speaker(delivery)
        if asking.id != message.engine:
            raise ProtocolError(f"{asking} is engine {asking.id} and asks for engine {message.engine}")
        self._forget(asking)
        holder = self._local(message.holder)
        if holder is None:
            self._asked[asking] = message
            self._controller.send_raw(delivery.raw, on_ack=delivery.done)
            return

        def lost() -> None:  # the controller is about to hear why, and says it
            self._forget(asking)
            self._asked[asking] = message
            self._controller.send(message)

        self._here[asking] = (holder, lost)
        holder.waiting.add(lost)
        self._hand_on(delivery.raw, holder, delivery.done)

    def hand_on_fetch(self, delivery: Delivery) -> None:
        """Take the question of an engine elsewhere. The controller answers if the one asked is gone."""
        message = delivery.message
        assert isinstance(message, Fetch)
        holder = self._local(message.holder)
        if holder is None:
            delivery.done()
        else:
            self._hand_on(delivery.raw, holder, delivery.done)

    def _hand_on(self, raw: bytes, engine: LocalEngine, done: Callable[[], None]) -> None:
        fan = FanOut(done)
        engine.conversation.send_raw(raw, on_ack=fan.expect(engine))
        fan.close()

    def _forget(self, asking: LocalEngine) -> None:
        self._asked.pop(asking, None)
        holder, lost = self._here.pop(asking, (None, None))
        if holder is not None and lost is not None:
            holder.waiting.discard(lost)

    def ask_again(self) -> None:
        """Ask the controller, which is a new one, what the one before has not answered."""
        for asking, message in list(self._asked.items()):
            if asking in self._members:
                self._controller.send(message)
            else:
                del self._asked[asking]

    # --- answers -------------------------------------------------------------------------------------

    def on_fetched(self, delivery: Delivery) -> None:
        """Pass on an engine's answer."""
        message = delivery.message
        assert isinstance(message, Fetched)
        holder = self._speaker(delivery)
        if message.content.path:
            check_path(message.content.path, holder)
        asking = self._local(message.engine)
        if asking is not None:
            self._forget(asking)
            self._hand_on(delivery.raw, asking, delivery.done)
        elif message.content.path:
            self._offer(message, holder, delivery.done)
        else:
            self._controller.send_raw(delivery.raw, on_ack=delivery.done)

    def _offer(self, message: Fetched, holder: LocalEngine, done: Callable[[], None]) -> None:
        try:
            content, end = self._contents.offer(message.content, holder)
        except (ProtocolError, OSError) as error:
            failure = Failure("HandleError", f"its file on {holder} cannot be read: {error}", kind="HandleError")
            message, end = msgspec.structs.replace(message, content=Content(), failure=failure), _nothing
        else:
            message = msgspec.structs.replace(message, content=content)

        def on_ack() -> None:
            end()
            done()

        self._controller.send(message, on_ack=on_ack)

    def hand_on_fetched(self, delivery: Delivery) -> None:
        """Pass on the controller's answer to the engine that asked, and then its content."""
        message = delivery.message
        assert isinstance(message, Fetched)
        asking = self._local(message.engine)
        if asking is None:
            if message.content.transfer:
                self._contents.reject(message.content)
            delivery.done()
            return
        self._forget(asking)
        if not message.content.transfer:
            self._hand_on(delivery.raw, asking, delivery.done)
            return
        fan = FanOut(delivery.done)
        arrival = self._contents.receive(message.content, [asking], fan.expect_other())
        arrival.on_lost = arrival.give_up  # whoever needs it asks again
        local = encode(msgspec.structs.replace(message, content=arrival.local))
        asking.conversation.send_raw(local, on_ack=fan.expect(asking))
        arrival.start()
        fan.close()

    # --- the end of a value --------------------------------------------------------------------------

    def on_free(self, delivery: Delivery) -> None:
        """Tell each engine what it may let go."""
        message = delivery.message
        assert isinstance(message, Free)
        fan = FanOut(delivery.done)
        tasks: dict[LocalEngine, list[str]] = {engine: [] for engine in self._members} if message.client else {}
        for task, place in zip(message.tasks, message.engines, strict=False):
            for engine in self._members.with_ids([place]):
                tasks.setdefault(engine, []).append(task)
        for engine, names in tasks.items():
            free = Free(names, [engine.id] * len(names), message.client)
            engine.conversation.send(free, on_ack=fan.expect(engine))
        fan.close()


def _nothing() -> None:
    """Do nothing: there is no offer to end."""
