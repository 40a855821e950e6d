"""The sockets of a Jupyter kernel, and the two threads that own them. What the messages mean, others say.

The protocol is Jupyter's (version 5.3): https://jupyter-client.readthedocs.io/en/stable/messaging.html. Messages are
signed with a key that only the connection file has.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import zmq

_log = logging.getLogger(__name__)

LINGER_MS = 500
"""How long what is queued may take to leave at the end."""

_ROUTERS = ("shell", "control", "stdin")
_PORTS = {"shell": 1, "iopub": 2, "stdin": 3, "control": 4, "hb": 5}


class Request(NamedTuple):
    """One message of a frontend; ``identities`` lead back to it."""

    channel: str
    identities: list[bytes]
    message: dict[str, Any]

    @property
    def kind(self) -> str:
        """What is asked for."""
        return str(self.message["header"]["msg_type"])

    @property
    def content(self) -> dict[str, Any]:
        """What it says."""
        found: dict[str, Any] = self.message["content"]
        return found


class Channels:
    """The sockets, from ``start`` to ``close``. All but ``run`` may be called from any thread.

    Attributes:
        connection: what is to be in the connection file.
    """

    def __init__(self, name: str, ip: str, folder: Path, prefix: str, on_request: Callable[[Request], None]) -> None:
        """Listen on TCP at *ip*, or if that is empty on Unix sockets in *folder* whose names start with *prefix*.

        *on_request* is called on the thread of the channels. Raises OSError.
        """
        self._on_request = on_request
        self._topic = f"kernel.{name}."
        self._context = zmq.Context()
        self._sockets: dict[str, Any] = {}
        self._files = [] if ip else [folder / f"{prefix}-{port}" for port in _PORTS.values()]
        self._posted: deque[Callable[[], None]] = deque()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._stopped = False
        self._pulse: tuple[float, Callable[[], None]] | None = None
        try:
            key, self._session = _session()
            ports = {f"{role}_port": self._open(role, ip, folder / prefix) for role in _PORTS}
        except BaseException:
            self._close_sockets()
            raise
        self.connection: dict[str, object] = {
            "transport": "tcp" if ip else "ipc",
            "ip": ip or str(folder / prefix),
            **ports,
            "key": key,
            "signature_scheme": "hmac-sha256",
            "kernel_name": name,
        }
        self._threads = [
            threading.Thread(target=self._run, name="ippmpi kernel", daemon=True),
            threading.Thread(target=self._beat, name="ippmpi kernel heartbeat", daemon=True),
        ]

    def _open(self, role: str, ip: str, path: Path) -> int:
        self._sockets[role] = socket = self._context.socket(zmq.PUB if role == "iopub" else zmq.ROUTER)
        socket.linger = LINGER_MS
        try:
            if ip:
                return int(socket.bind_to_random_port(f"tcp://[{ip}]" if ":" in ip else f"tcp://{ip}"))
            Path(f"{path}-{_PORTS[role]}").unlink(missing_ok=True)  # of a rank that was killed
            socket.bind(f"ipc://{path}-{_PORTS[role]}")
        except zmq.ZMQError as error:
            raise OSError(error.errno, f"cannot listen at {ip or path}: {error.strerror}") from None
        return _PORTS[role]

    # --- from any thread ---------------------------------------------------------------------

    def start(self) -> None:
        """Take messages from now on."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Send what is queued, close everything and return when that is done. Not on the threads of the channels."""
        self.post(self._stop)
        for thread in self._threads[:1]:
            thread.join()
        self._context.term()  # waits for what is queued; ends the heartbeat
        self._threads[1].join()
        os.close(self._wake_read)
        os.close(self._wake_write)
        for path in self._files:
            path.unlink(missing_ok=True)

    def post(self, call: Callable[[], None]) -> None:
        """Have *call* called by the thread of the channels, in order."""
        self._posted.append(call)
        with contextlib.suppress(OSError):  # full: it will wake up; closed: it has ended
            os.write(self._wake_write, b"!")

    def publish(self, kind: str, content: Mapping[str, Any], parent: Request | None, **more: Any) -> None:
        """Tell all frontends, as part of what they asked for with *parent*."""
        header = parent.message["header"] if parent is not None else {}
        topic = (self._topic + kind).encode()
        self._say(lambda: self._send("iopub", kind, dict(content), header, ident=topic, **more))

    def answer(self, request: Request, kind: str, content: Mapping[str, Any], channel: str = "") -> None:
        """Say something to the frontend that sent *request*, on its own or another *channel*."""
        header = request.message["header"]
        self._say(lambda: self._send(channel or request.channel, kind, dict(content), header, ident=request.identities))

    def _say(self, send: Callable[[], None]) -> None:
        """Send at once if this is the thread, so that what a posted call says comes before what was posted after it."""
        if threading.current_thread() is self._threads[0]:
            send()
        else:
            self.post(send)

    def pulse(self, every_s: float, call: Callable[[], None] | None) -> None:
        """Call *call* on the thread every so many seconds from now on, None: nothing any more."""

        def change() -> None:
            self._pulse = None if call is None else (every_s, call)

        self.post(change)

    # --- the threads -------------------------------------------------------------------------

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._wake_read, zmq.POLLIN)
        for role in _ROUTERS:
            poller.register(self._sockets[role], zmq.POLLIN)
        try:
            while not self._stopped:
                ready = dict(poller.poll(None if self._pulse is None else int(self._pulse[0] * 1000)))
                if self._wake_read in ready:
                    os.read(self._wake_read, 4096)
                self._call_posted()
                if self._pulse is not None:
                    self._pulse[1]()
                for role in _ROUTERS:
                    if self._sockets[role] in ready:
                        self._receive(role)
        finally:
            for role in (*_ROUTERS, "iopub"):
                self._sockets[role].close()

    def _call_posted(self) -> None:
        while self._posted:
            self._posted.popleft()()

    def _stop(self) -> None:
        self._stopped = True

    def _receive(self, role: str) -> None:
        frames = self._sockets[role].recv_multipart()
        try:
            identities, rest = self._session.feed_identities(frames)
            request = Request(role, identities, self._session.deserialize(rest))
        except Exception as error:  # not signed, or no message: whatever anybody may send
            _log.warning("dropped a message to the kernel (%s): %s", role, error)
            return
        try:
            self._on_request(request)
        except Exception:  # a defect of ours, or a content of another shape than the protocol has
            _log.exception("dropped %s to the kernel", request.kind)

    def _send(self, role: str, kind: str, content: dict[str, Any], parent: dict[str, Any], **more: Any) -> None:
        self._session.send(self._sockets[role], kind, content, parent=parent, **more)

    def _beat(self) -> None:
        """Send back whatever comes: without Python, so also while the rank holds the GIL."""
        socket = self._sockets["hb"]
        with contextlib.suppress(zmq.ZMQError):  # ContextTerminated: that is the end
            zmq.proxy(socket, socket)
        socket.close(0)

    def _close_sockets(self) -> None:
        for socket in self._sockets.values():
            socket.close(0)
        self._context.term()
        os.close(self._wake_read)
        os.close(self._wake_write)


def _session() -> tuple[str, Any]:
    try:
        from jupyter_client import session
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error}; bind_kernel() needs jupyter_client on the engines: pip install 'ippmpi[kernel]'"
        ) from None
    key = os.urandom(32).hex()
    make: Any = session.Session  # typed or not, as it is installed
    return key, make(key=key.encode(), signature_scheme="hmac-sha256", username="ippmpi")
