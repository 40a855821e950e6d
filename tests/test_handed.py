"""Files that one process hands to another: real files, real processes, and a real other user where that can be had."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ippmpi.handed import HandedFile, copy, memory, read, take, write

DATA = os.urandom(100_000)
NOBODY = 65534


@pytest.fixture
def file(tmp_path: Path) -> Iterator[HandedFile]:
    file = HandedFile(str(tmp_path), len(DATA))
    write(file.fd, [DATA[:5], b"", memoryview(DATA)[5:]])
    yield file
    file.close()


def test_what_was_handed_is_read_also_when_its_giver_has_closed_it(file: HandedFile, tmp_path: Path) -> None:
    fd = take(file.path, len(DATA), os.getpid())
    file.close()
    file.close()
    into = memory(len(DATA))
    read(fd, memoryview(into), 0, 70_000)
    read(fd, memoryview(into), 70_000, len(DATA))
    assert into[:] == DATA
    into[:3] = b"own"
    with pytest.raises(OSError, match="ends at 100000, not at 100001"):
        read(fd, memoryview(bytearray(200_000)), 0, 100_001)
    os.close(fd)
    assert not list(tmp_path.iterdir())


def test_a_file_of_more_parts_than_one_call_takes(tmp_path: Path) -> None:
    parts = [bytes([n % 256]) * (n % 7) for n in range(3000)]
    whole = b"".join(parts)
    fd = HandedFile(str(tmp_path), len(whole)).detach()
    write(fd, parts, 10)
    write(fd, [whole[:10]])
    assert os.pread(fd, len(whole) + 11, 0) == whole[:10] + whole
    os.close(fd)


def test_no_call_takes_so_long_that_signals_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    pwritev, preadv = os.pwritev, os.preadv

    def noted_write(fd: int, views: list[memoryview], start: int) -> int:
        calls.append(sum(view.nbytes for view in views))
        return pwritev(fd, views, start)

    def noted_read(fd: int, views: list[memoryview], start: int) -> int:
        calls.append(sum(view.nbytes for view in views))
        return preadv(fd, views, start)

    monkeypatch.setattr("ippmpi.handed._MOST_BYTES", 1000)
    monkeypatch.setattr(os, "pwritev", noted_write)
    monkeypatch.setattr(os, "preadv", noted_read)
    fd = HandedFile(str(tmp_path), len(DATA) + 9).detach()
    write(fd, [b"header", DATA, b"end"])
    into = bytearray(len(DATA) + 9)
    read(fd, memoryview(into), 0, len(into))
    os.close(fd)
    assert into == b"header" + DATA + b"end"
    assert max(calls) < 2000


def test_the_last_reference_closes_the_file(tmp_path: Path) -> None:
    file = HandedFile(str(tmp_path), len(DATA))
    path = file.path
    assert os.path.exists(path)
    del file
    assert not os.path.exists(path)


def test_a_path_that_is_not_the_givers_own_descriptor_is_refused(file: HandedFile) -> None:
    own = f"/proc/{os.getpid()}/fd"
    for path in ("/etc/passwd", f"{own}/../environ", f"{own}/0\n", f"{own}/٣", "/proc/self/fd/0", ""):
        with pytest.raises(PermissionError, match="not its own"):
            take(path, len(DATA), os.getpid())
    for giver in (os.getppid(), 0, -1):
        with pytest.raises(PermissionError, match="not its own"):
            take(file.path, len(DATA), giver)
    with pytest.raises(FileNotFoundError):
        take(f"{own}/999", len(DATA), os.getpid())


def test_what_is_not_a_file_of_that_size_is_refused(file: HandedFile) -> None:
    with pytest.raises(OSError, match=r"100000 bytes.*at most 99999 bytes"):
        take(file.path, len(DATA) - 1, os.getpid())
    ends = os.pipe()
    with pytest.raises(OSError, match="has mode p"):
        take(f"/proc/{os.getpid()}/fd/{ends[0]}", 1, os.getpid())
    for end in ends:
        os.close(end)


def test_a_file_that_is_still_being_filled_may_be_taken(tmp_path: Path) -> None:
    file = HandedFile(str(tmp_path), 4)
    fd = take(file.path, 4, os.getpid(), write=True)
    write(file.fd, [b"abcd"])
    os.pwrite(fd, b"X", 1)
    assert os.pread(fd, 9, 0) == b"aXcd"
    os.close(fd)


def test_a_copy_from_one_file_to_another_is_complete_or_an_error(file: HandedFile) -> None:
    target = os.memfd_create("x")
    copy(file.fd, target, 0, 60_000)
    copy(file.fd, target, 60_000, len(DATA))
    assert os.pread(target, len(DATA) + 1, 0) == DATA
    with pytest.raises(OSError, match="ends at 100000, not at 100001"):
        copy(file.fd, target, 99_000, 100_001)
    os.close(target)


def test_a_disk_without_room_is_left_alone(tmp_path: Path) -> None:
    room = os.statvfs(tmp_path)
    with pytest.raises(OSError, match="too little room"):
        HandedFile(str(tmp_path), room.f_bavail * room.f_frsize // 2 + 1)


@pytest.mark.skipif(os.getuid() != 0, reason="cannot be had here: only root can be another user")
def test_another_user_cannot_take_it_and_nothing_of_theirs_is_taken(file: HandedFile) -> None:
    become = f"os.setgroups([]); os.setresgid(*[{NOBODY}] * 3); os.setresuid(*[{NOBODY}] * 3)"
    code = f"""
import os, sys, tempfile
theirs = tempfile.TemporaryFile(dir="/tmp")
os.fchown(theirs.fileno(), {NOBODY}, {NOBODY})
theirs.write(b"x" * 10); theirs.flush()
{become}
try:
    os.open({file.path!r}, os.O_RDONLY)
    print("opened", flush=True)
except PermissionError:
    print(theirs.fileno(), flush=True)
sys.stdin.read()
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    number = process.stdout.readline().strip()
    assert number.isdecimal()
    with pytest.raises(OSError, match="owner 65534"):
        take(f"/proc/{process.pid}/fd/{number}", 10, process.pid)
    process.communicate("")
