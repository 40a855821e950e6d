"""Links and routers over real sockets: who comes in, and what survives a break."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from helpers import eventually
from ippmpi.errors import Refused
from ippmpi.net.conversation import Delivery
from ippmpi.net.keys import KeyPair, keypair
from ippmpi.net.link import LinkState
from ippmpi.net.session import WINDOW_BYTES
from ippmpi.wire.messages import Answer, Content, Hello, Output, Query, Submit
from net.wires import Blob, Caller, Forwarder, Listener, Memory, curve


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def start(stack: ExitStack) -> Callable[..., object]:
    def start(kind: type, *args: object, **options: object) -> object:
        made = kind(*args, **options)
        stack.callback(made.close)
        return made

    return start


def test_a_question_is_answered_over_the_unix_socket(start: Callable, tmp_path: Path) -> None:
    start(Listener, unix=f"{tmp_path}/s")
    caller = start(Caller, f"unix://{tmp_path}/s")
    caller.ask(1, b"\x01")
    eventually(lambda: caller.messages == [Answer(1, b"\x01")], what="the answer")
    assert caller.conversation.about == {"said": "client:test"}
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600


def test_a_question_is_answered_over_tcp_and_curve(start: Callable) -> None:
    server, mine = curve()
    listener = start(Listener, tcp="127.0.0.1:0", keys=server)
    caller = start(Caller, f"tcp://127.0.0.1:{listener.router.tcp_port}", server=server.public, keys=mine)
    caller.ask(1)
    eventually(lambda: len(caller.messages) == 1, what="the answer")


def test_an_unknown_key_stays_outside(start: Callable) -> None:
    server, _ = curve()
    listener = start(Listener, tcp="127.0.0.1:0", keys=server)
    stranger = KeyPair(*keypair())
    caller = start(Caller, f"tcp://127.0.0.1:{listener.router.tcp_port}", server=server.public, keys=stranger)
    caller.ask(1)
    eventually(lambda: bool(caller.states), what="a verdict")
    assert caller.states[0][0] is LinkState.REFUSED
    assert "does not know this key" in caller.states[0][1]
    assert listener.messages == []
    assert listener.peers == []


def test_a_plain_connection_to_the_tcp_port_stays_outside(start: Callable) -> None:
    server, _ = curve()
    listener = start(Listener, tcp="127.0.0.1:0", keys=server)
    caller = start(Caller, f"tcp://127.0.0.1:{listener.router.tcp_port}")
    caller.ask(1)
    good = start(Caller, f"tcp://127.0.0.1:{listener.router.tcp_port}", server=server.public, keys=curve()[1])
    eventually(lambda: bool(good.states), what="the doorman at work")
    assert listener.messages == []
    assert listener.peers == []


def test_a_client_key_cannot_be_used_as_an_agent(start: Callable) -> None:
    server, mine = curve()
    listener = start(Listener, tcp="127.0.0.1:0", keys=server)
    address = f"tcp://127.0.0.1:{listener.router.tcp_port}"
    caller = start(Caller, address, server=server.public, keys=mine, role="agent")
    eventually(lambda: bool(caller.states), what="a verdict")
    assert caller.states[0][0] is LinkState.REFUSED
    assert "a key for the role 'client', not 'agent'" in caller.states[0][1]


def test_a_refusal_is_final_and_says_why(start: Callable, tmp_path: Path) -> None:
    listener = start(Listener, unix=f"{tmp_path}/s")

    def refuse(hello: Hello, role: str) -> dict[str, object]:
        raise Refused(f"no {role} today, {hello.peer}")

    listener.hello = refuse
    caller = start(Caller, f"unix://{tmp_path}/s")
    eventually(lambda: caller.states == [(LinkState.REFUSED, "no client today, client:test")], what="the refusal")


def test_a_listener_that_comes_later_is_found(start: Callable, tmp_path: Path) -> None:
    caller = start(Caller, f"unix://{tmp_path}/s")
    caller.ask(1)
    start(Listener, unix=f"{tmp_path}/s")
    eventually(lambda: len(caller.messages) == 1, what="the answer")


def test_messages_survive_cut_connections_in_order_and_once(start: Callable) -> None:
    server, mine = curve()
    listener = start(Listener, tcp="127.0.0.1:0", keys=server)
    relay = start(Forwarder, listener.router.tcp_port)
    caller = start(Caller, f"tcp://127.0.0.1:{relay.port}", server=server.public, keys=mine)
    acked: list[int] = []
    for number in range(300):
        caller.ask(number, on_ack=lambda number=number: acked.append(number))
        if number % 60 == 30:
            eventually(lambda number=number: len(caller.messages) > number - 20, what="some answers")
            relay.cut()
    eventually(lambda: len(caller.messages) == 300, what="all answers")
    assert [m.request for m in caller.messages] == list(range(300))
    assert [m.request for m in listener.messages] == list(range(300))
    eventually(lambda: acked == list(range(300)), what="all acknowledgements")


def test_a_content_survives_cut_connections(start: Callable) -> None:
    server, mine = curve()
    listener = start(Listener, tcp="127.0.0.1:0", keys=server)
    relay = start(Forwarder, listener.router.tcp_port)
    caller = start(Caller, f"tcp://127.0.0.1:{relay.port}", server=server.public, keys=mine)
    data = os.urandom(20_000_000)
    sinks: list[Memory] = []
    ends: list[bool] = []

    def accept(delivery: Delivery) -> None:
        content = delivery.message.contents[0]
        sinks.append(Memory(content.size))
        delivery.peer.accept(content.transfer, sinks[0], lambda ok: (ends.append(ok), delivery.done()))

    listener.answer = accept
    acked: list[bool] = []

    def submit() -> None:
        number = caller.conversation.offer(Blob(data))
        message = Submit("t-1", "push", [0], [Content(size=len(data), transfer=number)])
        caller.conversation.send(message, on_ack=lambda: acked.append(True))

    caller.link.call_soon(submit)
    for millions in (2, 6, 12):
        eventually(lambda millions=millions: relay.passed > millions * 1_000_000, what="some of the bytes")
        relay.cut()
    eventually(lambda: ends == [True], timeout_s=20, what="the end of the transfer")
    assert sinks[0].data == data
    eventually(lambda: acked == [True], what="the acknowledgement, which waited for the content")


def test_what_a_lost_listener_did_not_acknowledge_goes_to_the_next_one(start: Callable, tmp_path: Path) -> None:
    first = Listener(unix=f"{tmp_path}/s")
    first.answer = lambda delivery: None  # arrived, but owned by nobody
    caller = start(Caller, f"unix://{tmp_path}/s")
    for number in range(5):
        caller.ask(number)
    eventually(lambda: len(first.messages) == 5, what="the questions")
    first.close()
    second = start(Listener, unix=f"{tmp_path}/s")
    eventually(lambda: len(caller.messages) == 5, what="the answers")
    assert [m.request for m in second.messages] == list(range(5))


def test_a_malformed_message_is_dropped_and_the_others_go_on(start: Callable, tmp_path: Path) -> None:
    listener = start(Listener, unix=f"{tmp_path}/s")
    caller = start(Caller, f"unix://{tmp_path}/s")
    caller.link.call_soon(lambda: caller.conversation.send_raw(b"\x93\xa5query\x01"))
    caller.link.call_soon(lambda: caller.conversation.send_raw(b"garbage"))
    caller.ask(3)
    eventually(lambda: len(caller.messages) == 1, what="the answer to the good one")
    assert [type(m) for m in listener.messages] == [Query]
    eventually(lambda: caller.conversation.idle, what="acknowledgement of all three")


def test_the_listener_speaks_first_too(start: Callable, tmp_path: Path) -> None:
    listener = start(Listener, unix=f"{tmp_path}/s")
    caller = start(Caller, f"unix://{tmp_path}/s")
    eventually(lambda: ("client:test", True) in listener.peers, what="the peer")
    conversation = listener.router.conversation("client:test")
    listener.loop.call_soon(lambda: conversation.send(Output("t", 0, "stdout", b"hello")))
    eventually(lambda: caller.messages == [Output("t", 0, "stdout", b"hello")], what="the output")


def test_a_sign_of_life_is_answered_at_once(start: Callable) -> None:
    server, mine = curve()
    listener = start(Listener, tcp="127.0.0.1:0", keys=server)
    caller = start(Caller, f"tcp://127.0.0.1:{listener.router.tcp_port}", server=server.public, keys=mine)
    eventually(lambda: listener.peers)
    here, there = caller.conversation, listener.router.conversation("client:test")
    assert there is not None
    here.spoke -= 2.0  # it would speak by itself in a second
    spoke, heard = here.spoke, there.heard
    listener.loop.call_soon(there.notice)
    eventually(lambda: there.heard > heard, 0.9, "the answer")
    assert here.spoke > spoke + 1.0


def test_a_closed_router_leaves_no_socket_file(tmp_path: Path) -> None:
    Listener(unix=f"{tmp_path}/s").close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_more_than_a_window_arrives_though_nobody_owns_it_yet(start: Callable, tmp_path: Path, transport: str) -> None:
    server, mine = curve()
    listener = start(Listener, unix=f"{tmp_path}/s", tcp="127.0.0.1:0", keys=server)
    listener.answer = lambda delivery: None  # no acknowledgement, ever
    address = f"unix://{tmp_path}/s" if transport == "unix" else f"tcp://127.0.0.1:{listener.router.tcp_port}"
    caller = start(Caller, address, server=server.public, keys=mine)
    count = 5 * WINDOW_BYTES // 10_000
    for number in range(count):
        caller.ask(number, bytes(10_000))
    eventually(lambda: len(listener.messages) == count, what="all messages")


def test_what_was_sent_just_before_the_listener_closed_still_arrives(start: Callable) -> None:
    for _ in range(10):
        server, mine = curve()
        listener = Listener(tcp="127.0.0.1:0", keys=server)
        caller = start(Caller, f"tcp://127.0.0.1:{listener.router.tcp_port}", server=server.public, keys=mine)
        eventually(lambda listener=listener: listener.peers, what="the peer")
        conversation = listener.router.conversation("client:test")
        for number in range(20):
            listener.loop.call_soon(
                lambda number=number, conversation=conversation: conversation.send(Output("t", number, "stdout", b"x"))
            )
        listener.close()
        eventually(lambda caller=caller: len(caller.messages) == 20, what="the last words")
