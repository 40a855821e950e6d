from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ippmpi.client.contents import LARGE, BlobSource, BufferSink, Fetching
from ippmpi.handed import STEP_BYTES, HandedFile
from ippmpi.wire.pickling import Blob, pack, unpack


@given(st.lists(st.binary(max_size=20), min_size=1), st.integers(1, 30))
def test_a_blob_is_read_in_chunks_of_any_size(parts: list[bytes], chunk: int) -> None:
    whole = b"".join(parts)
    source = BlobSource(Blob(parts, len(whole)))
    assert source.size == source.available() == len(whole)
    starts = range(0, source.size, chunk)
    assert b"".join(bytes(source.read(i, min(i + chunk, source.size))) for i in starts) == whole


def test_chunks_of_an_array_are_its_own_memory() -> None:
    array = np.arange(10_000, dtype=np.uint8)
    source = BlobSource(pack(array))
    view = source.read(source.size - 100, source.size)
    array[-1] = 77
    assert isinstance(view, memoryview)
    assert view[-1] == 77


def test_what_a_sink_took_unpickles_to_writable_arrays() -> None:
    flat = pack(np.ones(5000)).join()
    sink = BufferSink(len(flat))
    for start in range(0, len(flat), 777):
        sink.write(start, memoryview(flat)[start : start + 777])
    array = unpack(sink.buffer)
    assert isinstance(array, np.ndarray)
    array[:] = 3
    assert array.sum() == 15_000


def test_a_handed_file_is_read_in_steps(tmp_path: Path) -> None:
    flat = pack(np.arange(3 * STEP_BYTES, dtype=np.uint8)).join()
    sink, ends, steps = BufferSink(len(flat)), [], []
    fd = HandedFile(str(tmp_path), [flat], len(flat)).detach()
    Fetching(fd, sink, steps.append, ends.append)
    count = 0
    while steps:
        assert not ends
        steps.pop()()
        count += 1
    assert (ends, count) == ([True], 3)
    array = unpack(sink.buffer)
    assert isinstance(array, np.ndarray)
    array[:] = 3
    assert not os.path.exists(f"/proc/self/fd/{fd}")


def test_a_handed_file_that_ends_early_is_not_whole(tmp_path: Path) -> None:
    ends: list[bool] = []
    fd = HandedFile(str(tmp_path), [b"x" * LARGE], LARGE).detach()
    Fetching(fd, BufferSink(LARGE + 1), lambda call: call(), ends.append)
    assert ends == [False]
