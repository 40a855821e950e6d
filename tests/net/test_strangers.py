"""Those who do not speak our language, or say nothing: they are let go, and nobody else notices."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from helpers import eventually
from ippmpi.net import strangers
from ippmpi.net.keys import KeyPair, ServerKeys, keypair
from ippmpi.net.link import LinkState
from ippmpi.wire.frames import encode, encode_link
from ippmpi.wire.messages import PROTOCOL_VERSION, Batch, Denied, Query, Welcome
from net.raw import HEAD, Raw, a_hello, framed
from net.wires import Caller, Listener


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def start(stack: ExitStack) -> Callable:
    def start(kind: type, *args: object, **options: object) -> object:
        made = kind(*args, **options)
        stack.callback(made.close)
        return made

    return start


@pytest.fixture
def path(tmp_path: Path, start: Callable) -> str:
    start(Listener, unix=f"{tmp_path}/s")
    return f"{tmp_path}/s"


def works(start: Callable, path: str) -> bool:
    """Whether somebody with manners is served."""
    caller = start(Caller, f"unix://{path}")
    caller.ask(1)
    return bool(eventually(lambda: caller.messages, what="the answer to somebody with manners"))


def test_who_says_nothing_is_let_go_after_a_while(start: Callable, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers, "HELLO_S", 0.2)
    silent = [start(Raw, path) for _ in range(3)]
    begin = time.monotonic()
    assert [one.hear() for one in silent] == [None] * 3
    assert time.monotonic() - begin < 2
    assert works(start, path)


def test_a_hello_byte_by_byte_is_no_way_to_stay(start: Callable, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers, "HELLO_S", 0.3)
    loris = start(Raw, path)
    with pytest.raises((BrokenPipeError, ConnectionResetError)):  # noqa: PT012 - the byte that fails is not known
        for byte in framed(encode_link(a_hello())) * 10:
            loris.send(bytes([byte]))
            time.sleep(0.01)


def test_only_so_many_strangers_are_at_the_door(start: Callable, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers, "MOST", 4)
    silent = [start(Raw, path) for _ in range(10)]
    assert [one.hear() for one in silent[:6]] == [None] * 6
    assert works(start, path)
    silent[-1].say(a_hello())
    assert isinstance(silent[-1].hear(), Welcome)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        HEAD.pack(0xFFFFFFFF, 0xFFFFFFFF),
        HEAD.pack(8 << 20, 0),
        framed(b""),
        framed(b"\x93\xa5hello\x01"),
        framed(encode_link(Batch(1, 0, 0, [b"x"]))),
        framed(encode_link(a_hello(token=b"short"))),
        framed(encode_link(a_hello(channel="third"))),
        framed(encode_link(a_hello(peer=""))),
        framed(encode_link(a_hello(peer="client:" + "x" * 10_000))),
        framed(encode_link(a_hello(peer="client:\n1 WARNING forged"))),
        framed(encode_link(a_hello(about=b"\x91" * 20_000))),
        framed(encode_link(a_hello(about=b"\x81\xa1a" + b"\x91" * 15_000))),
        framed(encode_link(a_hello(about=b"\x81\xa1a\xa1\xff"))),
        framed(encode_link(a_hello(channel="data"))),
    ],
)
def test_who_begins_with_nonsense_is_let_go_at_once(start: Callable, path: str, sent: bytes) -> None:
    stranger = start(Raw, path)
    stranger.send(sent)
    assert stranger.hear() is None
    assert works(start, path)


def test_a_thousand_strangers_do_not_fill_the_log(start: Callable, path: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "ippmpi"):
        for _ in range(1000):
            stranger = Raw(path)
            stranger.send(framed(b"nonsense"))
            stranger.close()
        assert works(start, path)
    assert 0 < len(caplog.records) <= 25


def test_a_peer_of_another_version_is_told_both_versions(start: Callable, path: str) -> None:
    begin = time.monotonic()
    for hello in (
        encode_link(a_hello(version=PROTOCOL_VERSION + 1)),
        msgspec.msgpack.encode(["hello", 77, {"all": "different"}]),
    ):
        stranger = start(Raw, path)
        stranger.send(framed(hello))
        denied = stranger.hear()
        assert isinstance(denied, Denied)
        assert f"speaks protocol version {PROTOCOL_VERSION}" in denied.reason
        assert "speaks 77" in denied.reason or f"speaks {PROTOCOL_VERSION + 1}" in denied.reason
    assert time.monotonic() - begin < 1


def test_a_hello_that_is_played_again_harms_nobody(start: Callable, path: str) -> None:
    first = start(Raw, path)
    hello = a_hello()
    first.say(hello)
    welcome = first.hear()
    assert isinstance(welcome, Welcome)
    for received in (-1, 1, 10**12):  # nothing was sent yet
        again = start(Raw, path)
        again.say(a_hello(token=hello.token, received=received, life=welcome.life))
        assert again.hear() is None
    assert works(start, path)
    first.socket.settimeout(0.1)
    with pytest.raises(TimeoutError):  # it is still the one
        first.hear()


def test_a_peer_whose_welcome_was_lost_begins_once_more(start: Callable, path: str) -> None:
    """It had numbers of a session with a process that was here before."""
    hello = a_hello(received=663, life=b"before..")
    for _ in range(2):
        peer = start(Raw, path)
        peer.say(hello)
        welcome = peer.hear()
        assert isinstance(welcome, Welcome)
        assert not welcome.known
    data = start(Raw, path)
    data.say(a_hello(token=hello.token, channel="data", life=b"before.."))  # its grants would be of that session
    assert data.hear() is None
    peer.say(Batch(1, 0, 0, [encode(Query(1, "status"))]))
    assert isinstance(peer.hear(), Batch)
    late = start(Raw, path)
    late.say(hello)
    assert late.hear() is None
    data = start(Raw, path)
    data.say(a_hello(token=hello.token, channel="data", life=welcome.life))
    assert isinstance(data.hear(), Welcome)


def test_on_the_unix_socket_a_key_names_the_role_too(start: Callable, tmp_path: Path) -> None:
    public, secret = keypair()
    mine = KeyPair(*keypair())
    start(Listener, unix=f"{tmp_path}/s", keys=ServerKeys(public, secret, {mine.public: "client"}))
    good = start(Caller, f"unix://{tmp_path}/s", keys=mine)
    eventually(lambda: [s for s, _ in good.states] == [LinkState.OPEN], what="a welcome")
    foreign = start(Caller, f"unix://{tmp_path}/s", keys=KeyPair(*keypair()))
    eventually(lambda: foreign.states, what="a verdict")
    assert foreign.states[0][0] is LinkState.REFUSED
    assert "the connection file of another cluster" in foreign.states[0][1]
    pretender = start(Caller, f"unix://{tmp_path}/s", keys=mine, role="agent")
    eventually(lambda: pretender.states, what="a verdict")
    assert "a key for the role 'client', not 'agent'" in pretender.states[0][1]


def test_an_error_of_ours_ends_one_connection_only(start: Callable, tmp_path: Path) -> None:
    listener = start(Listener, unix=f"{tmp_path}/s")

    def stumble(*_: object) -> dict[str, object]:
        raise ZeroDivisionError

    listener.hello, good = stumble, listener.hello
    stranger = start(Raw, f"{tmp_path}/s")
    stranger.say(a_hello())
    assert stranger.hear() is None
    listener.hello = good
    assert works(start, f"{tmp_path}/s")
