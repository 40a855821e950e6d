"""What engines print, through real pipes."""

from __future__ import annotations

import msgspec
import pytest

from agent.fakes import Child, HandLoop, Node, Parcel, StartChild, Talk
from ippmpi.agent import output as output_module
from ippmpi.agent.members import UNASSIGNED, LocalEngine
from ippmpi.wire.marks import mark
from ippmpi.wire.messages import Content, Output, Run


@pytest.fixture
def process(child: StartChild) -> Child:
    return child()


@pytest.fixture
def engine(node: Node, process: Child) -> LocalEngine:
    return node.join(process)


def text(node: Node, stream: str = "stdout") -> bytes:
    return b"".join(message.text for message in node.controller.of(Output) if message.stream == stream)


def test_output_leaves_while_the_code_runs(node: Node, loop: HandLoop, engine: LocalEngine, process: Child) -> None:
    engine.begin("t")
    process.print("now")
    loop.poll()
    assert node.controller.sent == [Output("t", 0, "stdout", b"now")]


@pytest.mark.usefixtures("engine")
def test_many_small_writes_become_few_messages(node: Node, loop: HandLoop, process: Child) -> None:
    process.tell("for n in range(2000): os.write(out[1], b'0123456789')")
    loop.until(lambda: len(text(node)) == 20_000)
    assert text(node) == b"0123456789" * 2000
    assert len(node.controller.sent) < 500


@pytest.mark.usefixtures("engine")
def test_large_output_comes_whole_in_bounded_chunks(node: Node, loop: HandLoop, process: Child) -> None:
    process.tell("os.write(err[1], b'x' * 3_000_000)")
    loop.until(lambda: len(text(node, "stderr")) == 3_000_000)
    assert max(len(message.text) for message in node.controller.sent) <= output_module.CHUNK


@pytest.mark.usefixtures("engine")
def test_a_silent_engine_costs_no_timer(loop: HandLoop, process: Child) -> None:
    process.print("a")
    loop.poll()
    assert loop.readers == 1  # stdout rests
    loop.advance(1)
    assert (loop.readers, loop.timers) == (2, 0)


def test_an_engine_has_to_wait_while_the_controller_is_behind(
    node: Node, loop: HandLoop, engine: LocalEngine, process: Child
) -> None:
    node.controller.backlog = output_module.BACKLOG_LIMIT + 1
    process.tell("os.write(out[1], b'x' * 1_000_000)")
    loop.until(lambda: loop.readers == 1)
    loop.advance(1)
    held = len(text(node))
    assert held < 1_000_000
    # a reply comes: what is in the pipe now must leave before it
    loop.until(lambda: node.outputs.drain(engine) or len(text(node)) > held)
    assert len(text(node)) < 1_000_000
    node.controller.backlog = output_module.BACKLOG_LIMIT // 2
    loop.until(lambda: len(text(node)) == 1_000_000)


def test_draining_ends_though_the_writer_never_stops(node: Node, engine: LocalEngine, process: Child) -> None:
    process.tell("while True: os.write(out[1], b'x' * 4096)")
    node.outputs.drain(engine)
    node.outputs.drain(engine)


def test_early_output_waits_for_the_id(node: Node, loop: HandLoop, engine: LocalEngine, process: Child) -> None:
    engine.id = UNASSIGNED
    process.print("early")
    loop.poll()
    assert node.controller.sent == []
    engine.id = 5
    node.outputs.assigned(engine)
    assert node.controller.sent == [Output("", 5, "stdout", b"early")]


def test_the_last_words_are_kept_and_what_is_left_in_the_pipes_is_passed_on(
    node: Node, loop: HandLoop, engine: LocalEngine, process: Child
) -> None:
    process.print("x" * 5000)
    process.print("last é", "err")
    process.close()
    words, _ = node.outputs.close(engine)
    assert words.endswith("last é")
    assert len(words.encode()) == output_module.LAST_WORDS
    assert (text(node), text(node, "stderr")) == (b"x" * 5000, "last é".encode())
    assert loop.readers == 0


@pytest.mark.usefixtures("engine")
def test_the_end_of_a_stream_stops_the_reading(loop: HandLoop, process: Child) -> None:
    process.close()
    loop.poll()
    assert loop.readers == 0


def test_pipes_that_cannot_be_opened_are_logged(
    node: Node, child: StartChild, caplog: pytest.LogCaptureFixture
) -> None:
    process = child()
    process.stdout_fd, process.stderr_fd = 999, 50
    process.do("os.dup2(os.open('/dev/null', 0), 50)")
    node.outputs.close(node.join(process))
    assert "no stdout of" in caplog.text
    assert "is no pipe" in caplog.text


def test_output_belongs_to_the_task_that_the_engine_says_whatever_has_replied(
    node: Node, loop: HandLoop, engine: LocalEngine, process: Child
) -> None:
    engine.begin("c-1")
    engine.begin("d-1")
    process.tell(f"os.write(out[1], {mark('c-1') + b'one' + mark('d-1') + b'two'!r})")
    loop.until(lambda: text(node) == b"onetwo")
    assert [(o.task, o.text) for o in node.controller.sent] == [("c-1", b"one"), ("d-1", b"two")]
    assert node.outputs.close(engine) == ("onetwo", "d-1")


def test_what_a_task_prints_without_a_mark_is_its_own_also_after_one_that_had_one(
    node: Node, loop: HandLoop, engine: LocalEngine, process: Child
) -> None:
    engine.begin("c-1")
    process.print((mark("c-1") + b"one").decode())
    node.outputs.replied(engine, "c-1")
    engine.finish("c-1")
    engine.begin("d-1")
    process.print("two")
    loop.until(lambda: text(node) == b"onetwo")
    assert [(o.task, o.text) for o in node.controller.sent] == [("c-1", b"one"), ("d-1", b"two")]


def test_the_mark_of_the_next_task_outlives_the_reply_of_the_one_before(
    node: Node, loop: HandLoop, engine: LocalEngine, process: Child
) -> None:
    engine.begin("c-1")
    engine.begin("d-1")
    process.print((mark("c-1") + b"one" + mark("d-1") + b"two").decode())
    node.outputs.replied(engine, "c-1")
    process.print("more")
    loop.until(lambda: text(node) == b"onetwomore")
    assert [(o.task, o.text) for o in node.controller.sent] == [("c-1", b"one"), ("d-1", b"two"), ("d-1", b"more")]


def test_a_new_agent_learns_whose_the_output_is_that_it_finds(node: Node, loop: HandLoop, process: Child) -> None:
    process.print((b"end of one" + mark("d-1", "c-1") + b"two").decode())
    ready = msgspec.structs.replace(process.ready(), tasks={"d-1": 0}, printing="d-1")
    engine = LocalEngine(ready, Talk("engine:0"), 0)
    engine.resume(ready)
    node.members.add(engine)
    node.outputs.open(engine)
    process.print("three", "err")
    loop.until(lambda: text(node) == b"end of onetwo" and text(node, "stderr") == b"three")
    found = {(o.stream, o.task): o.text for o in node.controller.of(Output)}
    assert found == {
        ("stdout", "c-1"): b"end of one",
        ("stdout", "d-1"): b"two",
        ("stderr", "d-1"): b"three",
    }
    node.outputs.replied(engine, "b-1")  # which the former agent may have passed on
    process.print("four")
    loop.until(lambda: text(node) == b"end of onetwofour")
    assert node.controller.of(Output)[-1].task == "d-1"


def test_what_a_new_agent_is_told_ends_with_the_first_task_that_it_passes_on_itself(
    node: Node, loop: HandLoop, process: Child
) -> None:
    ready = msgspec.structs.replace(process.ready(), finished={"a-1": 0}, printing="a-1")
    engine = LocalEngine(ready, Talk("engine:0"), 0)
    engine.resume(ready)
    node.members.add(engine)
    node.members.assign(engine, 0)
    node.outputs.open(engine)
    process.print("late words of a-1")
    node.relay.on_run(Parcel(node.controller, Run("b-1", "apply", [0], [Content(b"x")])))
    process.print("b-1 begins")
    loop.until(lambda: len(node.controller.of(Output)) == 2)
    found = [(o.task, o.text) for o in node.controller.of(Output)]
    assert found == [("a-1", b"late words of a-1"), ("b-1", b"b-1 begins")]
