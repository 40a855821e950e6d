"""Large contents: from the controller into memory files, from engines' memory files to the controller."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Never

import msgspec
import pytest

from agent.fakes import Child, Node, StartChild, Talk
from helpers import handed
from ippmpi.errors import ProtocolError
from ippmpi.handed import SMALLEST, HandedFile, take
from ippmpi.net.transfers import FileSink
from ippmpi.wire.messages import Content, ContentReady

DATA = os.urandom(100_000)


def deliver(controller: Talk, transfer: int, data: bytes = DATA) -> None:
    sink, on_end = controller.accepted[transfer]
    sink.write(0, memoryview(data)[:70_000])
    sink.write(70_000, memoryview(data)[70_000:])
    on_end(True)


def test_a_content_arrives_in_one_sealed_memory_file_and_its_engines_are_told(node: Node, child: StartChild) -> None:
    engines = [node.join(child(), rank) for rank in range(2)]
    dones = []
    arrival = node.contents.receive(Content(size=len(DATA), transfer=5), engines, lambda: dones.append(1))
    assert not node.controller.accepted
    arrival.start()
    with open(arrival.local.path, "r+b") as file:
        deliver(node.controller, 5)
        view = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        assert view[:] == DATA
        view[:3] = b"own"  # a private page
        with pytest.raises(PermissionError):
            os.pwrite(file.fileno(), b"x", 0)
        view.close()
    for engine in engines:
        assert engine.conversation.sent == [ContentReady(arrival.local.transfer)]
    engines[0].conversation.ack()
    assert not dones
    assert os.path.exists(arrival.local.path)
    engines[1].conversation.ack()
    assert dones == [1]
    assert not os.path.exists(arrival.local.path)
    assert not node.controller.rejected


def test_a_content_that_fails_is_told_as_failed(node: Node, child: StartChild) -> None:
    engine = node.join(child())
    dones = []
    arrival = node.contents.receive(Content(size=10, transfer=5), [engine], lambda: dones.append(1))
    arrival.start()
    node.controller.accepted[5][1](False)
    assert engine.conversation.sent == [ContentReady(arrival.local.transfer, failed=True)]
    engine.conversation.ack()
    assert dones == [1]


def test_a_content_whose_engines_are_all_lost_is_not_wanted_any_more(node: Node, child: StartChild) -> None:
    engine = node.join(child())
    dones = []
    arrival = node.contents.receive(Content(size=10, transfer=5), [engine], lambda: dones.append(1))
    arrival.start()
    node.members.remove(engine)
    assert (dones, node.controller.rejected) == ([1], [5])
    assert not os.path.exists(arrival.local.path)
    sink, on_end = node.controller.accepted[5]
    sink.write(0, memoryview(b"late"))
    on_end(False)
    assert engine.conversation.sent == []


def test_a_content_that_does_not_fit_into_memory_fails(
    node: Node, child: StartChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> Never:
        raise OSError(errno.ENOSPC, "full")

    engine = node.join(child())
    arrival = node.contents.receive(Content(size=len(DATA), transfer=5), [engine], lambda: None)
    arrival.start()
    monkeypatch.setattr(os, "pwrite", full)
    deliver(node.controller, 5)
    assert engine.conversation.sent == [ContentReady(arrival.local.transfer, failed=True)]
    engine.conversation.ack()


def test_without_a_memory_file_the_content_fails_at_once(node: Node, child: StartChild) -> None:
    engine = node.join(child())
    dones = []
    arrival = node.contents.receive(Content(size=1 << 63, transfer=5), [engine], lambda: dones.append(1))
    arrival.start()
    assert node.controller.rejected == [5]
    assert engine.conversation.sent == [ContentReady(arrival.local.transfer, failed=True)]
    engine.conversation.ack()
    assert dones == [1]


def memory_file(process: Child) -> str:
    process.do(f"f = os.memfd_create('x'); os.write(f, bytes.fromhex('{DATA[:1000].hex()}'))")
    return memory_file_of(process)


def memory_file_of(process: Child) -> str:
    descriptors = f"/proc/{process.pid}/fd"
    return next(f"{descriptors}/{n}" for n in os.listdir(descriptors) if "memfd" in os.readlink(f"{descriptors}/{n}"))


def test_an_engines_memory_file_is_offered_and_outlives_the_engine(node: Node, child: StartChild) -> None:
    process = child()
    engine = node.join(process)
    content, end = node.contents.offer(Content(size=1000, transfer=3, path=memory_file(process)), engine)
    process.close()
    assert content == Content(size=1000, transfer=1)
    source = node.controller.offered[1]
    assert (source.size, source.available()) == (1000, 1000)
    before = node.contents.progress()
    assert source.read(10, 900) == DATA[10:900]
    assert node.contents.progress() != before
    end()
    assert node.controller.offered[1] is None
    with pytest.raises(OSError, match="Bad file"):
        source.read(0, 1)


def test_a_path_that_is_not_the_engines_own_descriptor_is_refused(node: Node, child: StartChild) -> None:
    process = child()
    engine = node.join(process)
    own = f"/proc/{process.pid}/fd"
    for path in ("/etc/passwd", f"/proc/{os.getpid()}/fd/0", f"{own}/../environ", f"{own}/0\n", f"{own}/٣"):
        with pytest.raises(ProtocolError, match="right would be"):
            node.contents.offer(Content(size=1, path=path), engine)
    with pytest.raises(ProtocolError, match="no file of at least"):
        node.contents.offer(Content(size=1, path=f"{own}/{process.stdout_fd}"), engine)
    with pytest.raises(ProtocolError, match="no file of at least"):
        node.contents.offer(Content(size=1001, path=memory_file(process)), engine)
    with pytest.raises(FileNotFoundError):
        node.contents.offer(Content(size=1, path=f"{own}/999"), engine)
    assert not node.controller.offered


# --- contents that are handed on as files --------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Iterator[HandedFile]:
    file = handed(tmp_path, DATA)
    yield file
    file.close()


def say_placed(controller: Talk, transfer: int) -> None:
    sink, on_end = controller.accepted[transfer]
    sink.placed(0, 70_000)
    sink.placed(70_000, 30_000)
    on_end(True)


def test_a_handed_content_is_handed_on_to_one_engine(node: Node, child: StartChild, file: HandedFile) -> None:
    node.controller.peer_pid = os.getpid()
    engine = node.join(child())
    dones = []
    content = Content(size=len(DATA), transfer=5, path=file.path)
    arrival = node.contents.receive(content, [engine], lambda: dones.append(1))
    file.close()
    arrival.start()
    with open(arrival.local.path, "rb") as opened:
        assert not engine.conversation.sent
        say_placed(node.controller, 5)
        assert engine.conversation.sent == [ContentReady(arrival.local.transfer)]
        engine.conversation.ack()
        assert dones == [1]
        assert not os.path.exists(arrival.local.path)
        assert opened.read() == DATA


def test_bytes_in_the_place_of_a_handed_content_are_a_failure(node: Node, child: StartChild, file: HandedFile) -> None:
    node.controller.peer_pid = os.getpid()
    engine = node.join(child())
    arrival = node.contents.receive(Content(size=len(DATA), transfer=5, path=file.path), [engine], lambda: None)
    arrival.start()
    deliver(node.controller, 5)
    assert engine.conversation.sent == [ContentReady(arrival.local.transfer, failed=True)]
    engine.conversation.ack()


@pytest.mark.parametrize("engines", [1, 2])
def test_a_handed_content_is_let_go_when_its_engines_are_lost(
    node: Node, child: StartChild, file: HandedFile, engines: int
) -> None:
    node.controller.peer_pid = os.getpid()
    before = sorted(os.listdir("/proc/self/fd"))
    targets = [node.join(child(), rank) for rank in range(engines)]
    content = Content(size=len(DATA), transfer=5, path=file.path)
    dones = []
    arrival = node.contents.receive(content, targets, lambda: dones.append(1))
    arrival.start()
    for engine in targets:
        node.members.remove(engine)
    assert (dones, node.controller.rejected) == ([1], [5])
    assert not [fd for fd in os.listdir("/proc/self/fd") if fd not in before and "ippmpi" in target_of(fd)]


def target_of(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except FileNotFoundError:
        return ""


@pytest.mark.parametrize("pid", [0, os.getppid(), os.getpid()])
def test_a_handed_content_that_cannot_be_opened_is_pulled(
    node: Node, child: StartChild, file: HandedFile, pid: int
) -> None:
    node.controller.peer_pid = pid
    content = Content(size=len(DATA), transfer=5, path=file.path)
    file.close()
    engine = node.join(child())
    arrival = node.contents.receive(content, [engine], lambda: None)
    arrival.start()
    assert not isinstance(node.controller.accepted[5][0], FileSink)
    deliver(node.controller, 5)
    with open(arrival.local.path, "rb") as opened:
        assert opened.read() == DATA
    engine.conversation.ack()


def test_a_large_result_is_handed_to_a_controller_on_this_host(node: Node, child: StartChild) -> None:
    process = child()
    engine = node.join(process)
    process.do(f"f = os.memfd_create('x'); os.truncate(f, {SMALLEST})")
    own = Content(size=SMALLEST, transfer=3, path=memory_file_of(process))
    assert node.contents.offer(own, engine)[0] == Content(size=SMALLEST, transfer=1)
    node.controller.peer_pid = 1
    content, end = node.contents.offer(own, engine)
    process.close()
    os.close(take(content.path, SMALLEST, os.getpid()))
    before = node.contents.progress()
    node.controller.offered[2].place(0, 5)
    assert node.contents.progress() == before + 5
    end()
    assert not os.path.exists(content.path)
    assert msgspec.structs.replace(content, path="") == Content(size=SMALLEST, transfer=2)


def test_a_handed_content_for_several_engines_is_copied_into_one_memory_file(
    node: Node, child: StartChild, file: HandedFile
) -> None:
    node.controller.peer_pid = os.getpid()
    engines = [node.join(child(), rank) for rank in range(2)]
    arrival = node.contents.receive(Content(size=len(DATA), transfer=5, path=file.path), engines, lambda: None)
    file.close()
    arrival.start()
    say_placed(node.controller, 5)
    for engine in engines:
        assert engine.conversation.sent == [ContentReady(arrival.local.transfer)]
    with open(arrival.local.path, "r+b") as opened:
        assert opened.read() == DATA
        with pytest.raises(PermissionError):
            os.pwrite(opened.fileno(), b"x", 0)
        for engine in engines:
            engine.conversation.ack()
    assert not os.path.exists(arrival.local.path)


def test_a_copy_that_fails_is_pulled_from_where_it_is(node: Node, child: StartChild, tmp_path: Path) -> None:
    node.controller.peer_pid = os.getpid()
    file = handed(tmp_path, DATA[:70_000])
    engines = [node.join(child(), rank) for rank in range(2)]
    arrival = node.contents.receive(Content(size=len(DATA), transfer=5, path=file.path), engines, lambda: None)
    arrival.start()
    sink, on_end = node.controller.accepted[5]
    sink.placed(0, 70_000)
    with pytest.raises(OSError, match="ends at 70000"):
        sink.placed(70_000, 30_000)
    sink.write(70_000, memoryview(DATA)[70_000:])
    on_end(True)
    with open(arrival.local.path, "rb") as opened:
        assert opened.read() == DATA
    for engine in engines:
        assert engine.conversation.sent == [ContentReady(arrival.local.transfer)]
        engine.conversation.ack()
