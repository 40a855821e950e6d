"""What a client needs of the network, and the one place in this folder that depends on ``net``."""

from __future__ import annotations

import getpass
import logging
import os
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from ippmpi import connection as files
from ippmpi.connection import Connection
from ippmpi.errors import ConnectionFileError, Refused
from ippmpi.wire.messages import Abort, Interrupt, Message, SendSignal, Submit

if TYPE_CHECKING:
    from ippmpi.net.conversation import Conversation, Delivery
    from ippmpi.net.link import Dial, LinkState
    from ippmpi.net.transfers import Sink, Source

log = logging.getLogger(__name__)


class Incoming(Protocol):
    """One message from the hub; ``net.Delivery`` is one."""

    @property
    def message(self) -> Message:
        """The message."""

    def done(self) -> None:
        """Let its acknowledgement go out; called exactly once."""


class Receiver(Protocol):
    """Who takes what comes; called on the I/O thread."""

    def take(self, incoming: Incoming) -> None:
        """Take one message."""

    def connected(self, *, fresh: bool) -> None:
        """The link is open (again); *fresh*: the hub knows nothing of this client yet."""

    def broken(self, problem: Exception) -> None:
        """The link will never open (again)."""


class Transport(Protocol):
    """The way to the hub. ``call_soon`` and ``close`` from any thread, the rest on the I/O thread."""

    def call_soon(self, call: Callable[[], None]) -> None:
        """Have *call* called by the I/O thread."""

    def inside(self) -> bool:
        """Say whether this is the I/O thread."""

    @property
    def reachable(self) -> bool:
        """Say whether the link is open. From any thread."""

    @property
    def folder(self) -> str:
        """Return where files for the hub may be written; "" if it is on another host. From any thread."""

    @property
    def peer_pid(self) -> int:
        """Return which process of this host the hub is, 0 if it is none."""

    def send(self, message: Message, on_ack: Callable[[], None] | None = None) -> None:
        """Queue *message*; *on_ack* is called when the hub's store has it."""

    def offer(self, source: Source) -> int:
        """Make a large content available; return the number for ``Content.transfer``."""

    def withdraw(self, transfer: int) -> None:
        """Stop offering it."""

    def accept(self, transfer: int, sink: Sink, on_end: Callable[[bool], None], on_lost: Callable[[], None]) -> None:
        """Pull a large content; *on_end* gets False if it will never be whole, *on_lost* is called if it comes anew."""

    def reject(self, transfer: int) -> None:
        """Do not take a large content."""

    def close(self) -> None:
        """Send what is queued and end."""


class LinkTransport:
    """The way to the hub over a link with a thread of its own."""

    def __init__(self, dial: Dial, receiver: Receiver) -> None:
        """Dial at once."""
        from ippmpi.net.link import LinkThread

        self._receiver = receiver
        local = [endpoint for endpoint in dial.endpoints if endpoint.startswith("unix://")]
        self._folder = os.path.dirname(local[0].removeprefix("unix://")) if local else ""
        self._thread: threading.Thread | None = None
        self._closed = False
        self.reachable = False
        self._link = LinkThread(f"ippmpi {dial.peer}", dial, on_message=self._on_message, on_state=self._on_state)
        self.call_soon = self._link.call_soon
        self._link.start()

    @property
    def _conversation(self) -> Conversation:
        return self._link.conversation

    def inside(self) -> bool:
        """Say whether this is the I/O thread."""
        return threading.current_thread() is self._thread

    @property
    def folder(self) -> str:
        """Return where files for the hub may be written; "" if it is on another host. From any thread."""
        return self._folder if self.peer_pid else ""

    @property
    def peer_pid(self) -> int:
        """Return which process of this host the hub is, 0 if it is none."""
        return self._conversation.peer_pid

    def send(self, message: Message, on_ack: Callable[[], None] | None = None) -> None:
        """Queue *message*; *on_ack* is called when the hub's store has it.

        What ends work overtakes what waits for a slow line, but not the tasks that it names.
        """
        if type(message) in (Interrupt, Abort, SendSignal):
            self._conversation.overtake(message, on_ack, must_follow(message))
        else:
            self._conversation.send(message, on_ack=on_ack)

    def offer(self, source: Source) -> int:
        """Make a large content available; return the number for ``Content.transfer``."""
        return self._conversation.offer(source)

    def withdraw(self, transfer: int) -> None:
        """Stop offering it."""
        self._conversation.withdraw(transfer)

    def accept(self, transfer: int, sink: Sink, on_end: Callable[[bool], None], on_lost: Callable[[], None]) -> None:
        """Pull a large content; *on_end* gets False if it will never be whole, *on_lost* is called if it comes anew."""
        self._conversation.accept(transfer, sink, on_end, on_lost)

    def reject(self, transfer: int) -> None:
        """Do not take a large content."""
        self._conversation.reject(transfer)

    def close(self) -> None:
        """Send what is queued and end the thread, once."""
        if not self._closed:
            self._closed = True
            self._link.close()

    # --- called by the link ------------------------------------------------------------------

    def _on_message(self, delivery: Delivery) -> None:
        try:
            self._receiver.take(delivery)
        except Exception:  # the outermost place of this thread: one bad message must not end all others
            log.exception("could not handle %s", type(delivery.message).__name__)

    def _on_state(self, state: LinkState, text: str) -> None:
        self._thread = threading.current_thread()
        self.reachable = state.value == "open"
        if state.value == "open":
            self._receiver.connected(fresh=self._conversation.fresh)
        elif state.value == "refused":
            self._receiver.broken(Refused(text))


def must_follow(message: Message) -> Callable[[Message], bool]:
    """Return the question whether *message* has no meaning before another one has arrived."""
    if isinstance(message, SendSignal):  # it is for what runs
        return lambda _: False
    tasks = getattr(message, "tasks", None)
    names = None if tasks is None else frozenset(tasks)
    return lambda other: isinstance(other, Submit) and (names is None or other.task in names)


def dial_for(connection: Connection, client_id: str) -> Dial:
    """Say where the controller of *connection* is and who calls.

    Raises:
        ConnectionFileError: the controller is gone for certain, or cannot be reached from this host.
    """
    from ippmpi.net.compatible import cloudpickle_version
    from ippmpi.net.keys import KeyPair
    from ippmpi.net.link import Dial

    if files.stale(connection):
        raise ConnectionFileError(
            f"the controller of cluster {connection.cluster_id!r} (pid {connection.controller.pid} on "
            f"{connection.location}) has ended and left its connection file: start the cluster again"
        )
    endpoints = []
    if files.on_this_host(connection):
        endpoints.append(f"unix://{connection.socket}")
    if connection.address:
        endpoints.append(connection.address)
    if not endpoints:
        raise ConnectionFileError(
            f"the controller on {connection.location} listens only on a socket of its own host, and this is "
            f"{socket.gethostname()}: start it with an address (--ip)"
        )
    return Dial(
        tuple(endpoints),
        role="client",
        peer=f"client:{client_id}",
        about={
            "user": _user(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "cloudpickle": cloudpickle_version(),
        },
        server_public=connection.server_public,
        keys=KeyPair(connection.public, connection.secret),
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a uid without a name, in a container
        return str(os.getuid())
