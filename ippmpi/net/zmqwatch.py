"""A ZeroMQ socket as a source of a loop."""

from __future__ import annotations

import zmq

from ippmpi.net.loop import Callback, Loop, Source


def watch(loop: Loop, socket: zmq.Socket[bytes], call: Callback) -> Source:
    """Have *call* called while *socket* has something to receive. Hint the source after each send."""
    events = socket.getsockopt
    fd = int(socket.getsockopt(zmq.FD))

    def ready() -> bool:
        return bool(int(events(zmq.EVENTS)) & zmq.POLLIN)

    return loop.add_source(fd, ready, call)
