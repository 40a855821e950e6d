"""Ranks join, get ids and signals, stop, are lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from agent.fakes import Child, Node, Parcel, StartChild, Talk
from ippmpi.agent.lifetime import FIRST_S, STARTER_GONE_S, STARTER_LOOK_S, STRAGGLERS_S, TELL_S, Lifetime
from ippmpi.agent.post import Post
from ippmpi.agent.ranks import Ranks
from ippmpi.agent.registration import PATIENCE_S
from ippmpi.agent.stopping import GRACE_S, TERM_GRACE_S
from ippmpi.agent.traces import Traces
from ippmpi.errors import ProtocolError
from ippmpi.wire.marks import mark
from ippmpi.wire.messages import (
    Assigned,
    Content,
    Deliver,
    EngineLost,
    EngineRecord,
    Held,
    Output,
    Registered,
    RegisterEngines,
    Run,
    StopEngine,
    StopEngines,
)


class Staff:
    """Ranks and all that they need."""

    def __init__(self, node: Node, folder: Path) -> None:
        self.node = node
        self.controller, self.members, self.loop, self.folder = node.controller, node.members, node.loop, folder
        self.left, self.forgotten = [], []
        self.lifetime = Lifetime(
            node.loop,
            node.members,
            node.controller,
            progress=node.contents.progress,
            leave=lambda: self.left.append(self.loop.now),
        )
        post = Post("w1", folder, "host", node.loop, node.controller, node.together)
        self.ranks = Ranks(post, node.members, node.outputs, Traces(node.loop), self.lifetime, self.forgotten.append)

    def join(
        self,
        process: Child,
        rank: int = 0,
        size: int = 1,
        local_size: int = 1,
        *,
        name: str = "",
        records: bool = False,
    ) -> Parcel:
        ready = Parcel(Talk(name or f"engine:{rank}"), process.ready(rank, size, local_size, records))
        self.ranks.on_engine_ready(ready)
        return ready

    def number(self, base: int = 0) -> Parcel:
        registered = Parcel(self.controller, Registered("w1", base))
        self.ranks.on_registered(registered)
        return registered


@pytest.fixture
def staff(node: Node, tmp_path: Path) -> Iterator[Staff]:
    staff = Staff(node, tmp_path)
    yield staff
    staff.ranks.close()


def test_all_ranks_of_a_node_register_in_one_message_and_are_done_when_the_controller_knows_them(
    staff: Staff, child: StartChild
) -> None:
    processes = [child(), child()]
    parcels = [staff.join(process, rank, 8, 2) for rank, process in zip((4, 5), processes, strict=True)]
    records = [EngineRecord(-1, r, "w1", "host", p.pid, 8) for r, p in zip((4, 5), processes, strict=True)]
    assert staff.controller.sent == [RegisterEngines("w1", 8, records)]
    assert [p.dones for p in parcels] == [0, 0]
    staff.controller.ack()
    assert [p.dones for p in parcels] == [1, 1]


def test_ranks_do_not_wait_for_the_rest_of_their_node_for_ever(staff: Staff, child: StartChild) -> None:
    staff.join(child(), 0, 3, 3)
    staff.loop.advance(PATIENCE_S * 0.9)
    staff.join(child(), 1, 3, 3)
    staff.loop.advance(PATIENCE_S * 0.9)
    assert staff.controller.sent == []
    staff.loop.advance(PATIENCE_S)
    staff.join(child(), 2, 3, 3)
    assert [[e.rank for e in message.engines] for message in staff.controller.sent] == [[0, 1], [2]]


def test_a_new_controller_is_told_of_those_who_were_known_first_of_all(staff: Staff, child: StartChild) -> None:
    staff.join(child(), 0, 2, 2)
    staff.join(child(), 1, 2, 2)
    staff.ranks.register_again()
    assert len(staff.controller.sent) == 1  # still under way: the session sends it again
    staff.controller.ack()
    staff.ranks.register_again()
    (again,) = staff.controller.urgent
    assert again == msgspec.structs.replace(staff.controller.sent[0], tasks=[[], []])


def test_a_new_controller_is_told_what_engines_have(staff: Staff, child: StartChild) -> None:
    for rank in range(2):
        staff.join(child(), rank, 2, 2)
    staff.controller.ack()
    first, second = staff.members
    for task in ("a-1", "a-2", "a-3"):
        first.begin(task)
    first.finish("a-1")
    first.replied["a-1"] = 0
    first.awaiting.add("a-3")
    second.begin("a-2")
    staff.ranks.register_again()
    assert staff.controller.urgent[-1].tasks == [
        [Held("a-1"), Held("a-2"), Held("a-3", 0, True)],
        [Held("a-2")],
    ]


def test_a_new_controller_is_told_what_those_had_of_whose_loss_the_old_one_had_not_heard(
    staff: Staff, child: StartChild
) -> None:
    process = child()
    staff.join(process)
    staff.number()
    staff.controller.ack()
    (engine,) = staff.members
    engine.begin("a-1")
    process.process.kill()
    staff.loop.until(lambda: staff.controller.of(EngineLost))
    staff.ranks.register_again()
    (again,) = staff.controller.urgent
    assert [(record.rank, record.pid) for record in again.engines] == [(0, process.pid)]
    assert again.tasks == [[Held("a-1")]]
    staff.controller.ack()
    staff.ranks.register_again()
    assert staff.controller.urgent == [again]


def test_every_rank_gets_base_plus_rank(staff: Staff, child: StartChild) -> None:
    parcels = [staff.join(child(), rank, 2, 2) for rank in range(2)]
    registered = staff.number(base=10)
    assert [p.peer.sent for p in parcels] == [[Assigned(10)], [Assigned(11)]]
    parcels[0].peer.ack()
    assert registered.dones == 0
    parcels[1].peer.ack()
    assert registered.dones == 1
    with pytest.raises(ProtocolError, match="'other'"):
        staff.ranks.on_registered(Parcel(staff.controller, Registered("other", 0)))


def test_ids_of_an_earlier_process_are_not_given_to_one_that_has_its_rank(staff: Staff, child: StartChild) -> None:
    """What was said to an agent that died is said again to the next one, whose ranks may be others."""
    process = child()
    parcel = staff.join(process)
    stale = Parcel(staff.controller, Registered("w1", 0, [process.pid + 1]))
    staff.ranks.on_registered(stale)
    assert (parcel.peer.sent, stale.dones) == ([], 1)
    staff.ranks.on_registered(Parcel(staff.controller, Registered("w1", 0, [process.pid])))
    assert parcel.peer.sent == [Assigned(0)]


def test_a_rank_with_a_new_session_goes_on_as_the_same_one(staff: Staff, child: StartChild) -> None:
    process = child()
    staff.join(process)
    staff.controller.ack()
    staff.number()
    again = staff.join(process, name="engine:0")
    assert again.peer.sent == [Assigned(0)]
    assert again.dones == 1
    assert len(staff.members) == 1


def test_impossible_ranks_are_refused(staff: Staff, child: StartChild) -> None:
    staff.join(child())
    with pytest.raises(ProtocolError, match="lives"):
        staff.join(child())
    with pytest.raises(ProtocolError, match="rank 3 of 2"):
        staff.join(child(), 3, 2)
    with pytest.raises(ProtocolError, match="engine:7 says it is rank 1"):
        staff.join(child(), 1, 2, name="engine:7")
    assert len(staff.members) == 1


def test_signals_are_delivered_at_once(staff: Staff, child: StartChild) -> None:
    process = child()
    staff.join(process)
    staff.number()
    with pytest.raises(ProtocolError, match="no signal 99"):
        staff.ranks.on_deliver(Parcel(staff.controller, Deliver([0], 99)))
    deliver = Parcel(staff.controller, Deliver([0, 7], signal.SIGTERM))
    staff.ranks.on_deliver(deliver)
    assert process.process.wait(5) == -signal.SIGTERM
    assert deliver.dones == 1


def test_a_loss_is_told_with_cause_and_last_words_and_ends_all_waiting(staff: Staff, child: StartChild) -> None:
    process = child()
    staff.join(process, records=True)
    staff.number()
    run = Parcel(staff.controller, Run("t", "apply", [0], [Content(b"x")]))
    staff.node.relay.on_run(run)
    process.print("goodbye")
    (staff.folder / f"host.{process.pid}.exit").write_text("signal 11\n")
    process.close()
    staff.loop.until(lambda: staff.controller.of(EngineLost), 1.9)
    assert staff.controller.sent[-2:] == [
        Output("t", 0, "stdout", b"goodbye"),
        EngineLost("w1", 0, "segmentation fault (SIGSEGV)", signal=11, output="goodbye"),
    ]
    assert (run.dones, staff.forgotten, len(staff.members)) == (1, ["engine:0"], 0)


def test_a_rank_that_dies_before_its_node_was_complete_is_registered_first(staff: Staff, child: StartChild) -> None:
    process = child()
    ready = staff.join(process, 0, 4, 4)
    process.close()
    staff.loop.until(lambda: staff.controller.of(EngineLost), 1.9)
    assert [type(message) for message in staff.controller.sent] == [RegisterEngines, EngineLost]
    staff.controller.ack()
    assert ready.dones == 1


def test_the_agent_leaves_when_its_ranks_are_gone_and_the_controller_knows(staff: Staff, child: StartChild) -> None:
    process = child()
    staff.join(process)
    process.close()
    staff.loop.until(lambda: staff.controller.of(EngineLost))
    assert not staff.left
    staff.controller.ack()
    staff.loop.advance(0.1)
    assert staff.left


def test_it_leaves_without_an_acknowledgement_after_a_while(staff: Staff, child: StartChild) -> None:
    process = child()
    staff.join(process)
    process.close()
    staff.loop.until(lambda: staff.controller.of(EngineLost))
    staff.controller.backlog = 10  # something still moves
    staff.loop.advance(TELL_S * 0.9)
    staff.controller.backlog = 5
    staff.loop.advance(TELL_S * 0.9)
    assert not staff.left
    staff.loop.advance(TELL_S * 0.3)
    assert staff.left


def test_ranks_that_never_joined_are_waited_for_a_while(staff: Staff, child: StartChild) -> None:
    process = child()
    staff.join(process, 0, 2, 2)
    process.close()
    staff.loop.until(lambda: staff.controller.of(EngineLost))
    staff.controller.ack()
    staff.loop.advance(STRAGGLERS_S * 0.9)
    assert not staff.left
    staff.loop.advance(STRAGGLERS_S * 0.2)
    assert staff.left


def test_an_agent_waits_for_its_first_rank_as_long_as_its_starter_lives(staff: Staff, child: StartChild) -> None:
    staff.lifetime.await_first(lambda: True)
    staff.loop.advance(1000)
    assert not staff.left
    staff.join(child())
    assert staff.loop.timers == 0


@pytest.mark.parametrize(("lives", "wait_s"), [(False, STARTER_GONE_S), (None, FIRST_S)])
def test_an_agent_that_nobody_joins_leaves(staff: Staff, lives: bool | None, wait_s: float) -> None:
    staff.lifetime.await_first(lambda: lives)
    staff.loop.advance(wait_s * 0.9)
    assert not staff.left
    staff.loop.advance(STARTER_LOOK_S * 2)
    assert staff.left


def test_a_stop_is_expected_and_late_ranks_are_stopped_too(staff: Staff, child: StartChild) -> None:
    processes = [child(), child()]
    first = staff.join(processes[0], 0, 2, 2)
    stop = Parcel(staff.controller, StopEngines())
    staff.ranks.on_stop_engines(stop)
    late = staff.join(processes[1], 1, 2, 2)
    assert first.peer.sent == late.peer.sent == [StopEngine()]
    first.peer.ack()
    assert stop.dones == 1
    for process in processes:
        process.close()
    staff.loop.until(lambda: len(staff.controller.of(EngineLost)) == 2)
    assert [(lost.expected, lost.cause) for lost in staff.controller.of(EngineLost)] == [(True, "stopped")] * 2
    staff.controller.ack()
    staff.loop.advance(0.1)
    assert len(staff.left) == 1


def test_some_engines_are_stopped_and_the_others_stay(staff: Staff, child: StartChild) -> None:
    parcels = [staff.join(child(), rank, 2, 2) for rank in range(2)]
    staff.number()
    staff.ranks.on_stop_engines(Parcel(staff.controller, StopEngines([1])))
    assert [p.peer.of(StopEngine) for p in parcels] == [[], [StopEngine()]]
    assert not staff.lifetime.closing


def test_engines_that_do_not_stop_get_sigterm_and_then_sigkill(staff: Staff, child: StartChild) -> None:
    process = child()
    process.do("import signal; signal.signal(signal.SIGTERM, lambda *_: os.write(err[1], b'no'))")
    staff.join(process)
    staff.number()
    staff.ranks.stop_all()
    staff.ranks.stop_all()
    staff.loop.advance(GRACE_S + 0.1)
    staff.loop.until(lambda: staff.controller.of(Output))
    assert process.process.poll() is None
    staff.loop.advance(TERM_GRACE_S)
    assert process.process.wait(5) == -signal.SIGKILL


def test_a_stop_without_ranks_leaves_at_once_and_one_that_cannot_end_is_given_up(
    staff: Staff, child: StartChild
) -> None:
    staff.join(child())
    staff.ranks.stop_all()
    process_lives = staff.loop.now
    staff.loop.advance(1000)
    assert staff.left
    assert staff.left[0] > process_lives + GRACE_S + TERM_GRACE_S


def test_registration_does_not_open_descriptors_for_ever(staff: Staff, child: StartChild) -> None:
    before = len(os.listdir("/proc/self/fd"))
    process = child()
    staff.join(process)
    process.close()
    staff.loop.until(lambda: staff.controller.of(EngineLost))
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_a_dead_rank_had_not_begun_is_told(staff: Staff, child: StartChild) -> None:
    process = child()
    staff.join(process, 0, 1, 1)
    staff.number()
    for task in ("a-1", "a-2", "a-3", "a-4"):
        staff.node.relay.on_run(Parcel(staff.controller, Run(task, "apply", [0], [Content(b"x")])))
    process.print(mark("a-2", "a-1").decode(), "err")
    process.process.kill()
    staff.loop.until(lambda: staff.controller.of(EngineLost))
    assert staff.controller.of(EngineLost)[0].untouched == ["a-3", "a-4"]


@pytest.mark.parametrize(("begun", "untouched"), [("", ["b", "c"]), ("a", ["b", "c"]), ("c", []), ("gone", ["b", "c"])])
def test_the_first_task_may_have_begun_without_a_mark(
    node: Node, child: StartChild, begun: str, untouched: list[str]
) -> None:
    engine = node.join(child())
    for task in ("a", "b", "c"):
        engine.begin(task)
    assert engine.untouched(begun) == untouched
