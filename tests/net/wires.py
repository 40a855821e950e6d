"""A listener and a forwarder for tests of real connections."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Mapping

from ippmpi.net.conversation import Conversation, Delivery
from ippmpi.net.keys import KeyPair, ServerKeys, keypair
from ippmpi.net.link import Dial, LinkState, LinkThread
from ippmpi.net.loop import Loop
from ippmpi.net.router import Router
from ippmpi.wire.messages import Answer, Hello, Query


class Memory:
    """A sink in memory."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.data = bytearray(size)

    def write(self, offset: int, data: memoryview) -> None:
        self.data[offset : offset + len(data)] = data


class Blob:
    """A source in memory."""

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self._data = data

    def available(self) -> int:
        return self.size

    def read(self, start: int, stop: int) -> memoryview:
        return memoryview(self._data)[start:stop]


class Listener:
    """A router in a thread of its own, which answers every query with its arguments."""

    def __init__(self, *, unix: str | None = None, tcp: str | None = None, keys: ServerKeys | None = None) -> None:
        self.messages: list[object] = []
        self.peers: list[tuple[str, bool]] = []
        self.answer: Callable[[Delivery], None] = self.echo
        self.hello: Callable[[Hello, str], Mapping[str, object]] = lambda hello, role: {"said": hello.peer}
        self.loop = Loop()
        self.router = Router(
            self.loop,
            unix=unix,
            tcp=tcp,
            keys=keys,
            on_hello=lambda hello, role: self.hello(hello, role),
            on_message=self._on_message,
            on_peer=self._on_peer,
        )
        self._thread = threading.Thread(target=self.loop.run, name="listener")
        self._thread.start()

    def _on_message(self, delivery: Delivery) -> None:
        self.messages.append(delivery.message)
        self.answer(delivery)

    def echo(self, delivery: Delivery) -> None:
        if isinstance(delivery.message, Query):
            delivery.peer.send(Answer(delivery.message.request, delivery.message.arguments))
        delivery.done()

    def _on_peer(self, conversation: Conversation, connected: bool) -> None:
        self.peers.append((conversation.name, connected))

    def close(self) -> None:
        self.loop.stop()
        self._thread.join(10)
        self.router.close(0.2)
        self.loop.close()


class Caller:
    """A link in a thread of its own that collects what comes."""

    def __init__(self, *endpoints: str, server: str = "", keys: KeyPair | None = None, role: str = "client") -> None:
        self.messages: list[object] = []
        self.states: list[tuple[LinkState, str]] = []
        self.take: Callable[[Delivery], None] = lambda delivery: delivery.done()
        dial = Dial(endpoints, role, f"{role}:test", {"host": "here"}, server, keys)
        self.link = LinkThread("caller", dial, on_message=self._on_message, on_state=self._on_state)
        self.link.start()
        self.conversation = self.link.conversation

    def _on_message(self, delivery: Delivery) -> None:
        self.messages.append(delivery.message)
        self.take(delivery)

    def _on_state(self, state: LinkState, text: str) -> None:
        self.states.append((state, text))

    def ask(self, number: int, arguments: bytes = b"\xc0", on_ack: Callable[[], None] | None = None) -> None:
        self.link.call_soon(lambda: self.conversation.send(Query(number, "status", arguments), on_ack=on_ack))

    def close(self) -> None:
        self.link.close(0.2)


class Forwarder:
    """A TCP relay on loopback whose connections can be cut. While it is ``down``, new ones are cut at once."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self.passed = 0
        self.down = False
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                if self.down:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            self._open += [near, far]
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(a, b), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
                self.passed += len(data)
        self._end(source)
        self._end(target)

    def _end(self, one: socket.socket) -> None:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Break every connection; new ones are let through."""
        broken, self._open = self._open, []
        for one in broken:
            self._end(one)
        for one in broken:
            one.close()

    def close(self) -> None:
        self._end(self._listener)
        self._listener.close()
        self.cut()
        self._thread.join(5)


def curve() -> tuple[ServerKeys, KeyPair]:
    """Return keys of a server that knows one client, and that client's pair."""
    public, secret = keypair()
    mine = KeyPair(*keypair())
    return ServerKeys(public, secret, {mine.public: "client"}), mine
