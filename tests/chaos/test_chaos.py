"""A short run of chaos, with a seed that is always the same: ``make chaos`` takes any, and its time."""

from __future__ import annotations

import threading

import pytest

from chaos.harm import KINDS, blows
from chaos.proxy import Proxy
from chaos.run import chaos

SECONDS = 25.0
SEED = 1


@pytest.mark.mpi
@pytest.mark.slow
def test_random_work_survives_random_harm() -> None:
    before = set(threading.enumerate())
    assert chaos(SECONDS, SEED) == []
    assert set(threading.enumerate()) <= before


def test_a_seed_fixes_what_is_done() -> None:
    first, second, other = blows(1), blows(1), blows(2)
    drawn = [next(first) for _ in range(200)]
    assert drawn == [next(second) for _ in range(200)] != [next(other) for _ in range(200)]
    assert {blow.kind for blow in drawn} == set(KINDS)
    assert {next(blows(1, ["cut"])).kind} == {"cut"}


def test_a_proxy_passes_on_and_can_be_cut(tmp_path: object) -> None:
    import asyncio

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    async def talk() -> None:
        server = await asyncio.start_unix_server(echo, f"{tmp_path}/echo")
        proxy = Proxy(lambda: f"unix://{tmp_path}/echo", f"{tmp_path}/proxy")
        reader, writer = await asyncio.open_unix_connection(f"{tmp_path}/proxy")
        proxy.delay(0.001)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        proxy.cut()
        assert await reader.read() == b""
        proxy.refuse(True)
        writer.close()
        reader, writer = await asyncio.open_unix_connection(f"{tmp_path}/proxy")
        assert await reader.read() == b""
        writer.close()
        proxy.close()
        server.close()

    asyncio.run(talk())
