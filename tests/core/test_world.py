from __future__ import annotations

import pytest

from core.house import agent, records
from ippmpi.core.engine import Engine
from ippmpi.core.world import World, choose_base
from ippmpi.errors import ProtocolError
from ippmpi.ids import EngineId, WorldId
from ippmpi.wire.messages import EngineRecord, RegisterEngines


def world(name: str, size: int, *, base: int | None = None, ranks: int = 0, anew: int = 0) -> World:
    """Return a world whose first *ranks* have ids, if it has a *base*, and whose next *anew* have none yet."""
    made = World(WorldId(name), size)
    made.base = base
    made.engines = {r.rank: Engine(agent(), made.id, r, 10) for r in records(range(ranks + anew))}
    for rank in range(ranks if base is not None else 0):
        made.engines[rank].id = EngineId((base or 0) + rank)
    return made


def test_the_first_world_gets_base_0() -> None:
    assert choose_base(world("a", 4, ranks=4), []) == 0


def test_a_world_goes_into_the_lowest_gap_that_is_large_enough() -> None:
    others = [world("a", 2, base=0, ranks=2), world("b", 4, base=5, ranks=1), world("c", 1, base=12, ranks=1)]
    assert choose_base(world("x", 3, ranks=3), others) == 2
    assert choose_base(world("x", 4, ranks=4), others) == 13
    assert choose_base(world("x", 2, ranks=2), others) == 2


def test_a_partly_lost_world_keeps_all_its_ids_and_a_lost_one_none() -> None:
    assert choose_base(world("x", 1, ranks=1), [world("a", 4, base=0, ranks=1)]) == 4
    assert choose_base(world("x", 1, ranks=1), [world("a", 4, base=0)]) == 0


def test_a_world_gets_its_old_base_back_if_it_is_free() -> None:
    again = world("x", 4, base=7, anew=4)
    assert choose_base(again, [again, world("a", 4, base=0, ranks=4)]) == 7
    assert choose_base(again, [again, world("a", 4, base=9, ranks=4)]) == 0


def test_a_world_that_others_wait_to_complete_keeps_no_ids_and_one_with_an_id_keeps_its_base() -> None:
    waiting = world("a", 4, base=0, anew=3)
    assert choose_base(world("x", 2, anew=2), [waiting]) == 0
    partly = world("x", 2, base=0, ranks=1, anew=1)
    assert choose_base(partly, [partly, waiting]) == 0
    assert choose_base(waiting, [partly, waiting]) == 2


@pytest.mark.parametrize("ranks", [[0, 0], [4], [-1]])
def test_ranks_must_be_distinct_and_below_the_size(ranks: list[int]) -> None:
    with pytest.raises(ProtocolError, match="distinct ones below 4"):
        world("w", 4).check(RegisterEngines("w", 4, records(ranks)))


def test_nodes_of_one_world_must_agree_on_its_size() -> None:
    with pytest.raises(ProtocolError, match="has 4 ranks, a node says 5"):
        world("w", 4, ranks=1).check(RegisterEngines("w", 5, records([1])))
    world("w", 4).check(RegisterEngines("w", 5, records([1])))  # nobody is left of the old one


def test_another_process_cannot_take_a_live_rank() -> None:
    live = world("w", 4, ranks=1)
    live.check(RegisterEngines("w", 4, records([0])))
    with pytest.raises(ProtocolError, match="rank 0 is pid 100 on h1, a node says pid 9 on h1"):
        live.check(RegisterEngines("w", 4, [EngineRecord(-1, 0, "w", "h1", 9)]))
    with pytest.raises(ProtocolError, match="pid 100 on h2"):
        live.check(RegisterEngines("w", 4, records([0], host="h2")))
