"""The spool, on real files."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from ippmpi.handed import HandedFile, write
from ippmpi.store.spool import Spool, raise_descriptor_limit

KEYS = count(1)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "spool", 1000)
    yield spool
    spool.close()


def test_what_was_written_is_read_back_while_the_rest_is_still_coming(spool: Spool) -> None:
    file = spool.create(next(KEYS), 6)
    assert file.available() == 0
    file.write(0, memoryview(b"abc"))
    assert file.available() == 3
    assert file.read(1, 3) == b"bc"
    file.write(3, memoryview(b"def"))
    assert file.read(0, 6) == b"abcdef"


def test_a_file_is_found_by_its_key_until_nobody_needs_it(spool: Spool, tmp_path: Path) -> None:
    file = spool.create(77, 10)
    file.write(0, memoryview(b"0123456789"))
    later = Spool(tmp_path / "spool", 1000)
    again = later.reopen(77, 10)
    assert again is not None
    assert (again.available(), again.read(8, 10), later.used_bytes) == (10, b"89", 10)
    assert later.reopen(77, 11) is None
    assert later.reopen(78, 10) is None
    assert later.last_key() == 77
    later.tidy()
    assert os.listdir(tmp_path / "spool") == ["content-77"]
    again.release()
    assert os.listdir(tmp_path / "spool") == []


def test_what_nobody_reopened_is_tidied_away(spool: Spool, tmp_path: Path) -> None:
    spool.create(77, 10)
    spool.create(78, 10)
    later = Spool(tmp_path / "spool", 1000)
    assert later.reopen(78, 0) is not None
    later.tidy()
    assert os.listdir(tmp_path / "spool") == ["content-78"]


@pytest.mark.parametrize(("offset", "size"), [(1, 1), (0, 7)])
def test_bytes_that_cannot_be_the_next_are_refused(spool: Spool, offset: int, size: int) -> None:
    with pytest.raises(ValueError, match="of 6 are there"):
        spool.create(next(KEYS), 6).write(offset, memoryview(b"x" * size))


def test_reading_what_is_not_there_is_an_error(spool: Spool) -> None:
    file = spool.create(next(KEYS), 6)
    file.write(0, memoryview(b"abc"))
    with pytest.raises(OSError, match="ends at 3"):
        file.read(0, 6)


def test_the_last_owner_frees_the_space_and_the_descriptor(spool: Spool) -> None:
    before = len(os.listdir("/proc/self/fd"))
    file = spool.create(next(KEYS), 600)
    file.retain()
    file.release()
    assert (spool.used_bytes, len(spool)) == (600, 1)
    file.release()
    file.release()
    assert (spool.used_bytes, len(spool)) == (0, 0)
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ValueError, match="free"):
        file.retain()


def test_a_content_beyond_the_limit_is_refused_with_both_numbers(spool: Spool) -> None:
    spool.create(next(KEYS), 600)
    with pytest.raises(OSError, match="holds 600 of at most 1000 bytes, 401 more do not fit"):
        spool.create(next(KEYS), 401)
    spool.create(next(KEYS), 400)


def test_closing_frees_everything(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    spool = Spool(tmp_path, 1000)
    spool.create(next(KEYS), 1).retain()
    spool.create(next(KEYS), 2)
    spool.close()
    assert len(spool) == 0
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_large_content_stays_out_of_memory(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1 << 30)
    chunk = memoryview(bytes(1 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    file = spool.create(next(KEYS), 128 << 20)
    for offset in range(0, 128 << 20, 1 << 20):
        file.write(offset, chunk)
        file.read(offset, offset + (1 << 20))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    spool.close()
    assert grown < 16 * 1024  # KB


def test_the_limit_of_open_files_goes_to_the_top() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        assert raise_descriptor_limit() == hard
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# --- files that are handed over ------------------------------------------------------------------


def test_a_handed_file_gets_a_name_and_is_filled_by_its_giver(spool: Spool, tmp_path: Path) -> None:
    giver = HandedFile(str(tmp_path), 10)
    file = spool.adopt(8, 10, os.dup(giver.fd))
    assert (file.available(), spool.used_bytes) == (0, 10)
    write(giver.fd, [b"0123"])
    file.placed(0, 4)
    with pytest.raises(OSError, match="ends before byte 5"):
        file.placed(4, 1)
    with pytest.raises(ValueError, match="but 4 of 10 are there"):
        file.placed(5, 1)
    write(giver.fd, [b"45", b"6789"], 4)
    giver.close()
    file.placed(4, 6)
    file.place(0, 10)
    assert (file.available(), file.read(2, 10)) == (10, b"23456789")
    assert Path(file.handed).read_bytes() == b"0123456789"
    later = Spool(tmp_path / "spool", 1000)
    assert later.last_key() == 8
    again = later.reopen(8, 10)
    assert again is not None
    assert again.read(0, 10) == b"0123456789"
    later.close()
    assert not list((tmp_path / "spool").iterdir())


def test_what_cannot_become_the_spool_s_own_is_copied(spool: Spool) -> None:
    given = os.memfd_create("x")
    os.write(given, b"abcdef")
    file = spool.create(next(KEYS), 6)
    file.write(0, memoryview(b"ab"))
    file.placed(2, 4, given)
    assert file.read(0, 6) == b"abcdef"
    short = spool.create(next(KEYS), 7)
    with pytest.raises(OSError, match="ends at 6, not at 7"):
        short.placed(0, 7, given)
    assert short.available() == 0
    os.close(given)


def test_a_file_that_cannot_be_taken_over_is_left_to_its_owner(spool: Spool, tmp_path: Path) -> None:
    named = os.open(tmp_path / "named", os.O_RDWR | os.O_CREAT)
    elsewhere = os.memfd_create("x")
    once_named = HandedFile(str(tmp_path), 1).detach()
    spool.adopt(next(KEYS), 1, os.dup(once_named)).release()
    huge = HandedFile(str(tmp_path), 2000).detach()
    for fd, size, why in (
        (named, 0, "a name already"),
        (elsewhere, 0, r"Errno 1[38]|Errno 2"),
        (once_named, 1, "Errno 2"),
        (huge, 2000, "do not fit"),
    ):
        with pytest.raises(OSError, match=why):
            spool.adopt(next(KEYS), size, fd)
        os.close(fd)
    assert (len(spool), spool.used_bytes, list((tmp_path / "spool").iterdir())) == (0, 0, [])
