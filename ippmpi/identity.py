"""Which process is it: a pid alone may have been given to another process since.

A process is named by its pid, its start time, and the machine that counted them (boot id and pid
namespace). Only on that machine can anybody say whether it lives; elsewhere the answer is None.
Without ``/proc`` (macOS) start time and boot id are empty and the host name stands for the machine.
"""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import msgspec


class ProcessIdentity(msgspec.Struct, frozen=True):
    """One process, for ever: ``started`` is in clock ticks since boot (0: not known)."""

    host: str
    pid: int
    started: int
    boot: str

    def to_dict(self) -> dict[str, str | int]:
        """Return the fields, for JSON."""
        return msgspec.structs.asdict(self)


def identify(pid: int) -> ProcessIdentity:
    """Name a living process of this machine; raise ProcessLookupError if there is none (a zombie is none)."""
    started = _start_ticks(pid)
    if started is None:
        raise ProcessLookupError(f"no process {pid}")
    return ProcessIdentity(host_name(), pid, started, _machine())


def host_name() -> str:
    """Return this machine's name, as it calls itself."""
    return socket.gethostname()


def alive(process: ProcessIdentity) -> bool | None:
    """Say whether *process* still runs; None when only another machine could know."""
    if not is_local(process):
        return None
    started = _start_ticks(process.pid)
    return started is not None and started == process.started


def is_local(process: ProcessIdentity) -> bool:
    """Say whether *process* was named by this machine (this boot of it)."""
    here = _machine()
    return process.boot == here and (bool(here) or process.host == host_name())


def send_signal(process: ProcessIdentity, signum: int, *, group: bool = False) -> bool:
    """Send a signal to exactly this process (or the group it leads); return False if it is gone.

    Raises:
        OSError: it runs on another machine, or is not ours.
    """
    lives = alive(process)
    if lives is None:
        raise OSError(f"process {process.pid} runs on {process.host}; it cannot get a signal from here")
    try:
        if lives and group:
            os.killpg(process.pid, signal.Signals(signum))
        elif lives:
            os.kill(process.pid, signal.Signals(signum))
    except ProcessLookupError:
        return False
    return lives


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}:{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def _start_ticks(pid: int) -> int | None:
    """Return field 22 of ``/proc/<pid>/stat``; None when the process is gone or a zombie; 0 without ``/proc``."""
    if not Path("/proc/self/stat").exists():
        return _probe(pid)
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def _probe(pid: int) -> int | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return 0
    return 0
