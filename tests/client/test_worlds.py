"""What a client knows of worlds; how one is started again is tested with a real cluster, in tests/cluster."""

from __future__ import annotations

import pytest

import ippmpi as ipp
from ippmpi.client.engines import MAX_WORLDS, Engines
from ippmpi.client.worlds import Worlds, WorldState
from ippmpi.wire.messages import EngineRecord, EnginesChanged


def rank(rank: int, world: str = "0-abcd", *, base: int = 0, host: str = "c1", size: int = 2) -> EngineRecord:
    return EngineRecord(base + rank, rank, world, host, 100 * base + rank + 1, size)


def told(*joined: EngineRecord) -> Engines:
    engines = Engines()
    engines.change(EnginesChanged(list(joined), [], []), whole=True)
    return engines


def test_a_world_has_a_name_a_size_ids_hosts_and_a_state() -> None:
    worlds = Worlds(told(rank(1, "1-ef01", base=3), rank(0, "1-ef01", base=3, host="c2"), rank(0), rank(1)), None)
    assert list(worlds) == ["1-ef01", "0-abcd"]
    world = worlds["1-ef01"]
    assert (world.name, world.size, world.ids, world.hosts) == ("1-ef01", 2, [3, 4], ["c2", "c1"])
    assert world.state is WorldState.RUNNING
    assert repr(world) == "<World '1-ef01': running, engines 3-4 on c2, c1>"
    assert repr(worlds["0-abcd"]) in repr(worlds)


def test_the_id_of_an_engine_set_names_its_world() -> None:
    worlds = Worlds(told(rank(0), rank(1), rank(0, "single-7", base=2, size=1)), None)
    assert worlds["0"].name == "0-abcd"
    assert "0" in worlds
    with pytest.raises(KeyError, match="no world '1'; have 0-abcd, single-7"):
        worlds["1"]


def test_a_world_that_has_ended_is_still_known() -> None:
    engines = told(rank(0), rank(1))
    world = Worlds(engines, None)["0"]
    engines.change(EnginesChanged([], [1], ["killed"]), whole=False)
    assert world.state is WorldState.BROKEN
    engines.change(EnginesChanged([], [0], ["killed"]), whole=False)
    assert world.state is WorldState.ENDED
    assert (world.size, world.ids, world.hosts) == (2, [0, 1], ["c1"])
    assert list(Worlds(engines, None)) == ["0-abcd"]
    engines.change(EnginesChanged([rank(0, "0-1234", host="c3"), rank(1, "0-1234", host="c3")], [], []), whole=False)
    assert Worlds(engines, None)["0"].hosts == ["c3"]


def test_worlds_that_have_ended_are_forgotten_in_time() -> None:
    engines = told(rank(0), rank(1))
    for n in range(MAX_WORLDS + 10):
        engines.change(EnginesChanged([rank(0, f"{n}-x", base=9, size=1)], [], []), whole=False)
    assert len(engines.worlds) == MAX_WORLDS
    assert Worlds(engines, None)["0-abcd"].state is WorldState.RUNNING


def test_without_its_cluster_a_client_cannot_start_a_world_again(rc: ipp.Client) -> None:
    with pytest.raises(ipp.ClusterError, match=r"was not made by the Cluster that did: .*Cluster\.from_file"):
        rc.worlds["world"].restart()
