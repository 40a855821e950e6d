from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from helpers import eventually
from ippmpi import identity
from ippmpi.errors import LaunchError
from ippmpi.launching import OUTPUT_LINES, JobSpec, Launcher, Process, State, read_tail


class Programs(Launcher):
    """Runs the same program n times."""

    name: ClassVar[str] = "programs"

    def prepare(self, spec: JobSpec) -> JobSpec:
        return spec

    def argv(self, spec: JobSpec) -> list[list[str]]:
        return [[*spec.program, str(i)] for i in range(spec.n)]


class Jobs:
    """Makes launchers and ends them with the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: list[Launcher] = []

    def __call__(self, code: str, n: int = 1, **changes: object) -> Programs:
        fields = {
            "n": n,
            "world": "w",
            "program": (sys.executable, "-c", code),
            "log_file": str(self.folder / "log" / "job.log"),
            "work_dir": str(self.folder),
        }
        launcher = Programs(JobSpec(**(fields | changes)))  # type: ignore[arg-type]
        self.made.append(launcher)
        return launcher


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Jobs]:
    jobs = Jobs(tmp_path)
    yield jobs
    for launcher in jobs.made:
        launcher.stop()


SLEEP = "import time; print('started', flush=True); time.sleep(60)"


def test_a_job_runs_in_its_folder_with_its_environment_and_no_input(job: Jobs, tmp_path: Path) -> None:
    launcher = job(
        "import os, sys; print(os.getcwd(), os.environ['EXTRA'], repr(sys.stdin.read()), sys.argv[1])",
        environment={"EXTRA": "value"},
    )
    assert launcher.state is State.BEFORE
    launcher.start()
    assert launcher.wait(10)
    assert launcher.state is State.AFTER
    assert launcher.get_output() == f"{tmp_path} value '' 0\n"


def test_every_program_has_a_session_of_its_own(job: Jobs) -> None:
    launcher = job("import os, sys; sys.exit(os.getsid(0) != os.getpid())", n=2)
    launcher.start()
    assert launcher.wait(10)
    assert launcher.poll() == 0


def test_the_log_is_for_its_owner_only(job: Jobs) -> None:
    launcher = job("print(1)")
    launcher.start()
    assert os.stat(launcher.spec.log_file).st_mode & 0o077 == 0


def test_poll_gives_the_first_bad_exit_code_when_all_have_ended(job: Jobs) -> None:
    launcher = job("import sys, time; sys.exit(3) if sys.argv[1] == '0' else time.sleep(60)", n=2)
    launcher.start()
    eventually(launcher.failed)
    assert launcher.poll() is None
    launcher.stop()
    assert launcher.poll() == 3


def test_a_failure_tells_cause_and_the_last_lines(job: Jobs) -> None:
    launcher = job("for i in range(100): print('line', i)\nprint('ippmpi-engine: error: no luck')\nraise SystemExit(7)")
    launcher.start()
    assert launcher.wait(10)
    error = launcher.failure()
    assert str(error).startswith("1 engines started with programs: ended with exit code 7: no luck\n")
    lines = error.output.splitlines()
    assert len(lines) == OUTPUT_LINES
    assert lines[-2:] == ["line 99", "ippmpi-engine: error: no luck"]


def test_a_failure_by_a_signal_names_it(job: Jobs) -> None:
    launcher = job("import os; os.kill(os.getpid(), 11)")
    launcher.start()
    assert launcher.wait(10)
    assert "ended by SIGSEGV: no known cause" in str(launcher.failure())


@pytest.mark.parametrize("missing", ["program", "folder"])
def test_what_is_missing_is_named(job: Jobs, tmp_path: Path, missing: str) -> None:
    gone = str(tmp_path / "gone")
    launcher = job("", **({"program": (gone,)} if missing == "program" else {"work_dir": gone}))
    with pytest.raises(LaunchError, match=f"there is no {gone}"):
        launcher.start()


def test_stop_kills_what_ignores_sigterm_and_what_it_started(job: Jobs) -> None:
    launcher = job(
        "import signal, subprocess; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '60']); print(child.pid, flush=True); child.wait()"
    )
    launcher.start()
    child = identity.identify(int(eventually(launcher.get_output)))
    launcher.stop()
    assert launcher.poll() == -signal.SIGKILL
    eventually(lambda: identity.alive(child) is False)


def test_stop_lets_a_job_end_by_itself(job: Jobs) -> None:
    launcher = job("import time; time.sleep(0.2); raise SystemExit(5)")
    launcher.start()
    launcher.stop(10)
    assert launcher.poll() == 5


def test_signals_reach_the_programs(job: Jobs) -> None:
    launcher = job(SLEEP, n=2)
    launcher.start()
    launcher.signal(signal.SIGUSR1)
    assert launcher.wait(10)
    assert launcher.poll() == -signal.SIGUSR1


def test_another_process_can_go_on_with_a_job(job: Jobs) -> None:
    launcher = job(SLEEP, n=2)
    launcher.start()
    eventually(launcher.get_output)
    again = Programs.from_dict(launcher.to_dict())
    assert again.spec == launcher.spec
    assert again.state is State.RUNNING
    assert "started" in again.get_output()
    again.stop()
    assert again.state is State.AFTER
    assert launcher.poll() == -signal.SIGTERM


def test_a_pid_that_was_given_to_another_process_is_not_touched(job: Jobs) -> None:
    launcher = job(SLEEP)
    launcher.start()
    saved = launcher.to_dict()
    saved["processes"] = [{**p, "started": p["started"] - 1} for p in saved["processes"]]  # type: ignore[attr-defined]
    again = Programs.from_dict(saved)
    assert again.state is State.AFTER
    again.stop()
    assert launcher.state is State.RUNNING


def test_a_detached_job_lives_on_without_a_warning(job: Jobs) -> None:
    launcher = job(SLEEP)
    launcher.start()
    process = Process(launcher.processes[0].identity)
    launcher.detach()
    del launcher.processes[:]
    assert process.poll() is None
    process.signal(signal.SIGKILL)
    # a detached process is still our child as far as the kernel is concerned
    os.waitpid(process.identity.pid, 0)
    assert process.poll() == 0


def test_a_program_that_ends_at_once_is_not_lost(job: Jobs) -> None:
    launcher = job("", program=("true",), n=20)
    launcher.start()
    assert launcher.wait(10)
    assert launcher.poll() == 0


def test_waiting_ends_in_time(job: Jobs) -> None:
    launcher = job(SLEEP)
    launcher.start()
    began = time.monotonic()
    assert launcher.wait(0.1) is False
    assert time.monotonic() - began < 2


def test_a_log_that_does_not_exist_is_empty(tmp_path: Path) -> None:
    assert read_tail(tmp_path / "none") == ""


def test_only_the_end_of_a_huge_log_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * 2_000_000 + b"\nlast \xff line\n")
    assert read_tail(log, 1) == "last \N{REPLACEMENT CHARACTER} line"
    assert len(read_tail(log)) <= 1_000_000
