"""A ZeroMQ socket as a source of a loop."""

from __future__ import annotations

import zmq

from ippmpi.net.loop import Callback, Loop


def watch(loop: Loop, socket: zmq.Socket[bytes], call: Callback) -> int:
    """Have *call* called while *socket* has something to receive; return what ``Loop.remove_source`` takes."""
    events = socket.getsockopt
    fd = int(socket.getsockopt(zmq.FD))

    def ready() -> bool:
        return bool(int(events(zmq.EVENTS)) & zmq.POLLIN)

    loop.add_source(fd, ready, call)
    return fd
