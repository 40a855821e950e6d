"""The contract of launchers: ``JobSpec`` says what to start, a ``Launcher`` starts, watches and ends it.

A launcher is a plug-in (one file in ``launchers/``). ``argv(spec)`` is pure; ``start`` is the only
thing that runs a program, and its errors repeat what the program said. Everything that another
process needs to go on with a started job is in ``to_dict``.
"""

from __future__ import annotations

import enum
import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, ClassVar, Self

import msgspec

from ippmpi import config, identity
from ippmpi.errors import LaunchError
from ippmpi.identity import ProcessIdentity

OUTPUT_LINES = 50
"""Lines of a failed program's output that an error repeats."""

ENGINE_ERROR = "ippmpi-engine: error:"
"""What an engine's last line begins with when it cannot start; the rest is for people."""

STARTUP_ERROR = "ippmpi-engine: startup:"
"""What a line begins with that tells of a startup file that failed; the rest is for people."""

KILL_AFTER_S = 2.0
"""Seconds that a program has between SIGTERM and SIGKILL."""

TERM_TIMES = 4
"""How often SIGTERM is sent in that time."""


class State(enum.Enum):
    """A job's life: it is started once and ends once."""

    BEFORE = "before"
    RUNNING = "running"
    AFTER = "after"


class JobSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One MPI job to start: only what every system has; the rest is ``extra``.

    ``program`` is the complete command of one rank. ``hosts`` are ``name`` or ``name:ranks``; none
    means this machine (or what the batch system gave). ``starter`` is the program that starts the
    ranks (mpiexec), "" for the one that is found; ``dialect`` the options it understands.
    """

    n: int
    world: str
    program: tuple[str, ...]
    log_file: str
    work_dir: str
    environment: dict[str, str] = {}
    hosts: tuple[str, ...] = ()
    starter: str = ""
    dialect: str = ""
    extra: tuple[str, ...] = ()


class Process:
    """A program that was started here, or found again by its identity; in a session of its own."""

    def __init__(self, process: ProcessIdentity, child: subprocess.Popen[bytes] | None = None) -> None:
        """Watch *process*; *child* is given by the process that started it."""
        self.identity = process
        self._child = child

    @classmethod
    def start(
        cls,
        argv: Sequence[str],
        *,
        log_file: str | Path,
        work_dir: str | Path,
        environment: Mapping[str, str],
        pass_fds: Sequence[int] = (),
    ) -> Self:
        """Start a program with output appended to *log_file* and no input; raise LaunchError if it cannot be."""
        Path(log_file).parent.mkdir(parents=True, exist_ok=True)
        with open(log_file, "ab", opener=_private) as log:
            child = _spawn(argv, log, str(work_dir), dict(environment), pass_fds)
        try:
            return cls(identity.identify(child.pid), child)
        except ProcessLookupError:  # it has ended already; poll() knows how
            here = identity.identify(os.getpid())
            return cls(ProcessIdentity(here.host, child.pid, -1, here.boot), child)

    def poll(self) -> int | None:
        """Return None while it runs, else its exit code (negative: signal; 0 if only its starter could know)."""
        if self._child is not None:
            return self._child.poll()
        return 0 if identity.alive(self.identity) is False else None

    def signal(self, signum: int, *, group: bool = False) -> bool:
        """Send a signal to it (*group*: to its whole process group); return False if it has ended."""
        if self.poll() is not None:
            return False
        return identity.send_signal(self.identity, signum, group=group)

    def detach(self) -> None:
        """Leave it running when this process ends."""
        if self._child is not None and self._child.returncode is None:
            self._child.returncode = 0  # or Popen warns that it still runs, which is what is wanted
        self._child = None


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)


def _spawn(
    argv: Sequence[str], log: IO[bytes], work_dir: str, environment: dict[str, str], pass_fds: Sequence[int]
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=work_dir,
            env=environment,
            start_new_session=True,  # a Ctrl-C in the terminal is for whoever started the job, not for its ranks
            pass_fds=pass_fds,
        )
    except FileNotFoundError as error:
        missing = work_dir if error.filename == work_dir else argv[0]
        raise LaunchError(f"cannot start {argv[0]}: there is no {missing}") from None
    except OSError as error:
        raise LaunchError(f"cannot start {argv[0]}: {error.strerror}") from None


class Launcher(ABC):
    """Starts the ranks of one world, and ends them. One object per job."""

    name: ClassVar[str]
    """By what name users choose it: the name of its file."""

    def __init__(self, spec: JobSpec, processes: Sequence[Process] = ()) -> None:
        """Make a launcher for *spec*; *processes* are those of a job that runs already."""
        self.spec = spec
        self.processes = list(processes)

    @abstractmethod
    def prepare(self, spec: JobSpec) -> JobSpec:
        """Complete *spec* by what this machine has (which programs, which user); raise LaunchError if it lacks it."""

    @abstractmethod
    def argv(self, spec: JobSpec) -> list[list[str]]:
        """Return the commands to start, for a prepared *spec*. Pure."""

    def cause(self, output: str) -> str:
        """Say in one line why the job failed, as far as *output* shows it; "" if it does not."""
        lines = [line for line in output.splitlines() if ENGINE_ERROR in line]
        return lines[0].partition(ENGINE_ERROR)[2].strip() if lines else ""

    @classmethod
    def remote(cls, hosts: Sequence[str]) -> bool:
        """Say whether ranks may run on other machines, so that the controller must be reached over TCP."""
        return bool(hosts)

    # --- life ------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """What is known now."""
        if not self.processes:
            return State.BEFORE
        return State.RUNNING if self.poll() is None else State.AFTER

    def start(self) -> None:
        """Start the job; raise LaunchError if it cannot be started."""
        self.spec = spec = self.prepare(self.spec)
        environment = config.child_environment(spec.environment)
        for argv in self.argv(spec):
            started = Process.start(argv, log_file=spec.log_file, work_dir=spec.work_dir, environment=environment)
            self.processes.append(started)

    def poll(self) -> int | None:
        """Return None while any part of the job runs, else the first bad exit code, or 0."""
        codes = [p.poll() for p in self.processes]
        if any(code is None for code in codes):
            return None
        return next((code for code in codes if code), 0)

    def failed(self) -> bool:
        """Say whether a part of the job ended badly (the rest may still run, waiting for it)."""
        return any(p.poll() for p in self.processes)

    def failure(self, what: str = "") -> LaunchError:
        """Return the error that describes how the job ended: cause and last output."""
        output = self.get_output(OUTPUT_LINES)
        code = next((c for c in (p.poll() for p in self.processes) if c), 0)
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        cause = self.cause(self.get_output()) or what or "no known cause; the output may tell"
        return LaunchError(f"{self.spec.n} engines started with {self.name}: {how}: {cause}", output)

    def signal(self, signum: int) -> None:
        """Send a POSIX signal to the job's own processes (those that start the ranks)."""
        for process in self.processes:
            process.signal(signum)

    def stop(self, timeout_s: float = 0.0) -> None:
        """End the job: give it *timeout_s* to end by itself, then SIGTERM, then SIGKILL; return when it is gone."""
        if self.wait(timeout_s):
            return
        for _ in range(TERM_TIMES):  # mpiexec drops a signal that comes before its ranks are there
            self.signal(signal.SIGTERM)
            if self.wait(KILL_AFTER_S / TERM_TIMES):
                return
        for process in self.processes:
            process.signal(signal.SIGKILL, group=True)
        if self.wait(KILL_AFTER_S):
            return
        raise LaunchError(f"{self.name}: processes {[p.identity.pid for p in self.processes]} do not end after SIGKILL")

    def wait(self, timeout_s: float) -> bool:
        """Wait until the job has ended; return False if it has not within *timeout_s* seconds."""
        deadline = time.monotonic() + timeout_s
        while self.poll() is None:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)
        return True

    def get_output(self, lines: int | None = None) -> str:
        """Return what the job printed (the last *lines* lines)."""
        return read_tail(self.spec.log_file, lines)

    def detach(self) -> None:
        """Leave the job running when this process ends."""
        for process in self.processes:
            process.detach()

    # --- for another process ---------------------------------------------------------------------

    def to_dict(self) -> dict[str, object]:
        """Return what ``from_dict`` needs to watch and end the job from another process."""
        return {
            "launcher": self.found_by(),
            "spec": msgspec.to_builtins(self.spec),
            "processes": [p.identity.to_dict() for p in self.processes],
        }

    @classmethod
    def found_by(cls) -> str:
        """Return by what another process finds this class: its name, or, if it is no plug-in, module and class."""
        plugin = cls.__module__.startswith("ippmpi.launchers.")
        return cls.name if plugin else f"{cls.__module__}.{cls.__qualname__}"

    @classmethod
    def from_dict(cls, saved: Mapping[str, object]) -> Self:
        """Find the job again; its processes are known by pid and start time."""
        processes = msgspec.convert(saved["processes"], list[ProcessIdentity])
        return cls(msgspec.convert(saved["spec"], JobSpec), [Process(p) for p in processes])


def read_tail(log_file: str | Path, lines: int | None = None) -> str:
    """Return the text of a log file, or its last *lines* lines; at most the last megabyte."""
    try:
        with open(log_file, "rb") as log:
            size = log.seek(0, 2)
            log.seek(max(0, size - 1_000_000))
            text = log.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return text if lines is None else "\n".join(text.splitlines()[-lines:])
