"""How a rank's process ended, in words for people."""

from __future__ import annotations

import signal
from dataclasses import dataclass

_PLAIN = {
    signal.SIGSEGV: "segmentation fault",
    signal.SIGBUS: "bus error: memory that is not there (a full /dev/shm, or a mapped file that shrank)",
    signal.SIGFPE: "arithmetic error in compiled code",
    signal.SIGILL: "illegal instruction (code built for another CPU?)",
    signal.SIGABRT: "aborted by its own compiled code",
}


@dataclass(frozen=True, slots=True)
class Ending:
    """What is known about the end of a process; at most one of ``exit_code`` and ``signal`` is set."""

    exit_code: int | None = None
    signal: int | None = None


def parse(record: str) -> Ending:
    """Read an exit record of the rank's parent: ``exit <code>`` or ``signal <number>``. Raises ValueError."""
    kind, number = record.split()
    if kind == "exit":
        return Ending(exit_code=int(number))
    if kind == "signal":
        return Ending(signal=int(number))
    raise ValueError(f"exit record {record!r}; right would be 'exit <code>' or 'signal <number>'")


def describe(ending: Ending, *, expected: bool, out_of_memory: bool = False, recorder: bool = False) -> str:
    """Say why the process is gone.

    ``out_of_memory``: the kernel counted an OOM kill where it ran. ``recorder``: its parent would have
    recorded the end, had it not been killed too.
    """
    if ending.signal is None and ending.exit_code is None and not expected:
        if out_of_memory:
            return _describe_signal(signal.SIGKILL, out_of_memory=True)
        if recorder:
            return "killed together with its parent: its job was ended from outside (mpiexec or the batch system)"
    if ending.signal is not None:
        return _describe_signal(ending.signal, out_of_memory=out_of_memory)
    if ending.exit_code is None:
        return "stopped" if expected else "process vanished (nothing recorded how it ended)"
    if expected and ending.exit_code == 0:
        return "stopped"
    return f"exited with code {ending.exit_code} (os._exit or a crash in C code)"


def _describe_signal(number: int, *, out_of_memory: bool) -> str:
    if number == signal.SIGKILL and out_of_memory:
        return "out of memory (killed by the kernel: oom_kill in its cgroup)"
    try:
        known = signal.Signals(number)
    except ValueError:
        return f"killed by signal {number}"
    plain = _PLAIN.get(known)
    return f"{plain} ({known.name})" if plain else f"killed by {known.name}"
