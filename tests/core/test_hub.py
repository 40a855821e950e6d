from __future__ import annotations

import pytest

from core.house import ALICE, BOB, INLINE, House, agent, small_house
from ippmpi.core.hub import SENDERS, Hub
from ippmpi.errors import ProtocolError
from ippmpi.ids import Peer
from ippmpi.wire.messages import Content, Farewell, Output, Query, RegisterEngines, Reply, Submit

SPOOLED = Content(size=9, transfer=7)


def test_every_message_to_the_hub_has_a_handler() -> None:
    to_hub = {kind.__struct_config__.tag for kind, roles in SENDERS.items() if roles}
    assert {f"on_{tag}" for tag in to_hub} == {name for name in vars(Hub) if name.startswith("on_")}
    assert SENDERS[Submit] == {"client"}
    assert SENDERS[Reply] == SENDERS[Output] == {"agent"}


@pytest.mark.parametrize(
    ("peer", "message"),
    [
        (agent(), Submit("a-1", "apply", [0], [SPOOLED])),
        (agent(), Query(1, "status")),
        (ALICE, Reply("a-1", 0, SPOOLED)),
        (ALICE, RegisterEngines("w", 1, [])),
        (Peer("stranger"), Query(1, "status")),
    ],
)
def test_a_message_from_the_wrong_role_is_refused_before_it_has_an_effect(peer: Peer, message: object) -> None:
    house = small_house(1)
    effects = []
    with pytest.raises(ProtocolError, match=f"{peer} may not send {type(message).__name__}"):
        effects.extend(house.hub.handle(peer, message))
    assert effects == []


def test_a_peer_that_is_not_connected_is_refused() -> None:
    house = small_house(1)
    with pytest.raises(ProtocolError, match="client:bob has not connected"):
        house.submit(peer=BOB)
    house.handle(ALICE, Farewell())
    with pytest.raises(ProtocolError, match="or is gone"):
        house.submit()


def test_a_submit_that_comes_twice_runs_once() -> None:
    house = small_house(1)
    house.submit([0], name="a-1")
    house.submit([0], name="a-1", contents=[SPOOLED])
    assert house.released() == [7]
    assert house.runs() == house.kept() == []
    house.reply("a-1", 0)
    house.submit([0], name="a-1")
    assert house.last == []


def test_a_client_cannot_take_the_id_of_a_task_of_another() -> None:
    house = small_house(1)
    house.client(BOB)
    house.submit([0], name="a-1")
    effects = []
    with pytest.raises(ProtocolError, match="a task of client:alice"):
        effects.extend(house.hub.handle(BOB, Submit("a-1", "apply", [0], [SPOOLED, INLINE])))
    assert effects == []


def test_a_farewell_forgets_the_client_and_what_is_remembered_of_its_tasks() -> None:
    house = small_house(1)
    house.client(BOB)
    for peer in (ALICE, BOB):
        house.reply(house.submit([0], peer=peer), 0)
    house.handle(ALICE, Farewell())
    ledger = house.hub.ledger
    assert list(ledger.clients) == [BOB]
    assert [record.owner for record in ledger.ended.values()] == [BOB]


def test_a_hub_without_anybody_waits_for_nothing() -> None:
    house = House()
    assert house.hub.next_deadline() is None
    assert house.tick(1.0) == []
