"""The answer to ZeroMQ's question whether a key may come in."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import zmq
from zmq.utils import z85

from ippmpi.net.quiet import Quiet

log = logging.getLogger(__name__)

_ZAP_ENDPOINT = "inproc://zeromq.zap.01"


class Doorman:
    """Answers ZAP requests: a CURVE key that is known comes in, anything else does not.

    ``User-Id`` of every later message is the key (Z85), so its role can be looked up.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], known: Mapping[str, str]) -> None:
        """Listen for ZeroMQ's own I/O threads."""
        self._known = known
        self._quiet = Quiet(log)
        self.socket = context.socket(zmq.REP)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(_ZAP_ENDPOINT)

    def answer(self) -> None:
        """Answer one request."""
        frames = self.socket.recv_multipart(zmq.NOBLOCK)
        version, request = frames[0], frames[1]
        mechanism = frames[5] if len(frames) > 5 else b""
        key = frames[6] if len(frames) > 6 else b""
        text = z85.encode(key).decode() if len(key) == 32 else ""
        if version == b"1.0" and mechanism == b"CURVE" and text in self._known:
            reply = [version, request, b"200", b"OK", text.encode(), b""]
        else:
            self._quiet.warning("refused a connection from %s: unknown key", frames[3].decode(errors="replace"))
            reply = [version, request, b"400", b"unknown key", b"", b""]
        self.socket.send_multipart(reply)
