"""Marks in what an engine prints: from here on, it is output of this task.

Without them the agent could only guess by the replies, which travel another way: an engine that has
its next request already begins to print for it before the agent has seen the reply to the one before.
A mark also names the task before, for an agent that begins to read in the middle.
"""

from __future__ import annotations

START = b"\x00\x1bippmpi "
END = b"\x1b\x00"
LONGEST = 256
"""Bytes between both that a mark has at most; more is no mark."""


def mark(task: str, before: str = "") -> bytes:
    """Return what is put into the stream before the output of *task*, and after that of the task *before*."""
    return START + f"{task} {before}".encode() + END


class Marks:
    """Takes one stream apart. ``task``: whose output comes now, None if there was no mark."""

    def __init__(self, task: str | None = None) -> None:
        """Begin; in the middle of a stream with the *task* that was printing last when its engine was asked.

        What is read together with the first mark may be older.
        """
        self.task = task
        self._guessed = task is not None
        self._rest = b""

    def split(self, data: bytes) -> list[tuple[str | None, bytes]]:
        """Return the pieces of *data* with their tasks; keep the beginning of a mark that is not whole."""
        data, self._rest = self._rest + data, b""
        pieces: list[tuple[str | None, bytes]] = []
        text = b""  # what looked like a mark and was none
        while (at := data.find(START)) >= 0:
            begin = at + len(START)
            end = data.find(END, begin, begin + LONGEST)
            if end < 0 and len(data) < begin + LONGEST:
                self._rest, data = data[at:], data[:at]
                break
            if end < 0:
                text, data = text + data[:begin], data[begin:]
                continue
            task, _, before = data[begin:end].decode(errors="replace").partition(" ")
            if self._guessed:
                self._guessed, self.task = False, before
                pieces = [(before, piece) for _, piece in pieces]
            if text or at:
                pieces.append((self.task, text + data[:at]))
            text = b""
            self.task = task
            data = data[end + len(END) :]
        if not self._rest:
            data, self._rest = _without_start(data)
        if text or data:
            pieces.append((self.task, text + data))
        return pieces

    def rest(self) -> bytes:
        """Return what was kept back, as no more comes."""
        rest, self._rest = self._rest, b""
        return rest


def _without_start(data: bytes) -> tuple[bytes, bytes]:
    """Cut off the end of *data* if it may be the beginning of a mark."""
    for size in range(min(len(START) - 1, len(data)), 0, -1):
        if data.endswith(START[:size]):
            return data[:-size], data[-size:]
    return data, b""
