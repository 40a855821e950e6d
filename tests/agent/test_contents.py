"""Large contents: from the controller into memory files, from engines' memory files to the controller."""

from __future__ import annotations

import errno
import mmap
import os
from typing import Never

import pytest

from agent.fakes import Child, Node, StartChild, Talk
from ippmpi.errors import ProtocolError
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
