from __future__ import annotations

import contextlib
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ippmpi.errors import ProtocolError
from ippmpi.wire.frames import decode, decode_link, encode, encode_link
from ippmpi.wire.messages import Assigned, Batch, Content, Grant, Run

RUN = Run("a-1", "apply", [0], [Content(inline=b"x", size=1)])


@given(st.binary(max_size=64))
def test_any_bytes_are_a_message_or_a_protocol_error(raw: bytes) -> None:
    for read in (decode, decode_link):
        with contextlib.suppress(ProtocolError):
            read(raw)


@given(st.integers(0, len(encode(RUN)) - 1))
def test_a_message_cut_short_is_a_protocol_error(length: int) -> None:
    with pytest.raises(ProtocolError):
        decode(encode(RUN)[:length])


def test_deep_nesting_is_a_protocol_error() -> None:
    for read in (decode, decode_link):
        with pytest.raises(ProtocolError):
            read(b"\x94\xa3run\xa1a\xa1b" + b"\x91" * 100_000)


@pytest.mark.parametrize("read", [decode, decode_link])
def test_text_that_is_no_unicode_is_a_protocol_error(read: Callable[[bytes], object]) -> None:
    with pytest.raises(ProtocolError):
        read(b"\x91\xa1\xff")


def test_a_field_of_another_type_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="Expected `int`, got `str`"):
        decode(msgspec.msgpack.encode(["assigned", "three"]))


def test_messages_and_link_records_are_not_mixed_up() -> None:
    with pytest.raises(ProtocolError, match="not a link record"):
        decode_link(encode(Assigned(1)))
    with pytest.raises(ProtocolError, match="not a message"):
        decode(encode_link(Grant(1, 0, 2)))


def test_a_newer_peer_may_have_more_fields() -> None:
    assert decode(msgspec.msgpack.encode(["assigned", 3, "new"])) == Assigned(3)


@given(st.integers(1, 2**40), st.integers(0, 2**40), st.lists(st.binary()))
def test_a_batch_survives_a_round_trip(first: int, ack: int, messages: list[bytes]) -> None:
    batch = Batch(first, ack, ack, messages)
    assert decode_link(encode_link(batch)) == batch
