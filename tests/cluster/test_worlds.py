"""Worlds that are started again from a client: ``rc.worlds[name].restart()``."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import NoReturn

import pytest

import ippmpi as ipp
from clusters import defined, running
from helpers import eventually
from ippmpi.client.worlds import WorldState

NAMES = defined("""
    def there(name):
        return name in globals()
""")


@pytest.mark.parametrize("engines", ["local", pytest.param("mpi", marks=pytest.mark.mpi)])
def test_a_world_starts_again_under_the_same_ids(tmp_path: Path, engines: str) -> None:
    with running(tmp_path, 2, engines) as (cluster, rc):
        cluster.start_engines_sync(1, engines="local")
        cluster.wait_for_engines_sync(rc, 3)
        assert [world.ids for world in rc.worlds.values()] == [[0, 1], [2]]
        world, other = rc.worlds["0"], rc.worlds["1"]
        before = rc[:].apply_sync(os.getpid)
        rc[:2].push({"a": 1}, block=True)
        assert rc[:2].apply_sync(NAMES.there, "a") == [True, True]
        world.restart(timeout=30)
        after = rc[:].apply_sync(os.getpid)
        assert not set(after[:2]) & set(before[:2])
        assert after[2] == before[2]
        assert (world.state, world.ids) == (WorldState.RUNNING, [0, 1])
        assert other.state is WorldState.RUNNING
        assert rc[:2].apply_sync(NAMES.there, "a") == [False, False]


def test_a_world_that_has_died_starts_again(tmp_path: Path) -> None:
    with running(tmp_path, 2, "local") as (_, rc):
        world, pids = rc.worlds["0"], rc[:].apply_sync(os.getpid)
        os.kill(pids[0], signal.SIGKILL)
        eventually(lambda: world.state is not WorldState.RUNNING)
        world.restart(timeout=30)
        assert world.state is WorldState.RUNNING
        assert rc.ids == [0, 1]
        assert not set(rc[:].apply_sync(os.getpid)) & set(pids)


def test_a_world_that_was_stopped_cannot_be_started_again(tmp_path: Path) -> None:
    with running(tmp_path, 1, "local") as (cluster, rc):
        world = rc.worlds["0"]
        cluster.stop_engines_sync()
        eventually(lambda: world.state is WorldState.ENDED)
        with pytest.raises(ipp.ClusterError, match=rf"has not started world '{world.name}', or has stopped it; it has"):
            world.restart()


def test_a_start_that_fails_again_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> NoReturn:
        raise ipp.LaunchError("no more ranks today")

    with running(tmp_path, 1, "local") as (cluster, rc):
        monkeypatch.setattr(type(cluster.engines["0"]), "start", fail)
        with pytest.raises(ipp.LaunchError, match="no more ranks today"):
            rc.worlds["0"].restart()


def test_another_process_starts_a_world_again_by_the_cluster_file(tmp_path: Path) -> None:
    with running(tmp_path, 1, "local") as (_, rc):
        pid = rc[0].apply_sync(os.getpid)
        there = ipp.Cluster.from_file(profile_dir=tmp_path)
        with there.connect_client_sync() as visitor:
            visitor.worlds["0"].restart(timeout=30)
        eventually(lambda: rc.ids == [0] and rc[0].apply_sync(os.getpid) != pid)
        there.detach()
