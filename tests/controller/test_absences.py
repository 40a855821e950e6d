from __future__ import annotations

import pytest

from controller.fakes import FakeLoop
from ippmpi.controller.absences import AGENT_RETURNS_S, Absences, Patience


@pytest.fixture
def loop() -> FakeLoop:
    return FakeLoop()


@pytest.fixture
def gone() -> list[str]:
    return []


@pytest.fixture
def absences(loop: FakeLoop, gone: list[str]) -> Absences:
    return Absences(
        loop,
        Patience(agent_s=12.0),
        on_upload_lost=lambda name, _: gone.append(f"upload of {name}"),
        on_gone=lambda name, _: gone.append(name),
    )


def oversleep(loop: FakeLoop, seconds: float) -> None:
    """Let time pass in which this process does nothing, as when it is stopped."""
    loop.now += seconds
    loop.pass_time(0.0)


def test_an_agent_that_stays_away_is_given_up(loop: FakeLoop, absences: Absences, gone: list[str]) -> None:
    absences.left("a", "agent")
    loop.pass_time(11.9)
    assert gone == []
    loop.pass_time(0.2)
    assert gone == ["a"]


def test_time_in_which_the_controller_was_stopped_does_not_count(
    loop: FakeLoop, absences: Absences, gone: list[str]
) -> None:
    absences.left("a", "agent")
    loop.pass_time(1.0)
    oversleep(loop, 600.0)
    assert gone == []
    loop.pass_time(AGENT_RETURNS_S - 0.1)
    assert gone == []
    loop.pass_time(0.2)
    assert gone == ["a"]


def test_an_agent_that_returns_after_the_controller_was_stopped_is_not_given_up(
    loop: FakeLoop, absences: Absences, gone: list[str]
) -> None:
    absences.left("a", "agent")
    oversleep(loop, 600.0)
    absences.back("a")
    loop.pass_time(100.0)
    assert gone == []
