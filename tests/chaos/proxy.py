"""A proxy between a peer and the controller that can be cut, closed and slowed down."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable

CHUNK = 1 << 16


class Proxy:
    """Listens at ``address`` and leads to *target*, both ``unix://path`` or ``tcp://host:port``. Has its own thread."""

    def __init__(self, target: Callable[[], str], listen: str) -> None:
        """Ask *target* at each connection; *listen* is a path, or "" for a TCP port that is free."""
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._delay_s = 0.0
        self._refuses = False
        self.address = ""
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(listen,), name="chaos proxy", daemon=True)
        self._thread.start()
        self._ready.wait()

    # --- any thread ---

    def cut(self) -> None:
        """Break all connections that there are."""
        self._loop.call_soon_threadsafe(self._cut)

    def refuse(self, refuses: bool) -> None:
        """Break all connections and accept no others, or accept again."""

        def change() -> None:
            self._refuses = refuses
            self._cut()

        self._loop.call_soon_threadsafe(change)

    def hold(self, holds: bool) -> None:
        """Pass nothing on (connections stay open, as with a network that is down), or go on."""
        self._loop.call_soon_threadsafe(self._flows.clear if holds else self._flows.set)

    def delay(self, seconds: float) -> None:
        """Let each piece of data wait so long."""

        def change() -> None:
            self._delay_s = seconds

        self._loop.call_soon_threadsafe(change)

    def close(self) -> None:
        """End it."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    # --- its thread ---

    def _run(self, listen: str) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(self._listen(listen))
        self._ready.set()
        self._loop.run_forever()
        server.close()
        self._cut()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _listen(self, listen: str) -> asyncio.Server:
        if listen:
            self.address = f"unix://{listen}"
            return await asyncio.start_unix_server(self._serve, listen)
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return server

    def _cut(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if not self._refuses:
                with contextlib.suppress(OSError):
                    await self._relay(reader, writer)
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = self._target()
        if target.startswith("unix://"):
            far = await asyncio.open_unix_connection(target.removeprefix("unix://"))
        else:
            host, _, port = target.removeprefix("tcp://").rpartition(":")
            far = await asyncio.open_connection(host, int(port))
        self._writers.add(far[1])
        ways = [asyncio.ensure_future(self._pass(reader, far[1])), asyncio.ensure_future(self._pass(far[0], writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._writers.discard(far[1])
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            far[1].transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            await self._flows.wait()
            if self._delay_s:
                await asyncio.sleep(self._delay_s)
            writer.write(data)
            await writer.drain()
