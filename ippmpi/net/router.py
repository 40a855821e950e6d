"""The listening side: a Unix socket and a TCP port, many conversations."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ippmpi.errors import ProtocolError, Refused
from ippmpi.net.conversation import ACK_DELAY_S, Conversation, Delivery, Wire, pack_about, unpack_about
from ippmpi.net.gate import Gate
from ippmpi.net.incoming import Connection
from ippmpi.net.loop import Loop
from ippmpi.net.quiet import Quiet
from ippmpi.net.strangers import Strangers
from ippmpi.net.stream import LARGEST_FRAME, LARGEST_HELLO, Doorstep, Stream
from ippmpi.wire.frames import encode_link
from ippmpi.wire.messages import Denied, Hello, Welcome

if TYPE_CHECKING:
    from ippmpi.net.curveport import CurvePort
    from ippmpi.net.keys import ServerKeys

log = logging.getLogger(__name__)

PING_S = 3.0
SILENT_S = 8.0  # a live peer speaks at least every 2 * PING_S

MOST_PEERS = 20_000
"""Conversations at a time; one more is refused."""


class Router:
    """Accepts peers and keeps a conversation with each.

    Callbacks (all on the loop's thread):
        on_hello(hello, role): may raise ``Refused``; returns what to tell the peer about us.
        on_message(delivery): one message; must lead to ``delivery.done()``.
        on_peer(conversation, connected): its control connection came or went.
    """

    def __init__(  # noqa: PLR0913 - two addresses, three callbacks: the whole of its outside
        self,
        loop: Loop,
        *,
        unix: str | None = None,
        tcp: str | None = None,
        keys: ServerKeys | None = None,
        on_hello: Callable[[Hello, str], Mapping[str, object]],
        on_message: Callable[[Delivery], None],
        on_peer: Callable[[Conversation, bool], None],
        here: str = "this side",
    ) -> None:
        """Listen at *unix* (a path) and *tcp* (``host:port``, port 0 for any); TCP needs *keys*.

        With *keys*, peers on the Unix socket must name one of them too. *here* names this side in refusals.
        """
        self._loop = loop
        self._here = here
        self._gate = Gate(here, None if keys is None else keys.known)
        self.quiet = Quiet(log)
        self._on_hello, self.on_message, self._on_peer = on_hello, on_message, on_peer
        self._wires: dict[tuple[str, str], Connection] = {}  # by name of the conversation, and channel
        self._strangers = Strangers(loop)
        self._life = os.urandom(8)
        self._by_token: dict[bytes, Conversation] = {}
        self._by_name: dict[str, Conversation] = {}
        self._tokens: dict[str, bytes] = {}
        self._dirty: list[Conversation] = []
        self._late_acks: set[Conversation] = set()
        self._ack_timer = False
        self._closed = False
        self._watched = time.monotonic()
        self._port: CurvePort | None = None
        self._doorstep: Doorstep | None = None
        if tcp is not None:
            self._open_port(tcp, keys)
        if unix is not None:
            self._doorstep = Doorstep(loop, unix, self._accept)
        loop.add_flush(self._flush)
        loop.call_later(PING_S, self._watch)

    @property
    def tcp_port(self) -> int:
        """The TCP port that is listened on; 0 if none."""
        return self._port.port if self._port is not None else 0

    # --- connections come --------------------------------------------------------------------

    def _open_port(self, address: str, keys: ServerKeys | None) -> None:
        from ippmpi.net.curveport import CurvePort  # an agent listens on a Unix socket only and never needs ZeroMQ here

        if keys is None:
            raise ValueError("a TCP port needs CURVE keys")

        def connect(wire: Wire, role: str) -> Connection:
            connection = Connection(self, role)
            connection.wire = wire
            return connection

        self._port = CurvePort(self._loop, address, keys, connect)

    def _accept(self, sock: socket.socket) -> None:
        connection = Connection(self, None)
        connection.wire = stream = Stream(self._loop, sock, connection.on_frame, connection.on_broken)
        stream.largest = LARGEST_HELLO
        self._strangers.add(connection)

    def turn_away(self, connection: Connection) -> None:
        """Close the connection of a stranger who made a mistake."""
        self._strangers.discard(connection)
        connection.turn_away("it does not speak our language")

    # --- hello -------------------------------------------------------------------------------

    def greet(self, connection: Connection, frame: bytes) -> None:
        """Take the first frame of a connection: let the peer in, or tell it why not.

        Raises:
            ProtocolError: it is no Hello that can be right.
        """
        try:
            hello = self._gate.read(frame)
            about = self._on_hello(hello, self._gate.role(connection.key_role, hello))
            self._check_room(hello)
        except Refused as error:
            self.quiet.warning("refused a peer: %s", error)
            if connection.wire is not None:
                connection.wire.send(encode_link(Denied(str(error))))
            self.turn_away(connection)
            return
        if hello.channel == "data":
            self._open_data(connection, hello)
        else:
            self._open_control(connection, hello, about)

    def _check_room(self, hello: Hello) -> None:
        if len(self._by_name) >= MOST_PEERS and hello.peer not in self._by_name:
            raise Refused(f"{self._here} speaks to {MOST_PEERS} peers already, {hello.peer} is one too many")

    def _open_data(self, connection: Connection, hello: Hello) -> None:
        conversation = self._by_token.get(hello.token) if hello.life == self._life else None
        if conversation is None:
            raise ProtocolError("a data connection for a session that does not exist")
        wire = self._take_wire(connection, conversation, "data")
        wire.send(encode_link(Welcome(True, 0, life=self._life)))
        conversation.open_data(wire)

    def _open_control(self, connection: Connection, hello: Hello, about: Mapping[str, object]) -> None:
        conversation = self._known(hello)
        known = conversation is not None
        if conversation is None:
            conversation = self._adopt(hello)
        elif not conversation.session.can_resume(hello.received):
            raise ProtocolError(f"a Hello of {conversation.name}, to whom {hello.received} messages cannot have come")
        wire = self._take_wire(connection, conversation, "control")
        received = conversation.session.received if known else 0
        wire.send(encode_link(Welcome(known, received, pack_about(about), self._life)))
        conversation.open_control(wire, known=known, received=hello.received)
        self._on_peer(conversation, True)

    def _known(self, hello: Hello) -> Conversation | None:
        """Return the conversation that *hello* goes on with, None if it begins.

        It begins once more if the first Welcome was lost on its way: then the peer's numbers are still those of the
        session with a process that was here before this one.
        """
        conversation = self._by_token.get(hello.token)
        if conversation is None or hello.life == self._life:
            return conversation
        if conversation.session.begun:
            raise ProtocolError(f"a Hello of {conversation.name}, as if it had not heard our Welcome yet")
        return None

    def _take_wire(self, connection: Connection, conversation: Conversation, channel: str) -> Wire:
        """Make *connection* the wire of *conversation* for *channel*, in place of an older one."""
        assert connection.wire is not None
        self._drop_wire(conversation, channel)
        self._strangers.discard(connection)
        connection.conversation, connection.channel = conversation, channel
        if isinstance(connection.wire, Stream):
            connection.wire.largest = LARGEST_FRAME
        self._wires[conversation.name, channel] = connection
        return connection.wire

    def _adopt(self, hello: Hello) -> Conversation:
        """Return the conversation for a new session: that of the same name goes on, else a new one."""
        about = unpack_about(hello.about)
        conversation = self._by_name.get(hello.peer)
        if conversation is None:
            conversation = Conversation(hello.peer, hello.role, self._dirty.append)
            self._by_name[hello.peer] = conversation
        elif conversation.role != hello.role:
            raise ProtocolError(f"{hello.peer} is known in the role {conversation.role!r}, not {hello.role!r}")
        else:
            self._by_token.pop(self._tokens.get(hello.peer, b""), None)
            self._drop_wire(conversation, "data")
        conversation.about, conversation.python = about, hello.python
        self._by_token[hello.token] = conversation
        self._tokens[hello.peer] = hello.token
        return conversation

    # --- connections go ----------------------------------------------------------------------

    def broken(self, connection: Connection) -> None:
        """A connection is gone."""
        self._strangers.discard(connection)
        conversation = connection.conversation
        if conversation is None or self._wires.get((conversation.name, connection.channel)) is not connection:
            return
        self._drop_wire(conversation, connection.channel)
        if connection.channel == "control":
            self._loop.call_soon(lambda: self._report_loss(conversation))

    def _report_loss(self, conversation: Conversation) -> None:
        if conversation.control is None and self._by_name.get(conversation.name) is conversation and not self._closed:
            self._on_peer(conversation, False)

    def _drop_wire(self, conversation: Conversation, channel: str) -> None:
        old = self._wires.pop((conversation.name, channel), None)
        if channel == "control":
            conversation.lose_control()
        else:
            conversation.lose_data()
        if old is not None and old.wire is not None:
            old.wire.close()

    def _watch(self) -> None:
        """Every few seconds: say that we live, notice who has fallen silent. A Unix socket tells by itself."""
        if self._closed:
            return
        self._loop.call_later(PING_S, self._watch)
        now = time.monotonic()
        if now - self._watched > 2 * PING_S:  # this process was stopped: what the peers said waits to be read
            self._watched = now
            return
        self._watched = now
        for (_, channel), connection in list(self._wires.items()):
            conversation = connection.conversation
            if channel != "control" or connection.key_role is None or conversation is None:
                continue
            if now - conversation.heard > SILENT_S:
                log.info("%s has been silent for %.0f s", conversation.name, now - conversation.heard)
                self.broken(connection)
            elif now - conversation.spoke > PING_S * 0.9:
                conversation.notice()

    # --- flushing ----------------------------------------------------------------------------

    def _flush(self) -> None:
        if not self._dirty:
            return
        dirty, self._dirty[:] = list(self._dirty), []
        for conversation in dirty:
            try:
                if conversation.flush():
                    self._late_acks.add(conversation)
            except Exception:  # a content that cannot be read, say: the others' messages must leave all the same
                conversation.quiet.warning("cannot send to %s", conversation.name, exc_info=True)
                self._drop_wire(conversation, "data")
        if self._late_acks and not self._ack_timer:
            self._ack_timer = True
            self._loop.call_later(ACK_DELAY_S, self._send_late_acks)

    def _send_late_acks(self) -> None:
        self._ack_timer = False
        late, self._late_acks = self._late_acks, set()
        for conversation in late:
            if conversation.session.owes_ack:
                conversation.notice()

    # --- for the application -----------------------------------------------------------------

    def conversation(self, name: str) -> Conversation | None:
        """Return the conversation with the peer of that name."""
        return self._by_name.get(name)

    def expect(self, name: str, role: str) -> Conversation:
        """Begin a conversation with a peer that an earlier life of this process knew; what is said to it waits."""
        conversation = self._by_name.get(name)
        if conversation is None:
            conversation = self._by_name[name] = Conversation(name, role, self._dirty.append)
        return conversation

    def conversations(self) -> list[Conversation]:
        """Return all conversations, connected or not."""
        return list(self._by_name.values())

    def forget(self, name: str) -> None:
        """End a conversation: the peer will not come back, or said farewell."""
        conversation = self._by_name.pop(name, None)
        if conversation is None:
            return
        self._by_token.pop(self._tokens.pop(name, b""), None)
        self._drop_wire(conversation, "control")
        self._drop_wire(conversation, "data")
        conversation.transfers.lose_incoming()

    def close(self, linger_s: float = 1.0) -> None:
        """Send what is queued and close everything."""
        self._flush()
        self._send_late_acks()
        self._closed = True
        self._strangers.close()
        for connection in list(self._wires.values()):
            if connection.wire is not None:
                with contextlib.suppress(OSError):
                    connection.wire.close(linger_s)
        if self._port is not None:
            self._port.close(linger_s)
        if self._doorstep is not None:
            self._doorstep.close()
