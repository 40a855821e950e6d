from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import msgspec
import pytest

from ippmpi.wire import messages as m
from ippmpi.wire.frames import decode, decode_link, encode, encode_link

DOCS = Path(__file__).parents[2] / "docs"

# one of each, with a value of its own in every field

CONTENTS = [
    m.Content(inline=b"\x00blob", size=5),
    m.Content(size=7, transfer=3),
    m.Content(size=9, path="/proc/1/fd/2"),
]
RECORD = m.EngineRecord(3, 3, "w1", "c1", 4711, 4, 7)
FAILURE = m.Failure("ValueError", "no", "Traceback", "code", 3, 3, "w1", "c1", 4711, ["builtins:ValueError"], b"\x92")
PLACEMENT = m.Placement([1, 2], m.Dependency(["a-1"], True), m.Dependency(["a-2"], False, True, True), 1.5, 2, [3])

MESSAGES: list[m.Message] = [
    m.Submit("a-1", "apply", [0, 1], CONTENTS, "label", PLACEMENT, 7, m.CacheKey("0f", "f", True)),
    m.Abort(1, ["a-1"], [0]),
    m.Interrupt(2, ["a-1"]),
    m.Free(["a-1"], [3], "a"),
    m.SendSignal(3, 2, [0, 1]),
    m.Query(4, "queue_status", b"\x90"),
    m.Shutdown(5, [1], True),
    m.Farewell(),
    m.EnginesChanged([RECORD], [4], ["killed"]),
    m.Recheck(),
    m.Answer(6, b"\xc3", "no"),
    m.Registered("w1", 0, [4711]),
    m.Run("a-1", "apply", [0, 1], CONTENTS[1:2], 1),
    m.Revoke("a-1", [0], True, True),
    m.Deliver([0, 1], 2),
    m.StopEngines([0]),
    m.RegisterEngines("w1", 4, [RECORD], True, [[m.Held("a-1", 1), m.Held("a-2", 0, True)]]),
    m.StillWaiting([m.Awaited("a-1", [0, 3]), m.Awaited("a-2", [])]),
    m.EngineLost("w1", 3, "killed", True, 1, 9, "last words", ["a-3"]),
    m.Reply("a-1", 3, CONTENTS[0], FAILURE, 1.0, 2.0, 1),
    m.Replies("a-1", [m.Reply("a-1", 3, CONTENTS[0]), m.Reply("a-1", 4, m.Content(), FAILURE, 1.0, 2.0, 1)]),
    m.Output("a-1", 3, "stdout", b"\xff text"),
    m.Display("a-1", 3, b"\x80"),
    m.Fetch(3, 1, 2, "a-1"),
    m.Fetched(3, 1, CONTENTS[0], FAILURE),
    m.Published("a-1", 3, {"step": b"\x01"}),
    m.EngineReady("w1", 3, 4, 2, 4711, "c1", 99, 7, 8, True, 3, {"a-2": 0}, {"a-1": 1}, "a-2"),
    m.Assigned(3),
    m.ContentReady(3, True),
    m.StopEngine("the controller refuses it"),
]

LINK_RECORDS: list[m.LinkRecord] = [
    m.Hello(1, "client", "client:ab12", b"t" * 16, "control", 5, "3.11.7", b"\x80", "key", b"l" * 8),
    m.Welcome(True, 5, b"\x80", b"l" * 8),
    m.Denied("version 1 here, 2 there"),
    m.Batch(3, 2, 2, [b"\x91\xa8farewell"]),
    m.Grant(3, 0, 1024, True),
    m.Chunk(3, 512, True, 4),
]


def _name(value: object) -> str:
    return type(value).__name__


def test_every_message_has_an_example() -> None:
    assert {type(x) for x in MESSAGES} == set(m.Message.__subclasses__())
    assert {type(x) for x in LINK_RECORDS} == set(m.LinkRecord.__subclasses__())


@pytest.mark.parametrize("message", MESSAGES, ids=_name)
def test_a_message_survives_a_round_trip(message: m.Message) -> None:
    assert decode(encode(message)) == message
    assert decode(memoryview(encode(message))) == message


@pytest.mark.parametrize("record", LINK_RECORDS, ids=_name)
def test_a_link_record_survives_a_round_trip(record: m.LinkRecord) -> None:
    assert decode_link(encode_link(record)) == record


@pytest.mark.parametrize("value", [*MESSAGES, *LINK_RECORDS], ids=_name)
def test_a_message_is_an_array_that_begins_with_its_tag(value: m.Message | m.LinkRecord) -> None:
    raw = msgspec.msgpack.decode(msgspec.msgpack.encode(value))
    assert raw[0] == re.sub(r"(?<!^)(?=[A-Z])", "_", type(value).__name__).lower()
    assert len(raw) == 1 + len(msgspec.structs.fields(value))


@pytest.mark.parametrize("message", MESSAGES, ids=_name)
def test_every_field_of_an_example_has_a_value_of_its_own(message: m.Message) -> None:
    defaults = [f.name for f in msgspec.structs.fields(message) if getattr(message, f.name) == f.default]
    assert defaults == []


@pytest.mark.parametrize("message", MESSAGES, ids=_name)
def test_a_message_is_frozen_and_names_its_route(message: m.Message) -> None:
    assert re.fullmatch(r"\w+ -> \w+(, \w+ -> \w+)*", message.ROUTE)
    for field in msgspec.structs.fields(message):
        with pytest.raises(AttributeError):
            setattr(message, field.name, None)


def test_the_protocol_page_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("protocol_page", DOCS / "protocol.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.PAGE.read_text() == script.page(), "run: python docs/protocol.py"
