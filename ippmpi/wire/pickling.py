"""Calls and results to blobs and back, without copying large buffers.

A blob: little-endian u32 number of parts, u32 pickler (its place in ``PICKLERS``), u64 size of each part; then the
parts, each at the next multiple of 64 bytes. Part 0 is a pickle (protocol 5); the others are its out-of-band
buffers (the memory of arrays), so that arrays are aligned views into the blob.

A call of a plain function (``plain.py``) with simple arguments has ``CALL`` in the place of the pickler, the function
as part 0 and ``(args, kwargs)`` as part 1.
"""

from __future__ import annotations

import pickle
import struct
import sys
import warnings
from collections.abc import Sequence
from contextvars import ContextVar
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, NamedTuple

from ippmpi.errors import ProtocolError
from ippmpi.wire import plain
from ippmpi.wire.functions import get_home
from ippmpi.wire.handles import noting
from ippmpi.wire.picklers import PICKLERS, PROTOCOL, SCALARS, dumps

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ippmpi.wire.handles import Handle

ALIGNMENT = 64

LARGE = 1_000_000
"""A global that travels with a function and has more bytes than this is worth a warning."""

CALL = 0x100

_HEADER = struct.Struct("<II")
_CALL_HEADER = struct.Struct("<IIQQ40x")  # two parts, the first at byte 64
_PLAIN_HEADER = struct.Struct("<IIQ48x")  # one part, at byte 64
_SIZE = 8

NONE = _PLAIN_HEADER.pack(1, 0, 4) + b"\x80\x05N."
"""The blob of None, which is what most calls on all ranks return: whoever knows it need not unpack it."""


class Blob(NamedTuple):
    """A value as bytes: ``parts`` are header, paddings and buffers (views of the user's memory), in order.

    ``handles``: those in it, if it was packed by ``pack_noting``; what they stand for must stay until it has arrived.
    """

    parts: Sequence[bytes | memoryview]
    size: int
    handles: tuple[Handle, ...] = ()

    def join(self) -> bytes:
        """Return the flat blob; copies."""
        return b"".join(self.parts)


_NO_ARGUMENTS = pickle.dumps(((), {}), PROTOCOL)

_usual: ContextVar[str] = ContextVar("pickler", default="auto")


def use(content: Buffer | None) -> None:
    """Have ``pack`` in this thread answer with the pickler that made the question *content* (None: ``auto``)."""
    _usual.set(PICKLERS[_pickler_of(memoryview(content))] if content is not None else "auto")


def _pickler_of(view: memoryview) -> int:
    pickler = int.from_bytes(view.cast("B")[4:8], "little")
    return pickler if pickler < len(PICKLERS) else 0


def pack(value: object, pickler: str = "") -> Blob:
    """Return *value* as a blob, which refers to the memory of its arrays.

    *pickler*: one of ``PICKLERS``; by default what ``use`` said. Functions and classes of ``__main__`` go by value,
    with the globals that they read; a large one of these is warned about once. Raises what pickling raises (TypeError,
    PicklingError, or whatever a class's own reducer raises).
    """
    pickler = pickler or _usual.get()
    pickled, buffers, travelled = _dumped(value, pickler)
    if buffers or pickler != "auto":
        blob = _layout([pickled, *(buffer.raw() for buffer in buffers)], PICKLERS.index(pickler))
    else:
        blob = _plain(pickled)
    if travelled and blob.size > LARGE and get_home() is None:
        _warn(travelled)
    return blob


def _dumped(value: object, pickler: str) -> tuple[memoryview, list[pickle.PickleBuffer], dict[str, object]]:
    if pickler == _usual.get():
        return dumps(value, pickler)
    before = _usual.set(pickler)  # for what packs itself while it is pickled
    try:
        return dumps(value, pickler)
    finally:
        _usual.reset(before)


def pack_call(function: object, args: tuple[object, ...], kwargs: dict[str, object], pickler: str = "auto") -> Blob:
    """Return the blob of a call; it unpacks to ``(function, args, kwargs)``, and raises what ``pack`` raises."""
    simple = pickler == "auto" and not kwargs and all(type(value) in SCALARS for value in args)
    pickled = plain.pickled(function) if simple else None
    if pickled is None:
        return pack((function, args, kwargs), pickler)
    arguments = pickle.dumps((args, kwargs), PROTOCOL) if args else _NO_ARGUMENTS
    size = len(pickled)
    padding = -size % ALIGNMENT
    header = _CALL_HEADER.pack(2, CALL, size, len(arguments))
    return Blob((header, pickled, bytes(padding), arguments), ALIGNMENT + size + padding + len(arguments))


def pack_noting(value: object, pickler: str = "") -> Blob:
    """Return what ``pack`` returns, with the handles that went into it."""
    with noting() as handles:
        blob = pack(value, pickler)
    return blob._replace(handles=tuple(handles)) if handles else blob


def usual() -> str:
    """Return which pickler ``pack`` uses in this thread when none is named."""
    return _usual.get()


def _plain(pickled: memoryview) -> Blob:
    return Blob((_PLAIN_HEADER.pack(1, 0, pickled.nbytes), pickled), ALIGNMENT + pickled.nbytes)


def _layout(buffers: list[memoryview], pickler: int) -> Blob:
    sizes = [buffer.nbytes for buffer in buffers]
    parts: list[bytes | memoryview] = [_HEADER.pack(len(sizes), pickler) + struct.pack(f"<{len(sizes)}Q", *sizes)]
    position = len(parts[0])
    for buffer in buffers:
        padding = -position % ALIGNMENT
        if padding:
            parts.append(bytes(padding))
        parts.append(buffer)
        position += padding + buffer.nbytes
    return Blob(parts, position)


def unpack(buffer: Buffer) -> object:
    """Return the value of a flat blob. Its arrays are views into *buffer*, writable unless they were read-only.

    So pass memory that nobody else writes to (a bytearray, a private map); read-only memory is
    copied first if the blob has arrays.

    Raises:
        ProtocolError: not a blob.
        ModuleNotFoundError: something in it belongs to a module that is missing here.
    """
    view = memoryview(buffer).cast("B")
    try:
        if len(view) >= ALIGNMENT:
            count, pickler, size, second = _CALL_HEADER.unpack_from(view)
            if count == 1 and pickler == 0 and size == len(view) - ALIGNMENT:
                return pickle.loads(view[ALIGNMENT:])
            if pickler == CALL:
                return _unpack_call(view, count, size, second)
        parts = _parts(view)
        if len(parts) > 1 and view.readonly:
            parts = _parts(memoryview(bytearray(view)))
        return pickle.loads(parts[0], buffers=parts[1:])
    except ModuleNotFoundError as error:
        where = "this client" if get_home() is None else "this engine"
        importer = _importer(error)
        needed = f"which is imported by {importer!r}, which" if importer else "which"
        raise ModuleNotFoundError(
            f"{where} has no module {error.name!r}, {needed} what arrived needs: install it here, or put its folder on "
            f"sys.path (Python: {sys.executable}); functions of __main__ need no module",
            name=error.name,
            path=error.path,
        ) from error


def _unpack_call(view: memoryview, count: int, size: int, rest: int) -> object:
    end = ALIGNMENT + size
    start = end + -size % ALIGNMENT
    if count != 2 or start + rest != len(view):
        raise ProtocolError(f"not a call: {count} parts, {size} and {rest} bytes long, in {len(view)} bytes")
    arguments = view[start:]
    args, kwargs = ((), {}) if arguments == _NO_ARGUMENTS else pickle.loads(arguments)
    return plain.rebuild(view[ALIGNMENT:end]), args, kwargs


def _importer(error: ImportError) -> str:
    """Return the module whose own import failed, if the one that arrived with the pickle was found."""
    step = error.__traceback__
    while step is not None and step.tb_frame.f_code.co_name != "<module>":
        step = step.tb_next
    return "" if step is None else str(step.tb_frame.f_globals.get("__name__", ""))


def _parts(view: memoryview) -> list[memoryview]:
    try:
        count, pickler = _HEADER.unpack_from(view)
        sizes = struct.unpack_from(f"<{count}Q", view, _HEADER.size) if count * _SIZE <= len(view) else ()
    except struct.error as error:
        raise ProtocolError(f"not a blob: {error}") from None
    parts = []
    position = _HEADER.size + count * _SIZE
    for size in sizes:
        position += -position % ALIGNMENT
        parts.append(view[position : position + size])
        position += size
    if not parts or pickler >= len(PICKLERS) or position != len(view):
        raise ProtocolError(f"not a blob: {count} parts that end at byte {position}, in {len(view)} bytes")
    return parts


_warned: set[str] = set()


def _warn(travelled: dict[str, object]) -> None:
    for name, value in travelled.items():
        if name in _warned or isinstance(value, FunctionType | ModuleType | type):
            continue  # what a function takes along is in travelled by its own name
        size = _size(value)
        if size > LARGE:
            _warned.add(name)
            warnings.warn(
                f"the global {name!r} ({size / 1e6:.1f} MB) travels with every call of a function that reads it: "
                "push it once under another name, and read that",
                stacklevel=3,
            )


def _size(value: object) -> int:
    try:
        pickled, buffers, _ = dumps(value)
    except Exception:  # it travels as an Unsendable
        return 0
    return pickled.nbytes + sum(memoryview(buffer).nbytes for buffer in buffers)
