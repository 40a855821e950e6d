"""Messages and link records to bytes and back, validated.

Everything that is wrong with received bytes (not msgpack, unknown tag, a field of another type)
becomes one ``ProtocolError``, which the receiver logs before it drops the frame.
"""

from __future__ import annotations

import operator
from functools import reduce
from typing import TYPE_CHECKING

import msgspec

from ippmpi.errors import ProtocolError
from ippmpi.wire.messages import LinkRecord, Message

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def _union(classes: Sequence[type]) -> object:
    return reduce(operator.or_, classes)


_Raw = bytes | memoryview
_encoder = msgspec.msgpack.Encoder()
_decode: Callable[[_Raw], Message] = msgspec.msgpack.Decoder(_union(Message.__subclasses__())).decode
_decode_link: Callable[[_Raw], LinkRecord] = msgspec.msgpack.Decoder(_union(LinkRecord.__subclasses__())).decode

encode: Callable[[Message], bytes] = _encoder.encode
"""Return a message as bytes."""

encode_link: Callable[[LinkRecord], bytes] = _encoder.encode
"""Return a link record as bytes."""


def decode(raw: bytes | memoryview) -> Message:
    """Return the message in *raw*; raises ``ProtocolError`` if there is none."""
    try:
        return _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"not a message: {error} ({_start(raw)})") from None


def decode_link(raw: bytes | memoryview) -> LinkRecord:
    """Return the link record in *raw*; raises ``ProtocolError`` if there is none."""
    try:
        return _decode_link(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"not a link record: {error} ({_start(raw)})") from None


def hello_version(raw: bytes | memoryview) -> int | None:
    """Return the version of a Hello that may have another version's fields; None if *raw* is no Hello at all."""
    try:
        match msgspec.msgpack.decode(raw):
            case ["hello", int(version), *_]:
                return version
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError, TypeError):
        pass  # no Hello of any version
    return None


def _start(raw: bytes | memoryview) -> str:
    return f"{len(raw)} bytes, starting {bytes(raw[:16]).hex()}"
