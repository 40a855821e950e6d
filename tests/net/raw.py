"""A peer that says byte by byte what a test wants, over a Unix socket."""

from __future__ import annotations

import os
import platform
import socket
import struct

from helpers import eventually
from ippmpi.wire.frames import decode_link, encode_link
from ippmpi.wire.messages import PROTOCOL_VERSION, Hello, LinkRecord

HEAD = struct.Struct("<II")


def a_hello(peer: str = "client:raw", role: str = "client", **other: object) -> Hello:
    """Make a good hello, but for what is given."""
    fields: dict = {
        "version": PROTOCOL_VERSION,
        "role": role,
        "peer": peer,
        "token": os.urandom(16),
        "channel": "control",
        "received": 0,
        "python": platform.python_version(),
        "about": b"\x80",
    }
    return Hello(**{**fields, **other})


def framed(frame: bytes, data: bytes = b"") -> bytes:
    """Return a frame as it travels."""
    return HEAD.pack(len(frame), len(data)) + frame + data


class Raw:
    """One connection."""

    def __init__(self, path: str, timeout_s: float = 5.0) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout_s)
        eventually(lambda: self._connected(path), timeout_s, "a place in the queue of those who wait to be accepted")
        self._rest = b""

    def _connected(self, path: str) -> bool:
        try:
            self.socket.connect(path)
        except BlockingIOError:
            return False
        return True

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def say(self, record: LinkRecord, data: bytes = b"") -> None:
        self.send(framed(encode_link(record), data))

    def hear(self) -> LinkRecord | None:
        """Return the next record; None at the end."""
        while True:
            if len(self._rest) >= HEAD.size:
                frame_size, data_size = HEAD.unpack_from(self._rest)
                end = HEAD.size + frame_size + data_size
                if len(self._rest) >= end:
                    frame, self._rest = self._rest[HEAD.size : HEAD.size + frame_size], self._rest[end:]
                    return decode_link(frame)
            try:
                got = self.socket.recv(65536)
            except ConnectionResetError:
                return None
            if not got:
                return None
            self._rest += got

    def close(self) -> None:
        self.socket.close()
