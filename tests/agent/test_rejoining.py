"""A new agent in the place of one that died: nothing that the controller says is lost on absent ranks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from agent.fakes import Child, Node, Parcel, StartChild, Talk
from ippmpi.agent.lifetime import Lifetime
from ippmpi.agent.post import Post
from ippmpi.agent.ranks import Ranks
from ippmpi.agent.rejoining import REJOIN_S, Rejoining
from ippmpi.agent.traces import Traces
from ippmpi.wire.messages import Content, EngineRecord, Held, Output, RegisterEngines, Reply, Run


class Successor:
    """A new agent's parts, and the ranks that come back to it."""

    def __init__(self, node: Node, folder: Path) -> None:
        self.node, self.loop, self.controller = node, node.loop, node.controller
        lifetime = Lifetime(
            node.loop, node.members, node.controller, progress=node.contents.progress, leave=lambda: None
        )
        post = Post("w1", folder, "host", node.loop, node.controller, node.together)
        self.ranks = Ranks(post, node.members, node.outputs, Traces(node.loop), lifetime, lambda _: None)
        self.ranks.hold_registration()
        self.rejoining = Rejoining(node.loop, self.ranks.register_whole)
        self.talks: dict[int, Talk] = {}

    def hear(self, message: Run) -> Parcel:
        parcel = Parcel(self.controller, message)
        self.rejoining.hold(lambda: self.node.relay.on_run(parcel))
        return parcel

    def back(self, process: Child, rank: int, local_size: int = 2, **known: object) -> None:
        talk = self.talks[rank] = Talk(f"engine:{rank}")
        ready = msgspec.structs.replace(process.ready(rank, 2, local_size), engine=rank, **known)
        self.ranks.on_engine_ready(Parcel(talk, ready))
        self.rejoining.joined()

    def whole(self) -> list[RegisterEngines]:
        return [message for message in self.controller.of(RegisterEngines) if message.whole]


@pytest.fixture
def successor(node: Node, tmp_path: Path) -> Iterator[Successor]:
    successor = Successor(node, tmp_path)
    yield successor
    successor.ranks.close()


def test_what_the_controller_says_waits_until_all_ranks_are_back(successor: Successor, child: StartChild) -> None:
    run = successor.hear(Run("a", "apply", [0, 1], [Content(inline=b"x")]))
    first, second = child(), child()
    successor.back(first, 0)
    assert (run.dones, successor.talks[0].of(Run), successor.whole()) == (0, [], [])
    successor.back(second, 1)
    records = [EngineRecord(-1, r, "w1", "host", p.pid, 2) for r, p in ((0, first), (1, second))]
    assert successor.whole() == [RegisterEngines("w1", 2, records, whole=True)]
    for talk in successor.talks.values():
        assert [m.task for m in talk.of(Run)] == ["a"]
        talk.ack()
    assert run.dones == 1
    late = successor.hear(Run("b", "apply", [1], [Content(inline=b"x")]))
    successor.talks[1].ack()
    assert late.dones == 1


def test_ranks_that_do_not_come_back_are_not_waited_for_for_ever(successor: Successor, child: StartChild) -> None:
    run = successor.hear(Run("a", "apply", [0, 1], [Content(inline=b"x")]))
    process = child()
    successor.back(process, 0)
    successor.loop.advance(REJOIN_S + 0.1)
    assert [[e.rank for e in message.engines] for message in successor.whole()] == [[0]]
    assert [m.task for m in successor.talks[0].of(Run)] == ["a"]
    successor.talks[0].ack()
    assert run.dones == 1


def test_it_waits_on_as_long_as_nobody_is_back(successor: Successor, child: StartChild) -> None:
    run = successor.hear(Run("a", "apply", [0], [Content(inline=b"x")]))
    successor.loop.advance(3 * REJOIN_S)
    assert (run.dones, successor.whole()) == (0, [])
    successor.back(child(), 0, local_size=1)
    assert [m.task for m in successor.talks[0].of(Run)] == ["a"]


def test_output_belongs_to_the_task_that_runs_and_replies_are_passed_on_before_ids_come(
    successor: Successor, child: StartChild
) -> None:
    process = child()
    successor.back(process, 0, tasks={"b": 0}, finished={"a": 0})
    process.print("in between")
    successor.loop.until(lambda: successor.controller.of(Output))
    assert [(o.task, o.engine) for o in successor.controller.of(Output)] == [("b", 0)]
    successor.node.relay.on_reply(Parcel(successor.talks[0], Reply("b", 0, Content(inline=b"x"))))
    assert [reply.task for reply in successor.controller.of(Reply)] == ["b"]


def test_a_controller_that_was_restarted_too_hears_what_the_ranks_have(successor: Successor, child: StartChild) -> None:
    successor.back(child(), 0, 1, tasks={"a": 1}, finished={"b": 0})
    (whole,) = successor.whole()
    assert whole.tasks == [[Held("a", 1), Held("b", 1, absent=True)]]  # that may have been a failure, to be tried again


def test_a_controller_that_was_restored_hears_once_who_is_there_and_what_they_have(
    successor: Successor, child: StartChild
) -> None:
    successor.back(child(), 0, tasks={"a": 0})
    successor.ranks.register_again()  # the controller is a new one, too
    assert successor.controller.of(RegisterEngines) == []
    successor.back(child(), 1, tasks={"b": 2})
    (only,) = successor.controller.of(RegisterEngines)
    assert only.whole
    assert only.tasks == [[Held("a", 0)], [Held("b", 2)]]
