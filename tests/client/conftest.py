from __future__ import annotations

from collections.abc import Iterator

import pytest

from client.fakes import FakeHub, connected
from ippmpi.client.client import Client

Pair = tuple[Client, FakeHub]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A client and a hub whose four engines work."""
    with connected() as pair:
        yield pair


@pytest.fixture
def rc(pair: Pair) -> Client:
    return pair[0]


@pytest.fixture
def hub(pair: Pair) -> FakeHub:
    return pair[1]


@pytest.fixture
def manual() -> Iterator[Pair]:
    """A client and a hub that says what the test says."""
    with connected(automatic=False) as pair:
        yield pair
