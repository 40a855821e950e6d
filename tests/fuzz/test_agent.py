"""An agent between an honest rank and others who say all kinds of wrong things."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.fakes import WORLD, Child
from agent.test_process import Controller, Rank
from fuzz.wrong import Noise, carried, framed, records_for, strategy_for
from helpers import eventually
from ippmpi.connection import host_prefix, node_folder_path
from ippmpi.wire.frames import encode_link
from ippmpi.wire.messages import (
    Assigned,
    Batch,
    Content,
    LinkRecord,
    Query,
    Registered,
    RegisterEngines,
    Reply,
    Run,
    Welcome,
)
from net.raw import Raw, a_hello

MORE = int(os.environ.get("IPPMPI_FUZZ", "1"))


class Node:
    """An agent in a process, a controller in this one, and a rank whose answers are checked."""

    def __init__(self, folder: Path) -> None:
        self.controller = Controller(folder)
        self.log = folder / "agent.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-W", "error", "-m", "ippmpi.agent"),
                    *("--file", str(self.controller.file), "--world", WORLD),
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        self.path = str(node_folder_path(self.controller.connection.folder_key) / f"{host_prefix()}.agent")
        eventually(lambda: os.path.exists(self.path), what="the agent")
        self.child = Child()
        where = node_folder_path(self.controller.connection.folder_key)
        self.rank = Rank(self.child, where, 0, key=self.controller.connection.public)
        self.controller.wait(RegisterEngines)
        self.controller.send(Registered(WORLD, 0))
        self.rank.wait(Assigned)
        self._numbers = itertools.count(1)

    def works(self) -> None:
        task = f"good-{next(self._numbers)}"
        data = os.urandom(20)
        self.controller.send(Run(task, "apply", [0], [Content(data, 20)]))
        eventually(
            lambda: [
                m for m in self.rank.got if isinstance(m, Run) and m.task == task and m.contents[0].inline == data
            ],
            what="the request",
        )
        self.rank.send(Reply(task, 0, Content(data, 20)))
        found = eventually(lambda: [m for m in self.controller.of(Reply) if m.task == task], what="the reply")
        assert [m.content.inline for m in found] == [data]
        assert self.process.poll() is None, self.log.read_text()

    def kb(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])

    def close(self) -> None:
        self.rank.end()
        self.process.wait(20)
        self.controller.close()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    node = Node(tmp_path_factory.mktemp("agent"))
    yield node
    node.close()


@pytest.fixture(autouse=True)
def unharmed(node: Node) -> Iterator[None]:
    node.works()
    kb, before = node.kb(), len(node.controller.got)
    yield
    node.works()
    assert node.kb() - kb < 50 * 1024
    assert all(m.task.startswith("good-") for m in node.controller.got[before:] if isinstance(m, Reply))
    text = node.log.read_text()
    assert len(text) < 400_000
    assert "Traceback" not in text, text[text.index("Traceback") - 500 :][:5000]


def hello(node: Node, **other: object) -> bytes:
    return encode_link(a_hello("engine:1", "engine", key=node.controller.connection.public, **other))


def test_noise(node: Node) -> None:
    for seed in range(200 * MORE):
        noise = Noise(seed)
        good = [hello(node), carried(Query(1, "status")), carried(Reply("x", 0, Content()))]
        with contextlib.closing(Raw(node.path)) as peer, contextlib.suppress(OSError):
            if seed % 2:
                peer.send(framed(good[0]))
            peer.send(noise.stream(good))


def test_messages_with_right_types_and_wrong_values(node: Node) -> None:
    peer = Raw(node.path)
    peer.send(framed(hello(node)))
    assert isinstance(peer.hear(), Welcome)
    numbers = itertools.count(1)
    sent = []

    @settings(
        max_examples=300 * MORE, deadline=None, database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )  # fmt: skip
    @given(records_for(strategy_for(["good-1"], [WORLD, "bad"])), st.booleans())
    def run(said: tuple[LinkRecord, bytes], honest_number: bool) -> None:
        record, data = said
        if honest_number and isinstance(record, Batch) and record.messages:
            record = Batch(next(numbers), 0, 0, record.messages[:1])
        sent.append(record)
        peer.say(record, data)

    run()
    assert len(sent) >= 200 * MORE
    peer.close()
