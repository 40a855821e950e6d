"""A slow line on loopback: all connections through it share one rate, one delay and one buffer per direction."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

PIECE = 16 * 1024  # read at a time from each connection in turn, as ssh does
BUFFER_BYTES = 4 * 1024 * 1024
"""What may wait for the line: an ssh stream's socket buffers, a router's queue. At 20 Mbit/s that is 1.7 s."""


class _Way:
    """One direction: first in, first out, whoever it belongs to. A full buffer stops the reading, in turn."""

    def __init__(self, bytes_per_s: float, delay_s: float, room: int) -> None:
        self._rate, self._delay_s, self._room = bytes_per_s, delay_s, room
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Lock()
        self._change = asyncio.Event()
        self._free_at = 0.0
        self.waiting = self.most_waiting = self.passed = 0

    async def put(self, data: bytes, to: asyncio.StreamWriter) -> None:
        async with self._turn:
            while self.waiting + len(data) > self._room:
                self._change.clear()
                await self._change.wait()
        self.waiting += len(data)
        self.most_waiting = max(self.most_waiting, self.waiting)
        self._free_at = max(self._free_at, self._loop.time()) + len(data) / self._rate
        self._loop.call_at(self._free_at, self._left, len(data))
        self._loop.call_at(self._free_at + self._delay_s, self._arrived, data, to)

    def _left(self, size: int) -> None:
        self.waiting -= size
        self.passed += size
        self._change.set()

    def _arrived(self, data: bytes, to: asyncio.StreamWriter) -> None:
        if not to.is_closing():
            to.write(data)


class Line:
    """Listens at ``port`` on loopback and leads to *target*, another port there. Has its own thread.

    Attributes:
        up, down: the two directions; ``passed`` bytes, ``most_waiting`` of them in the buffer.
    """

    up: _Way
    down: _Way

    def __init__(self, target: int, *, mbit_per_s: float, rtt_s: float, buffer_bytes: int = BUFFER_BYTES) -> None:
        self._target = target
        self._shape = (mbit_per_s * 1e6 / 8, rtt_s / 2, buffer_bytes)
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="line", daemon=True)
        self._thread.start()
        self._ready.wait()

    def close(self) -> None:
        """Break all connections and end the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    # --- its thread ---

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(self._open())
        self._ready.set()
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _open(self) -> asyncio.Server:
        self.up, self.down = _Way(*self._shape), _Way(*self._shape)
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=PIECE)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # the end of the thread; else asyncio logs it
            await self._relay(reader, writer)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target, limit=PIECE)
        ways = [
            asyncio.ensure_future(self._pass(reader, far_writer, self.up)),
            asyncio.ensure_future(self._pass(far_reader, writer, self.down)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for each in (writer, far_writer):
                each.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, to: asyncio.StreamWriter, way: _Way) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(PIECE):
                await way.put(data, to)


@contextlib.contextmanager
def slow_line(target: int, *, mbit_per_s: float = 20, rtt_s: float = 0.04) -> Iterator[Line]:
    """Have a line to *target* for a while; without more words, somebody's upstream at home."""
    line = Line(target, mbit_per_s=mbit_per_s, rtt_s=rtt_s)
    try:
        yield line
    finally:
        line.close()
