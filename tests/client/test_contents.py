from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import handed
from ippmpi.client.contents import BlobSource, BufferSink, FileBufferSink, sink_for
from ippmpi.handed import SMALLEST, take
from ippmpi.net.transfers import FileSink
from ippmpi.wire.messages import Content
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


def test_a_large_blob_is_put_into_a_file_for_a_hub_on_this_host(tmp_path: Path) -> None:
    array = np.arange(SMALLEST, dtype=np.uint8)
    source = BlobSource(pack({"a": array, "b": array[::-1].copy()}), str(tmp_path))
    assert source.file is not None
    fd = take(source.file.path, source.size, os.getpid())
    for start in range(0, source.size, 300_000):
        source.place(start, min(start + 300_000, source.size))
    source.close()
    sink = FileBufferSink(source.size, fd)
    for start in range(0, source.size, 700_000):
        sink.placed(start, min(700_000, source.size - start))
    sink.close()
    sink.close()
    found = unpack(sink.buffer)
    assert isinstance(found, dict)
    assert (found["b"] == array[::-1]).all()
    found["b"][:] = 3
    assert not list(tmp_path.iterdir())
    assert not os.path.exists(f"/proc/self/fd/{fd}")


def test_what_is_small_or_has_no_folder_is_sent(tmp_path: Path) -> None:
    large = pack(np.zeros(SMALLEST, dtype=np.uint8))
    for source in (BlobSource(large), BlobSource(large, str(tmp_path / "gone")), BlobSource(pack(1), str(tmp_path))):
        assert source.file is None
        with pytest.raises(OSError, match="no file"):
            source.place(0, 1)
        source.close()


def test_a_value_whose_file_cannot_be_opened_comes_by_wire(tmp_path: Path) -> None:
    file = handed(tmp_path, b"x" * 100)
    assert isinstance(sink_for(Content(size=100, transfer=1, path=file.path), os.getpid()), FileSink)
    for content, pid in (
        (Content(size=100, transfer=1), os.getpid()),
        (Content(size=100, transfer=1, path=file.path), 0),
        (Content(size=99, transfer=1, path=file.path), os.getpid()),
    ):
        sink = sink_for(content, pid)
        assert not isinstance(sink, FileSink)
        sink.close()
