"""The parent of a rank, as a C program and as a shell script, alone and under mpiexec."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import pytest

from helpers import alive, eventually
from ippmpi import native

HOST = socket.gethostname()[:40]
PYTHON = (sys.executable, "-I", "-u", "-c")
DEADLINE_S = 30
SHARED_MEMORY = Path("/dev/shm")


@pytest.fixture(scope="session")
def c_program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The installed program; in a checkout that was never installed, one compiled from the same source."""
    installed = native.rank_program()
    if installed is not None:
        return installed
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("the C program is not installed and there is no C compiler")
    program = tmp_path_factory.mktemp("native") / "ippmpi-rank"
    flags = ("-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Werror")
    with as_file(files("ippmpi.native").joinpath("src", "rank.c")) as source:
        subprocess.run([compiler, *flags, "-o", str(program), str(source)], check=True, timeout=60)
    return str(program)


@pytest.fixture(autouse=True)
def segments() -> Iterator[None]:
    """Remove what the plain MPI programs that are killed here leave in shared memory."""
    before = set(SHARED_MEMORY.iterdir()) if SHARED_MEMORY.exists() else set()
    yield
    for segment in {*SHARED_MEMORY.glob("mpich_shm_*"), *SHARED_MEMORY.glob("sm_segment.*")} - before:
        with contextlib.suppress(FileNotFoundError):
            if segment.stat().st_uid == os.getuid():  # others may be at work
                segment.unlink()


@pytest.fixture(params=["c", "sh"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def parent(kind: str, request: pytest.FixtureRequest) -> list[str]:
    """The command that is put before a rank's own, without its options."""
    return [request.getfixturevalue("c_program")] if kind == "c" else ["sh", native.rank_script()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "node"


class Started:
    """A program with pipes, in its own session."""

    def __init__(self, command: list[str], **options: Any) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.process: subprocess.Popen[str] = subprocess.Popen(command, start_new_session=True, **pipes, **options)

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def type(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end(self) -> tuple[int, str, str]:
        """Wait for the end; return code (negative: signal), stdout, stderr."""
        out, err = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, out, err

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate(timeout=DEADLINE_S)


@pytest.fixture
def launch() -> Iterator[Callable[..., Started]]:
    """Start programs that do not outlive their test."""
    started: list[Started] = []

    def launch(command: list[str], **options: Any) -> Started:
        started.append(Started(command, **options))
        return started[-1]

    yield launch
    for one in started:
        one.kill()


Start = Callable[..., Started]


@pytest.fixture
def start(launch: Start, parent: list[str], folder: Path) -> Start:
    """Start a rank (a piece of Python) with its parent."""

    def start(code: str, **options: Any) -> Started:
        return launch([*parent, "--folder", str(folder), "--", *PYTHON, code], **options)

    return start


def records(folder: Path) -> list[str]:
    assert not list(folder.glob("*.new"))
    return sorted(path.read_text() for path in folder.glob(f"{HOST}.*.exit"))


# --- how the rank ends ---


@pytest.mark.parametrize("code", [0, 1, 42, 125, 127])
def test_an_exit_code_is_recorded_and_passed_on(start: Start, folder: Path, code: int) -> None:
    rank = start(f"import os; print(os.getpid(), flush=True); os._exit({code})")
    pid = rank.line()
    assert rank.end() == (code, "", "")
    assert (folder / f"{HOST}.{pid}.exit").read_text() == f"exit {code}\n"


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGABRT", "SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"])
def test_a_signal_that_ends_the_rank_is_recorded_and_ends_the_parent(start: Start, folder: Path, name: str) -> None:
    number = int(signal.Signals[name])
    code = f"import os, signal; signal.signal({number}, signal.SIG_DFL)" if name not in ("SIGKILL",) else "import os"
    assert start(f"{code}; os.kill(os.getpid(), {number})").end()[0] == -number
    assert records(folder) == [f"signal {number}\n"]


def test_a_program_that_is_not_there_is_named(parent: list[str], folder: Path) -> None:
    said = subprocess.run([*parent, "--folder", folder, "--", "/nonexistent/python"], capture_output=True, text=True)
    assert said.returncode == 127
    assert "ippmpi-rank: cannot run /nonexistent/python" in said.stderr
    assert records(folder) == ["exit 127\n"]


def test_a_program_that_cannot_be_run_is_named(parent: list[str], folder: Path) -> None:
    said = subprocess.run([*parent, "--folder", folder, "--", "/etc/passwd"], capture_output=True, text=True)
    assert said.returncode == 126
    assert "/etc/passwd" in said.stderr
    assert records(folder) == ["exit 126\n"]


def test_a_removed_folder_is_no_trouble_at_the_end(start: Start, folder: Path) -> None:
    rank = start("print('up', flush=True); input()")
    assert rank.line() == "up"
    folder.rmdir()
    rank.type("")
    assert rank.end() == (0, "", "")
    assert not folder.exists()


# --- what the rank finds ---


def test_stdin_stdout_and_stderr_pass_through(parent: list[str], folder: Path) -> None:
    code = "import sys; text = sys.stdin.read(); print(text.upper()); print(len(text), file=sys.stderr)"
    command = [*parent, "--folder", folder, "--", *PYTHON, code]
    said = subprocess.run(command, input="hello " * 50_000, capture_output=True, text=True, timeout=DEADLINE_S)
    assert (said.returncode, said.stdout, said.stderr) == (0, "HELLO " * 50_000 + "\n", "300000\n")


def test_arguments_pass_through_unchanged(parent: list[str], folder: Path) -> None:
    odd = ["", "a b", "$HOME", "*", "--", "--folder", "'\"\\", "new\nline"]
    command = [*parent, "--folder", folder, "--", *PYTHON, "import sys; print(sys.argv[1:])", *odd]
    said = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
    assert said.stdout == f"{odd}\n"


def test_the_rank_is_told_which_parent_it_has(start: Start, kind: str) -> None:
    rank = start("import os; print(os.environ['IPPMPI_PARENT'], os.environ['IPPMPI_PARENT_PID'] == str(os.getppid()))")
    assert rank.end() == (0, f"{kind} True\n", "")


def test_the_rank_leads_its_own_group(start: Start) -> None:
    rank = start("import os; print(os.getpgrp() == os.getpid())")
    assert rank.end()[1] == "True\n"


def test_ignored_and_blocked_signals_are_not_inherited(start: Start) -> None:
    def ignore() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})

    code = (
        "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler,"
        " signal.getsignal(signal.SIGQUIT).name, signal.getsignal(signal.SIGCHLD).name)"
    )
    assert start(code, preexec_fn=ignore).end()[:2] == (0, "True SIG_DFL SIG_DFL\n")


# --- signals ---


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGCONT"])
def test_a_signal_to_the_parent_reaches_the_rank_exactly_once(start: Start, folder: Path, name: str) -> None:
    code = f"""
import signal
seen = []
signal.signal(signal.{name}, lambda *_: seen.append(1) or print("got", flush=True))
print("up", flush=True)
input()
print(len(seen))
"""
    rank = start(code)
    assert rank.line() == "up"
    rank.process.send_signal(signal.Signals[name])
    assert rank.line() == "got"
    assert rank.process.poll() is None
    rank.type("")
    assert rank.end() == (0, "1\n", "")
    assert records(folder) == ["exit 0\n"]


def test_a_signal_to_the_whole_group_reaches_the_rank_once(start: Start) -> None:
    code = """
import signal
seen = []
signal.signal(signal.SIGINT, lambda *_: seen.append(1) or print("got", flush=True))
print("up", flush=True)
input()
print(len(seen))
"""
    rank = start(code)
    assert rank.line() == "up"
    os.killpg(rank.process.pid, signal.SIGINT)  # as a terminal's Ctrl-C does
    assert rank.line() == "got"
    rank.type("")
    assert rank.end() == (0, "1\n", "")


def test_many_signals_do_not_disturb_the_wait(start: Start, folder: Path) -> None:
    code = """
import signal
signal.signal(signal.SIGUSR1, lambda *_: None)
print("up", flush=True)
input()
signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # else a late one meets the default action while Python shuts down
"""
    rank = start(code)
    assert rank.line() == "up"
    for _ in range(200):
        rank.process.send_signal(signal.SIGUSR1)
    rank.type("")
    assert rank.end()[0] == 0
    assert records(folder) == ["exit 0\n"]


def test_a_rank_that_a_passed_signal_ends_is_recorded_as_that(start: Start, folder: Path) -> None:
    rank = start("import time; print('up', flush=True); time.sleep(600)")
    assert rank.line() == "up"
    rank.process.terminate()
    assert rank.end()[0] == -signal.SIGTERM
    assert records(folder) == [f"signal {int(signal.SIGTERM)}\n"]


def test_stop_and_continue_reach_the_rank(start: Start) -> None:
    def state(pid: int) -> str:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]

    rank = start("import os; print(os.getpid(), flush=True); input()")
    pid = int(rank.line())
    rank.process.send_signal(signal.SIGTSTP)
    eventually(lambda: state(pid) == "T", what="the rank is stopped")
    rank.process.send_signal(signal.SIGCONT)
    eventually(lambda: state(pid) == "S", what="the rank goes on")
    rank.type("")
    assert rank.end()[0] == 0


# --- nothing outlives the rank, the rank does not outlive its parent ---

WITH_CHILD = """
import os, subprocess, sys
child = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(os.getpid(), child.pid, flush=True)
input()
os._exit(5)
"""


def test_what_the_rank_leaves_behind_is_killed(start: Start) -> None:
    rank = start(WITH_CHILD)
    _, grandchild = map(int, rank.line().split())
    assert alive(grandchild)
    rank.type("")
    assert rank.end()[0] == 5
    eventually(lambda: not alive(grandchild), what="the rank's child was killed")


@pytest.mark.parametrize("kind", ["c"], indirect=True)  # under the script the engine sees to it (IPPMPI_PARENT=sh)
def test_the_rank_dies_with_its_parent(start: Start) -> None:
    rank = start("import os; print(os.getpid(), flush=True); input()")
    pid = int(rank.line())
    rank.process.kill()
    eventually(lambda: not alive(pid), what="the kernel killed the rank")


# --- the folder of exit records ---


def refusal(parent: list[str], folder: Path) -> str:
    said = subprocess.run([*parent, "--folder", folder, "--", "echo", "ran"], capture_output=True, text=True)
    assert (said.returncode, said.stdout) == (125, "")
    assert str(folder) in said.stderr
    return said.stderr


def test_the_folder_is_made_for_its_owner_alone(start: Start, folder: Path) -> None:
    assert start("pass").end()[0] == 0
    assert folder.stat().st_mode & 0o777 == 0o700
    (record,) = folder.iterdir()
    assert record.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_folder_that_others_can_enter_is_refused(parent: list[str], folder: Path, mode: int) -> None:
    folder.mkdir()
    folder.chmod(mode)
    assert "must have mode 0700" in refusal(parent, folder)


def test_a_link_is_refused(parent: list[str], folder: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "real")
    assert "must be a folder" in refusal(parent, folder)


def test_a_file_is_refused(parent: list[str], folder: Path) -> None:
    folder.write_text("")
    assert "must be a folder" in refusal(parent, folder)


def test_a_folder_of_another_user_is_refused(parent: list[str], folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("cannot be had here: only root can make another user's folder")
    folder.mkdir(mode=0o700)
    os.chown(folder, 65534, 65534)
    assert "belongs to another user" in refusal(parent, folder)


@pytest.mark.parametrize("arguments", [[], ["--folder"], ["--folder", "x", "--"], ["--file", "x", "--", "true"]])
def test_wrong_use_is_explained(parent: list[str], arguments: list[str]) -> None:
    said = subprocess.run([*parent, *arguments], capture_output=True, text=True)
    assert said.returncode == 125
    assert "--folder DIR -- PROGRAM" in said.stderr


def test_the_command_names_folder_and_ends_where_the_rank_begins() -> None:
    assert native.rank_command("/tmp/x")[-3:] == ["--folder", "/tmp/x", "--"]
    assert native.describe().startswith("rank parent: ")


# --- under mpiexec ---


MPIS = [
    pytest.param("mpich", marks=pytest.mark.mpi),
    pytest.param("openmpi", marks=[pytest.mark.mpi, pytest.mark.openmpi]),
]


@pytest.fixture(params=MPIS)
def mpi(request: pytest.FixtureRequest) -> Path:
    """The folder of an environment with one MPI."""
    if request.param == "openmpi":
        return Path(request.getfixturevalue("openmpi"))
    folder = Path(sys.prefix)
    if not (folder / "bin" / "mpiexec.hydra").exists():
        pytest.skip("this environment has no MPICH (make install MPI=mpich)")
    return folder


@pytest.fixture
def mpirun(launch: Start, mpi: Path, parent: list[str], folder: Path) -> Start:
    """Start two ranks with their parents under mpiexec."""
    options = [] if (mpi / "bin" / "mpiexec.hydra").exists() else ["--oversubscribe", "--bind-to", "none"]
    root = {f"{system}_ALLOW_RUN_AS_ROOT{end}": "1" for system in ("OMPI", "PRTE") for end in ("", "_CONFIRM")}
    mpiexec = ["timeout", "-k", "5", "60", str(mpi / "bin" / "mpiexec"), *options, "-n", "2"]
    python = [str(mpi / "bin" / "python"), "-I", "-u", "-c"]

    def mpirun(code: str) -> Started:
        command = [*mpiexec, *parent, "--folder", str(folder), "--", *python, RANK + code]
        return launch(command, env={**os.environ, **root})

    return mpirun


RANK = """
import ctypes, os, signal, sys, time
if os.environ["IPPMPI_PARENT"] == "sh":  # as the engine does
    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))
from mpi4py import MPI
rank, size = MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size
def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())  # one write: lines of ranks do not mix
"""


def pids_of_ranks(run: Started, ranks: int = 2) -> list[int]:
    """Read ``<rank> <pid>`` lines of all ranks; returned in the order of ranks."""
    lines = [run.line() for _ in range(ranks)]
    assert all(lines), f"it ended with {run.end()} after {lines}"
    found = dict(tuple(map(int, line.split())) for line in lines)
    return [found[rank] for rank in range(ranks)]


def test_ranks_under_mpiexec_end_well(mpirun: Start, folder: Path) -> None:
    code = "say(size, MPI.COMM_WORLD.allreduce(rank), os.getpgrp() == os.getpid())"
    run = mpirun(code)
    returned, out, err = run.end()
    assert (returned, out.splitlines()) == (0, ["2 1 True"] * 2), err
    assert records(folder) == ["exit 0\n"] * 2


def test_stdin_reaches_rank_0(mpirun: Start) -> None:
    run = mpirun("say(input() if rank == 0 else 'none')")
    run.type("for rank 0")
    assert sorted([run.line(), run.line()]) == ["for rank 0", "none"]
    assert run.end()[0] == 0


def test_an_exit_code_gets_through_mpiexec(mpirun: Start, folder: Path) -> None:
    code = "MPI.COMM_WORLD.Barrier(); MPI.Finalize(); os._exit(7)"
    returned, _, err = mpirun(code).end()
    # mpiexec kills the other rank's parent as soon as it sees the first, perhaps before it could write; MPICH's then
    # returns that signal, so on a busy machine 9 says nothing about our part
    assert returned in (7, 9), err
    assert "exit 7\n" in [path.read_text() for path in folder.glob("*.exit")]


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV"])
def test_a_rank_that_dies_ends_the_world_and_is_recorded(mpirun: Start, folder: Path, name: str) -> None:
    code = "say(rank, os.getpid())\n"
    if name != "SIGKILL":  # some MPI libraries catch it, to print a stack
        code += f"signal.signal(signal.{name}, signal.SIG_DFL)\n"
    code += f"MPI.COMM_WORLD.Barrier(); os.kill(os.getpid(), signal.{name}) if rank == 1 else time.sleep(600)"
    run = mpirun(code)
    pids = pids_of_ranks(run)
    assert run.end()[0] != 0
    assert (folder / f"{HOST}.{pids[1]}.exit").read_text() == f"signal {int(signal.Signals[name])}\n"
    eventually(lambda: not any(map(alive, pids)), what="both ranks are gone")


def test_sigterm_to_mpiexec_ends_everything(mpirun: Start) -> None:
    run = mpirun("say(rank, os.getpid()); time.sleep(600)")
    pids = pids_of_ranks(run)
    os.killpg(run.process.pid, signal.SIGTERM)
    run.end()
    eventually(lambda: not any(map(alive, pids)), what="both ranks are gone")


def test_sigusr1_to_mpiexec_reaches_every_rank_once(mpirun: Start) -> None:
    code = "seen = []; signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))\n"
    code += "say(rank, os.getpid())\nwhile not seen: time.sleep(0.01)\n"
    code += "MPI.COMM_WORLD.Barrier(); say('seen', len(seen))"
    run = mpirun(code)
    pids_of_ranks(run)
    (mpiexec,) = children(run.process.pid)
    os.kill(mpiexec, signal.SIGUSR1)
    returned, out, err = run.end()
    assert (returned, out.splitlines()) == (0, ["seen 1"] * 2), err


def test_sigkill_of_mpiexec_leaves_no_rank(mpirun: Start) -> None:
    run = mpirun("say(rank, os.getpid()); time.sleep(600)")
    pids = pids_of_ranks(run)
    (mpiexec,) = children(run.process.pid)
    os.kill(mpiexec, signal.SIGKILL)
    run.end()
    eventually(lambda: not any(map(alive, pids)), what="both ranks are gone")


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
