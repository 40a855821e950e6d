"""on_start: what runs on every engine that joins, before anything else of this client."""

from __future__ import annotations

import logging

import pytest

import ippmpi as ipp
from client.fakes import FakeHub, connected
from helpers import eventually

pytestmark = pytest.mark.filterwarnings("error")


def tasks_of(hub: FakeHub, engine: int) -> list[str]:
    return [submit.task for submit in hub.submits if engine in submit.targets]


def test_it_runs_on_those_who_are_there_and_on_those_who_join(rc: ipp.Client, hub: FakeHub) -> None:
    assert rc[:].on_start(pow, 2, 3).get(timeout=10) == [8] * 4
    hub.join(7)
    eventually(lambda: 7 in rc.ids)
    begun = list(tasks_of(hub, 7))
    assert len(begun) == 0  # rc[:] names the four that were there
    view = rc.direct_view("all")
    assert view.on_start(abs, -1).get(timeout=10) == [1] * 5
    hub.lose(7, "killed")
    eventually(lambda: 7 not in rc.ids)
    before = len(tasks_of(hub, 7))
    hub.join(7)
    eventually(lambda: 7 in rc.ids)
    assert rc[7].apply_sync(abs, -2) == 2
    first, second = tasks_of(hub, 7)[before:]
    assert int(first.rpartition("-")[2]) < int(second.rpartition("-")[2])


def test_a_view_of_one_engine_means_that_one(rc: ipp.Client, hub: FakeHub) -> None:
    assert rc[2].on_start(abs, -1).get(timeout=10) == 1
    for engine in (1, 2):
        hub.lose(engine, "killed")
        hub.join(engine)
    eventually(lambda: len(tasks_of(hub, 2)) == 2)
    assert tasks_of(hub, 1) == []


def test_without_engines_it_waits_for_them() -> None:
    with connected(0) as (rc, hub):
        assert rc.direct_view("all").on_start(abs, -1).get(timeout=10) == []
        hub.join(0)
        eventually(lambda: len(tasks_of(hub, 0)) == 1)


def test_it_can_be_forgotten(rc: ipp.Client, hub: FakeHub) -> None:
    rc.direct_view("all").on_start(abs, -1).get(timeout=10)
    rc.clear_on_start()
    hub.join(9)
    eventually(lambda: 9 in rc.ids)
    assert rc[9].apply_sync(abs, -1) == 1
    assert len(tasks_of(hub, 9)) == 1


def test_a_failure_on_an_engine_that_joined_is_logged(
    rc: ipp.Client, hub: FakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "ippmpi.client"):
        with pytest.raises(ipp.RemoteError):
            rc[0].on_start(int, "x").get(timeout=10)
        hub.lose(0, "killed")
        hub.join(0)
        eventually(lambda: len([r for r in caplog.records if "on_start failed on engine 0" in r.getMessage()]) == 2)
