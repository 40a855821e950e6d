"""The controller between honest work and peers that say all kinds of wrong things."""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.fakes import Bytes
from controller.running import Client, EchoAgent, Running
from fuzz.wrong import Noise, carried, records_for, strategy_for
from helpers import eventually
from ippmpi.connection import Connection
from ippmpi.net.conversation import Delivery
from ippmpi.wire.frames import decode_link, encode_link
from ippmpi.wire.messages import (
    Content,
    EnginesChanged,
    Hello,
    LinkRecord,
    Query,
    Registered,
    Reply,
    Run,
    Submit,
    Welcome,
)
from net.raw import Raw, a_hello

MORE = int(os.environ.get("IPPMPI_FUZZ", "1"))
"""How many times as much as in an everyday run."""

MOST_MORE_KB = 100 * 1024
"""What a controller under fire may grow by."""


class Patient(EchoAgent):
    """An agent that is used to contents which never come."""

    def _pull(self, delivery: Delivery, run: Run) -> None:
        content = run.contents[0]
        delivery.peer.accept(content.transfer, Bytes(size=content.size), lambda _: delivery.done())


class Workload:
    """A client and an agent with two ranks, which echo; every answer is checked."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.agent = Patient(running.connection("engine"), 2)
        self.agent.wait(Registered)
        self.client = Client(running.connection("client"), 0xFACE)
        self.client.wait(EnginesChanged)
        self._numbers = itertools.count(1)
        self.asked: dict[str, bytes] = {}

    def go_on(self, count: int = 5) -> None:
        """Do more work, and have it right."""
        for _ in range(count):
            task = f"{self.client.id}-{next(self._numbers)}"
            self.asked[task] = os.urandom(20)
            self.client.say(Submit(task, "echo", [0, 1], [Content(self.asked[task], 20)]))
        eventually(lambda: len(self.replies()) >= 2 * len(self.asked), 20, "the work of others goes on")

    @contextlib.contextmanager
    def meanwhile(self) -> Iterator[None]:
        """Work all the time, in another thread."""
        stop = threading.Event()

        def work() -> None:
            while not stop.is_set():
                self.go_on(3)
                stop.wait(0.01)

        thread = threading.Thread(target=work, name="workload")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(30)

    def replies(self) -> list[Reply]:
        return [m for m in list(self.client.got) if isinstance(m, Reply)]

    def check(self) -> None:
        """Every task has ended once on each engine, with what was asked for."""
        self.go_on()
        replies = self.replies()
        assert sorted((r.task, r.engine) for r in replies) == sorted((t, e) for t in self.asked for e in (0, 1))
        assert all(r.failure is None and r.content.inline == self.asked[r.task] for r in replies)
        assert self.running.process.poll() is None, self.running.text

    def close(self) -> None:
        self.client.close()
        self.agent.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("fuzz"))
    assert running.ready, running.text
    yield running
    running.end()


@pytest.fixture(scope="module")
def workload(running: Running) -> Iterator[Workload]:
    work = Workload(running)
    work.go_on()
    yield work
    work.close()


@pytest.fixture(autouse=True)
def unharmed(workload: Workload, running: Running) -> Iterator[None]:
    """After each test: the work is right, memory and log have not grown much, nothing has broken inside."""
    workload.go_on()
    kb, log = running.resident_kb(), len(running.text)
    with workload.meanwhile():
        yield
    workload.check()
    assert running.resident_kb() - kb < MOST_MORE_KB
    text = running.text[log:]
    assert len(text) < 400_000 * MORE, text[:2000]
    assert "Traceback" not in text, text[text.index("Traceback") - 500 :][:5000]


class Curve:
    """One TCP connection with a key, which sends frames as it likes."""

    def __init__(self, at: Connection) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVTIMEO, 5000)
        self._socket.setsockopt(zmq.SNDTIMEO, 5000)
        self._socket.setsockopt(zmq.CURVE_SERVERKEY, at.server_public.encode())
        self._socket.setsockopt(zmq.CURVE_PUBLICKEY, at.public.encode())
        self._socket.setsockopt(zmq.CURVE_SECRETKEY, at.secret.encode())
        self._socket.connect(at.address)

    def send(self, *frames: bytes) -> None:
        self._socket.send_multipart(frames)

    def say(self, record: LinkRecord, data: bytes = b"") -> None:
        self.send(encode_link(record), *([data] if data else []))

    def hear(self) -> LinkRecord:
        return decode_link(self._socket.recv_multipart()[0])

    def close(self) -> None:
        self._socket.close()
        self._context.term()


def raw(at: Connection) -> Raw:
    return Raw(at.socket)


DOORS = pytest.mark.parametrize("door", [raw, Curve])


def hello(at: Connection, role: str, number: int = 0xBAD, **other: object) -> Hello:
    peer = f"client:{number:012x}" if role == "client" else f"agent:bad@n{number:x}"
    return a_hello(peer, role, key=at.public, **other)


@DOORS
def test_noise_on_a_fresh_connection(running: Running, door: Callable) -> None:
    at = running.connection("client")
    good = [encode_link(hello(at, "client")), carried(Query(1, "status"))]
    for seed in range(200 * MORE if door is raw else 20 * MORE):
        noise = Noise(seed)
        with contextlib.closing(door(at)) as peer, contextlib.suppress(OSError):
            if door is raw:
                peer.send(noise.stream(good))
            else:
                for frame in itertools.islice(noise.frames(good), 10):
                    peer.send(frame, *([b"more"] * (seed % 3)))


@DOORS
@pytest.mark.parametrize("channel", ["control", "data"])
def test_noise_after_a_good_hello(running: Running, door: Callable, channel: str) -> None:
    at = running.connection("client")
    for seed in range(30 * MORE if door is raw else 5 * MORE):
        noise = Noise(seed)
        first = hello(at, "client")
        good = [carried(Query(1, "status")), carried(Submit("x-1", "echo", [7], [Content(b"x", 1)]))]
        with contextlib.closing(door(at)) as peer, contextlib.suppress(OSError):
            peer.say(first)
            with contextlib.closing(door(at)) as other:
                speaker = peer
                if channel == "data":
                    other.say(hello(at, "client", token=first.token, channel="data"))
                    speaker = other
                for frame in itertools.islice(noise.frames(good), 100):
                    if door is raw:
                        speaker.send(len(frame).to_bytes(4, "little") + b"\0\0\0\0" + frame)
                    else:
                        speaker.send(frame)


@DOORS
@pytest.mark.parametrize("role", ["client", "agent"])
def test_messages_with_right_types_and_wrong_values(
    running: Running, workload: Workload, door: Callable, role: str
) -> None:
    at = running.connection("client" if role == "client" else "engine")
    first = hello(at, role)
    peers = [door(at), door(at)]
    peers[0].say(first)
    welcome = peers[0].hear()
    assert isinstance(welcome, Welcome)
    peers[1].say(hello(at, role, token=first.token, channel="data", life=welcome.life))
    numbers, sent = itertools.count(1), []
    tasks = list(workload.asked)[:3]

    def renumbered(record: LinkRecord) -> LinkRecord:
        """Give a batch the number that lets it in, mostly."""
        fields = getattr(record, "messages", None)
        if not fields:
            return record
        begin = next(numbers)
        for _ in fields[1:]:
            next(numbers)
        return type(record)(begin, 0, 0, fields)

    @settings(
        max_examples=300 * MORE, deadline=None, database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )  # fmt: skip
    @given(records_for(strategy_for(tasks, ["w", "bad"])), st.booleans(), st.booleans())
    def run(said: tuple[LinkRecord, bytes], honest_number: bool, on_data: bool) -> None:
        record, data = said
        sent.append(on_data)
        peers[on_data].say(renumbered(record) if honest_number and not on_data else record, data)

    run()  # who sends well-formed frames is not cut off, however wrong they are
    assert len(sent) >= 200 * MORE
    for peer in peers:
        peer.close()


def test_frames_that_are_played_again(running: Running) -> None:
    at = running.connection("client")
    first = hello(at, "client", 0xAA)
    frames = [encode_link(first)]
    frames += [carried(Submit(f"0000000000aa-{n}", "echo", [0], [Content(b"x", 1)]), n) for n in range(1, 20)]
    for round_ in range(20):
        with contextlib.closing(raw(at)) as peer, contextlib.suppress(OSError):
            for frame in frames + frames[1:]:
                peer.send(len(frame).to_bytes(4, "little") + b"\0\0\0\0" + frame)
            answer = peer.hear()
            assert isinstance(answer, Welcome) if round_ == 0 else answer is None  # the session has begun


def test_contents_that_never_come_or_lie_about_their_size(running: Running) -> None:
    at = running.connection("client")
    with contextlib.closing(raw(at)) as peer:
        peer.say(hello(at, "client", 0xBB))
        sizes = itertools.cycle([1, 2**20, 2**33, 2**39])
        for number in range(1, 400):  # each waits to be pulled, and never will
            content = [Content(size=next(sizes), transfer=number % 50 + 1)]
            peer.send(_frame(carried(Submit(f"0000000000bb-{number}", "echo", [0], content), number)))
        assert isinstance(peer.hear(), Welcome)


def test_one_who_asks_and_never_reads(running: Running) -> None:
    at = running.connection("client")
    with contextlib.closing(raw(at)) as peer, contextlib.suppress(OSError):
        peer.say(hello(at, "client", 0xCC))
        for number in range(1, 20_000):
            peer.send(_frame(carried(Query(number, "status"), number)))


@pytest.mark.parametrize("count", [min(2000 * MORE, 10_000)])
def test_thousands_of_connections_that_say_nothing(running: Running, count: int) -> None:
    at = running.connection("client")
    with contextlib.ExitStack() as stack:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        host, _, port = at.address.removeprefix("tcp://").rpartition(":")
        silent: list[socket.socket] = []
        for number in range(count):
            if number % 2:
                one = socket.create_connection((host, int(port)), 5)
            else:
                one = socket.socket(socket.AF_UNIX)
                one.settimeout(5)
                one.connect(at.socket)
            silent.append(stack.enter_context(one))
        begin = time.monotonic()
        with contextlib.closing(raw(at)) as late:
            late.say(hello(at, "client", 0xDD))
            assert isinstance(late.hear(), Welcome)
        assert time.monotonic() - begin < 2


def test_no_descriptor_left(tmp_path: Path) -> None:
    """Strangers wait outside while there is no room; nothing spins, nothing ends, and afterwards they get in."""
    with ExitStack() as stack:
        running = Running(tmp_path)
        stack.callback(running.end)
        work = Workload(running)
        stack.callback(work.close)
        work.go_on()
        pid, at = running.process.pid, running.connection("client")
        used = len(os.listdir(f"/proc/{pid}/fd"))
        former = resource.prlimit(
            pid, resource.RLIMIT_NOFILE, (used + 5, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        )
        crowd = [stack.enter_context(contextlib.closing(raw(at))) for _ in range(50)]
        eventually(lambda: "nobody is let in" in running.text, 5, "the controller notices")
        ticks = running.cpu_ticks()
        work.go_on(20)
        time.sleep(1)
        assert running.cpu_ticks() - ticks < 50, "half a second of work in one second of waiting"
        for one in crowd:
            one.close()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, former)
        with contextlib.closing(raw(at)) as late:
            late.say(hello(at, "client", 0xDD))
            assert isinstance(late.hear(), Welcome)
        work.check()
        assert "Traceback" not in running.text


def _frame(frame: bytes) -> bytes:
    return len(frame).to_bytes(4, "little") + b"\0\0\0\0" + frame
