"""The agent process: its parts, wired to the controller on one side and the engines on the other."""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ippmpi.agent.contents import Contents
from ippmpi.agent.exchange import Exchange
from ippmpi.agent.files import SEGMENTS, SOCKET, STARTERS_LOCK
from ippmpi.agent.lifetime import Lifetime
from ippmpi.agent.members import Members
from ippmpi.agent.output import Outputs
from ippmpi.agent.post import Post
from ippmpi.agent.ranks import Ranks
from ippmpi.agent.rejoining import Rejoining
from ippmpi.agent.relay import Relay
from ippmpi.agent.together import Together
from ippmpi.agent.traces import Traces
from ippmpi.config import AgentSettings
from ippmpi.connection import Connection, host_prefix, lock_held, node_folder, on_this_host
from ippmpi.errors import ConnectionFileError, ProtocolError, Refused
from ippmpi.net.compatible import check_python, cloudpickle_version
from ippmpi.net.conversation import Conversation, Delivery, unpack_about
from ippmpi.net.keys import KeyPair
from ippmpi.net.link import Dial, Link, LinkState
from ippmpi.net.loop import Loop, Timer
from ippmpi.net.router import Router
from ippmpi.wire.messages import (
    Deliver,
    Display,
    EngineReady,
    Fetch,
    Fetched,
    Free,
    Hello,
    Message,
    Published,
    Registered,
    Reply,
    Revoke,
    Run,
    StopEngines,
)

_log = logging.getLogger(__name__)

LEFT_S = 5.0
"""A starter's lock that is older was left by an agent that was killed, whose ranks may have left more."""

_MOST_ERRORS = 100  # of its own; one that comes again at once would fill the disk with its log

Handlers = Mapping[type[Message], Callable[[Delivery], None]]


def endpoints(connection: Connection, transport: str = "auto") -> tuple[str, ...]:
    """Return where the controller can be dialled from here, best first.

    Raises:
        ConnectionFileError: nowhere.
    """
    unix = transport == "auto" and on_this_host(connection)
    found = [f"unix://{connection.socket}"] if unix else []
    if connection.address:
        found.append(connection.address)
    if not found:
        raise ConnectionFileError(
            f"the controller on {connection.location} listens on its Unix socket only; "
            f"for engines on {socket.gethostname()} it must be started with --ip"
        )
    return tuple(found)


class Agent:
    """One node's agent for one world."""

    def __init__(self, connection: Connection, world: str, settings: AgentSettings, *, replaces: bool = False) -> None:
        """Bind the engines' socket and dial the controller; ``run`` does the rest. *replaces*: one that died."""
        dial = _dial(connection, world, settings)
        self._here = f"the agent of world {world} on {socket.gethostname()}"
        self._key = connection.public
        self._refusal = ""
        self._settings = settings
        self._folder = node_folder(connection.folder_key)
        self._prefix = host_prefix()
        self.loop = loop = Loop()
        self._router = Router(
            loop,
            unix=str(self._folder / (self._prefix + SOCKET)),
            on_hello=self._on_hello,
            on_message=self._hear_engine,
            on_peer=self._on_peer,
            here=self._here,
        )
        self._patience: Timer | None = None
        self._link = Link(
            loop,
            dial,
            on_message=self._hear_controller,
            on_state=self._on_state,
        )
        self._wire(world)
        self._rejoining: Rejoining | None = None
        if replaces:
            self._ranks.hold_registration()
            self._rejoining = Rejoining(loop, self._ranks.register_whole)
        self._await_controller()
        starters_lock = self._folder / (self._prefix + STARTERS_LOCK)
        self._began = _made(starters_lock)
        self._inherited = time.time() - self._began > LEFT_S
        self._lifetime.await_first(lambda: lock_held(starters_lock))

    def _wire(self, world: str) -> None:
        loop, controller = self.loop, self._link.conversation
        self._members = members = Members()
        contents = Contents(controller)
        outputs = Outputs(loop, controller)
        self._traces = traces = Traces(loop, self._folder / (self._prefix + SEGMENTS))
        self._lifetime = Lifetime(loop, members, controller, progress=contents.progress, leave=loop.stop)
        together = Together(controller, loop.call_later)
        post = Post(world, self._folder, self._prefix, loop, controller, together)
        self._ranks = ranks = Ranks(post, members, outputs, traces, self._lifetime, self._router.forget)
        relay = Relay(post, members, contents, outputs=outputs, traces=traces)
        self._exchange = exchange = Exchange(controller, members, contents)
        self._from_controller: Handlers = {
            Run: relay.on_run,
            Revoke: relay.on_revoke,
            Deliver: ranks.on_deliver,
            StopEngines: ranks.on_stop_engines,
            Registered: ranks.on_registered,
            Fetch: exchange.hand_on_fetch,
            Fetched: exchange.hand_on_fetched,
            Free: exchange.on_free,
        }
        self._from_engines: Handlers = {
            Reply: relay.on_reply,
            Display: relay.on_display,
            Published: relay.on_published,
            Fetch: exchange.on_fetch,
            Fetched: exchange.on_fetched,
            EngineReady: self._on_engine_ready,
        }

    def run(self) -> None:
        """Serve until the ranks are gone, then close everything."""
        for _ in range(_MOST_ERRORS):
            try:
                self.loop.run()
                break
            except Exception:  # a bug in one callback must not take the node's ranks down
                _log.exception("the agent goes on after an error of its own")
        self._ranks.close()
        self._link.close()
        self._router.close()
        nobody_missing = self._lifetime.all_came and not self._inherited
        self._traces.clean_up(since=None if nobody_missing else self._began)
        self.loop.close()

    def stop(self) -> None:
        """Stop all engines, then leave. Callable from a signal handler."""
        self.loop.call_soon(self._ranks.stop_all)

    # --- the controller --------------------------------------------------------------------------

    def _hear_controller(self, delivery: Delivery) -> None:
        if self._rejoining is not None:
            self._rejoining.hold(lambda: self._take(delivery))
        else:
            self._take(delivery)

    def _take(self, delivery: Delivery) -> None:
        _dispatch(self._from_controller, delivery)

    def _on_state(self, state: LinkState, text: str) -> None:
        _log.debug("link to the controller: %s%s", state.value, text and f" ({text})")
        if state is LinkState.OPEN:
            self._stop_waiting()
            if self._link.conversation.fresh:
                self._ranks.register_again()
                self._exchange.ask_again()
        elif state is LinkState.REFUSED:
            _log.error("the controller refuses this agent: %s; stopping its engines", text)
            self._refusal = f"the controller refuses this node's agent: {text}"
            if self._members:  # else the agent stays for a while, to tell those who come
                self._ranks.stop_all(reason=self._refusal)
        elif self._patience is None:
            self._await_controller()

    def _await_controller(self) -> None:
        self._patience = self.loop.call_later(self._settings.controller_wait_s, self._lose_patience)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _lose_patience(self) -> None:
        _log.error("no controller for %.0f s: stopping all engines", self._settings.controller_wait_s)
        self._ranks.stop_all()

    # --- the engines -----------------------------------------------------------------------------

    def _hear_engine(self, delivery: Delivery) -> None:
        """Take a message; a reply waits until the controller, which may be a new one, knows who has what."""
        if self._rejoining is not None and not isinstance(delivery.message, EngineReady):
            self._rejoining.hold(lambda: _dispatch(self._from_engines, delivery))
        else:
            _dispatch(self._from_engines, delivery)

    def _on_engine_ready(self, delivery: Delivery) -> None:
        self._ranks.on_engine_ready(delivery)
        if self._rejoining is not None:
            self._rejoining.joined()
        if self._refusal:  # it had said hello before the controller's verdict
            self._ranks.stop_all(reason=self._refusal)

    def _on_hello(self, hello: Hello, role: str) -> Mapping[str, object] | None:
        if role != "engine" or not re.fullmatch(r"engine:[0-9]{1,9}", hello.peer):
            raise Refused(f"{hello.peer} is a {role[:20]!r}; only engines, named engine:<rank>, speak to an agent")
        if hello.key != self._key:
            raise Refused(f"{self._here} is not that of {hello.peer}, whose connection file is of another cluster")
        check_python(hello, self._here)
        if self._refusal:
            raise Refused(self._refusal)
        before = self._members.of_rank(int(hello.peer.removeprefix("engine:")))
        if before is not None and unpack_about(hello.about).get("pid", before.ready.pid) != before.ready.pid:
            return None  # once it has been seen that the one before is dead: what was said to that one is not for this
        return {"pid": os.getpid()}

    def _on_peer(self, conversation: Conversation, connected: bool) -> None:
        # an engine lives as long as its process does, so this is only worth a line
        _log.debug("%s %s", conversation.name, "connected" if connected else "disconnected")


def _dial(connection: Connection, world: str, settings: AgentSettings) -> Dial:
    host = socket.gethostname()
    return Dial(
        endpoints(connection, settings.transport),
        "agent",
        f"agent:{world}@{host}",
        {"world": world, "host": host, "pid": os.getpid(), "cloudpickle": cloudpickle_version()},
        connection.server_public,
        KeyPair(connection.public, connection.secret),
    )


def _made(file: Path) -> float:
    """Return when *file*, which nobody writes to, was made (s since the epoch): now if it is gone."""
    try:
        return file.stat().st_mtime
    except OSError:
        return time.time()


def _dispatch(handlers: Handlers, delivery: Delivery) -> None:
    """Give a message to its handler; what is wrong with it is logged and it is dropped."""
    quiet = delivery.peer.quiet
    try:
        handler = handlers.get(type(delivery.message))
        if handler is None:
            raise ProtocolError(f"{type(delivery.message).__name__} is not for an agent from there")
        handler(delivery)
    except ProtocolError as error:
        quiet.warning("dropped a message of %s: %s", delivery.peer.name, error)
        delivery.done()
    except Exception:  # the rest of its batch must not be lost with it
        quiet.warning("dropped a message of %s", delivery.peer.name, exc_info=True)
        delivery.done()
