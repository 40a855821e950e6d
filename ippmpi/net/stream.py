"""Frames over a Unix socket, for peers on one host.

ZeroMQ's own Unix sockets cost two more thread switches each way (its I/O threads) and a library that
every rank would have to load; on one host nothing of what it offers is needed. A frame is two
lengths, the record, and for a chunk the bytes that belong to it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import stat
import struct
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ippmpi.net.loop import READ_BYTES, Loop
from ippmpi.net.quiet import Quiet

if TYPE_CHECKING:
    from typing_extensions import Buffer

LARGEST_FRAME = 16 * 1024 * 1024
LARGEST_HELLO = 64 * 1024
"""Bytes of a frame of somebody who has not said hello: a length is believed before its bytes are there."""

BELIEVED = 2 * 1024 * 1024
"""Bytes of memory that a length alone is worth; more comes with the bytes themselves."""

FULL_BYTES = 4 * 1024 * 1024
"""Bytes that wait to leave before chunks of contents wait where they are."""

MOST_PENDING = 64 * 1024 * 1024
"""Bytes that wait to leave before the connection is dropped: its peer does not read. The session sends again."""

BACKLOG = 1024  # connections that wait to be accepted
NO_ROOM_S = 0.2
"""How long nobody is let in after the process has run out of descriptors."""

SOCKET_BYTES = 4 * 1024 * 1024  # asked for; the kernel gives what it allows

_HEAD = struct.Struct("<II")
_EMPTY = memoryview(b"")

OnFrame = Callable[[bytes, memoryview], None]
OnBroken = Callable[[str], None]


class Stream:
    """One connected socket. ``on_frame(record, data)``; ``on_broken(why)`` once, not after ``close``.

    Attributes:
        largest: bytes that a frame, and what belongs to it, may have.
        on_room: called when ``full`` is no longer so.
        peer_pid: the process at the other end, as the kernel knows it; 0 if that cannot be said here.
    """

    def __init__(self, loop: Loop, sock: socket.socket, on_frame: OnFrame, on_broken: OnBroken) -> None:
        """Own *sock* and begin to read."""
        sock.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BYTES)
        self._loop = loop
        self._sock: socket.socket | None = sock
        self._fd = sock.fileno()
        self.peer_pid = _credentials(sock)[0]
        self._on_frame, self._on_broken = on_frame, on_broken
        self.largest = LARGEST_FRAME
        self.on_room: Callable[[], None] | None = None
        self._rest = b""
        self._body = bytearray()  # a frame too large for one read, being filled
        self._got = self._size = 0
        self._pending: deque[memoryview] = deque()
        self._pending_bytes = 0
        self._overflowed = False
        loop.add_reader(self._fd, self._readable)

    # --- sending -----------------------------------------------------------------------------

    def full(self) -> bool:
        """Say whether chunks should wait for ``on_room``."""
        return self._pending_bytes >= FULL_BYTES

    def send(self, frame: bytes) -> None:
        """Send one frame; what the socket does not take now follows when it can."""
        self._send([_HEAD.pack(len(frame), 0), frame])

    def send_bulk(self, frame: bytes, data: Buffer) -> None:
        """Send a frame and its bytes, which must stay as they are until they have left."""
        view = memoryview(data).cast("B")
        self._send([_HEAD.pack(len(frame), len(view)), frame, view])

    def _send(self, parts: list[bytes | memoryview]) -> None:
        sock = self._sock
        if sock is None:
            return
        if self._pending:
            self._queue(parts)
            return
        try:
            sent = sock.sendmsg(parts)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            why = str(error)  # `error` itself ends with this block
            self._loop.call_soon(lambda: self._break(why))
            return
        rest: list[bytes | memoryview] = []
        for part in parts:
            if sent >= len(part):
                sent -= len(part)
            else:
                rest.append(memoryview(part)[sent:])
                sent = 0
        if rest:
            self._queue(rest)
            self._loop.add_writer(self._fd, self._writable)

    def _queue(self, parts: list[bytes | memoryview]) -> None:
        if self._overflowed:
            return
        for part in parts:
            self._pending.append(memoryview(part))
            self._pending_bytes += len(part)
        if self._pending_bytes > MOST_PENDING:
            self._overflowed = True
            why = f"{self._pending_bytes} bytes wait and the other side does not read"
            self._loop.call_soon(lambda: self._break(why))

    def _writable(self) -> None:
        sock, pending = self._sock, self._pending
        if sock is None:
            return
        was_full = self.full()
        try:
            while pending:
                part = pending[0]
                sent = sock.send(part)
                self._pending_bytes -= sent
                if sent < len(part):
                    pending[0] = part[sent:]
                else:
                    pending.popleft()
        except BlockingIOError:
            pass
        except OSError as error:
            self._break(str(error))
            return
        if not pending:
            self._loop.remove_writer(self._fd)
        if was_full and not self.full() and self.on_room is not None:
            self.on_room()

    # --- receiving ---------------------------------------------------------------------------

    def _readable(self) -> None:
        sock = self._sock
        if sock is None:
            return
        try:
            if self._body:
                self._fill(sock)
                return
            scratch = self._loop.scratch  # a fresh buffer per read would cost three system calls
            got = sock.recv_into(scratch)
        except BlockingIOError:
            return
        except OSError as error:
            self._break(str(error))
            return
        if not got:
            self._break("the other side closed the connection")
            return
        data = bytes(scratch[:got])
        self._parse(self._rest + data if self._rest else data)

    def _parse(self, data: bytes) -> None:
        view = memoryview(data)
        start, end = 0, len(data)
        while end - start >= _HEAD.size:
            frame_size, data_size = _HEAD.unpack_from(data, start)
            if frame_size > self.largest or data_size > self.largest:
                self._break(f"a frame of {frame_size} + {data_size} bytes; at most {self.largest} are allowed")
                return
            stop = start + _HEAD.size + frame_size + data_size
            if stop > end:
                if stop - end > READ_BYTES // 2:
                    self._begin_body(view[start:], stop - start)
                    start = end
                break
            at = start + _HEAD.size
            start = stop
            self._on_frame(data[at : at + frame_size], view[at + frame_size : stop] if data_size else _EMPTY)
            if self._sock is None:  # closed meanwhile
                return
        self._rest = data[start:] if start < end else b""

    def _begin_body(self, begin: memoryview, size: int) -> None:
        self._size = size
        self._body = bytearray(min(size, BELIEVED))
        self._got = len(begin)
        self._body[: self._got] = begin

    def _fill(self, sock: socket.socket) -> None:
        got = sock.recv_into(memoryview(self._body)[self._got :])
        if not got:
            self._break("the other side closed the connection")
            return
        self._got += got
        if self._got < len(self._body):
            return
        if self._got < self._size:
            self._body.extend(bytes(min(self._got, self._size - self._got)))
            return
        body, self._body = self._body, bytearray()
        frame_size, _ = _HEAD.unpack_from(body)
        at = _HEAD.size + frame_size
        self._on_frame(bytes(body[_HEAD.size : at]), memoryview(body)[at:])

    # --- the end -----------------------------------------------------------------------------

    def _break(self, why: str) -> None:
        if self._sock is not None:
            self.close()
            self._on_broken(why)

    def close(self, linger_s: float = 0.0) -> None:
        """Close; with *linger_s*, wait at most so long for what is queued to leave."""
        sock, self._sock = self._sock, None
        if sock is None:
            return
        self._loop.remove_reader(self._fd)
        if self._pending and linger_s > 0:
            sock.settimeout(linger_s)
            with contextlib.suppress(OSError):
                for part in self._pending:
                    sock.sendall(part)
        self._pending.clear()
        self._pending_bytes = 0
        self._body, self._rest = bytearray(), b""  # this object may live on until the collector finds its cycle
        sock.close()


def connect(path: str) -> socket.socket:
    """Return a socket connected to the listener at *path*; raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock


class Doorstep:
    """A listening Unix socket, for processes of this user only."""

    def __init__(self, loop: Loop, path: str, on_connect: Callable[[socket.socket], None]) -> None:
        """Bind *path* (a dead socket there is replaced), mode 0600."""
        self._loop = loop
        self._path = path
        self._on_connect = on_connect
        self._quiet = Quiet(logging.getLogger(__name__))
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(Path(path).lstat().st_mode):
                os.unlink(path)
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.bind(path)
        os.chmod(path, 0o600)
        self._sock.listen(BACKLOG)
        self._sock.setblocking(False)
        self._listen()

    def _listen(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.add_reader(self._sock.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(64):
            try:
                sock, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptor is free: those who wait would wake this loop all the time
                self._quiet.warning("nobody is let in at %s for %.1f s: %s", self._path, NO_ROOM_S, error)
                self._loop.remove_reader(self._sock.fileno())
                self._loop.call_later(NO_ROOM_S, self._listen)
                return
            if peer_uid(sock) not in (None, os.getuid()):
                sock.close()  # the folder's mode keeps others out; this is the second lock
                continue
            self._on_connect(sock)

    def close(self) -> None:
        """Stop listening and remove the path."""
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)


def peer_uid(sock: socket.socket) -> int | None:
    """Return the user id of the process at the other end, None where the system does not tell."""
    return _credentials(sock)[1]


def _credentials(sock: socket.socket) -> tuple[int, int | None]:
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return 0, None
    pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i")))
    return int(pid), int(uid)
