"""A loop, a node and processes for the tests of the agent."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from agent.fakes import WORLD, Child, HandLoop, Node, StartChild
from ippmpi.identity import identify
from ippmpi.wire.messages import EngineReady


@pytest.fixture
def loop() -> Iterator[HandLoop]:
    loop = HandLoop()
    yield loop
    loop.close()


@pytest.fixture
def child() -> Iterator[StartChild]:
    children: list[Child] = []

    def start() -> Child:
        children.append(Child())
        return children[-1]

    yield start
    for one in children:
        one.close()


@pytest.fixture
def node(loop: HandLoop) -> Node:
    return Node(loop)


@pytest.fixture
def myself() -> EngineReady:
    """This process as a rank, with pipes that nobody writes to."""
    me = identify(os.getpid())
    return EngineReady(WORLD, 0, 1, 1, me.pid, me.host, me.started, 0, 0)
