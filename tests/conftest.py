"""Rules of the whole suite: in CI nothing is skipped silently, and nothing that a test started stays behind."""

from __future__ import annotations

import os
import uuid
from collections.abc import Generator
from pathlib import Path

import pytest

from helpers import PROC, alive, eventually

CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")
ALLOWED_SKIP = "cannot be had here:"
MARK = "IPPMPI_TEST_SESSION"  # in the environment of whatever a test starts
LEAVE_S = 10.0  # how long the last processes may take to end


# --- a missing tool skips on a laptop and fails in CI ---


def _forbid_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not (CI and report.skipped) or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    if not reason.startswith(ALLOWED_SKIP):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {reason}\nCI must have this, or the reason starts with {ALLOWED_SKIP!r}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _forbid_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _forbid_skip(report)
    return report


# --- nothing stays behind ---


def _environment(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes()
    except OSError:  # it has ended, or belongs to somebody else
        return b""


def _command(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def _processes() -> set[tuple[int, str]]:
    """Processes that carry our mark; in CI, where nobody else works, also those that are called ippmpi."""
    mark = f"{MARK}={os.environ.get(MARK, '')}".encode()
    found = set()
    for process in PROC.glob("[0-9]*"):
        pid, command = int(process.name), _command(process)
        if pid == os.getpid() or not alive(pid):
            continue
        if mark in _environment(process).split(b"\0") or (CI and "ippmpi" in command):
            found.add((pid, command))
    return found


def _files() -> set[str]:
    found = [*Path("/dev/shm").glob("*"), *Path("/tmp").glob("ippmpi-*")]
    return {str(path) for path in found}


class Leaks:
    """Compares what is there before the first and after the last test."""

    def __init__(self) -> None:
        self.processes = _processes()
        self.files = _files()
        self.found: list[str] = []

    def look(self) -> list[str]:
        """Name what is new. Files count in CI only: elsewhere they may belong to other tests at the same time."""
        processes = [f"process {pid}: {command}" for pid, command in sorted(_processes() - self.processes)]
        return processes + [f"file {path}" for path in sorted(_files() - self.files) if CI]


LEAKS = pytest.StashKey[Leaks]()


def pytest_sessionstart(session: pytest.Session) -> None:
    os.environ[MARK] = uuid.uuid4().hex
    session.config.stash[LEAKS] = Leaks()


def pytest_sessionfinish(session: pytest.Session) -> None:
    leaks = session.config.stash[LEAKS]
    try:
        eventually(lambda: not leaks.look(), LEAVE_S, "everything that the tests started has ended")
    except AssertionError:
        leaks.found = leaks.look()
    if leaks.found and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    leaks = config.stash[LEAKS].found
    if leaks:
        terminalreporter.section("left behind by the tests", red=True)
        for leak in leaks:
            terminalreporter.line(leak)


# --- fixtures of several folders ---


@pytest.fixture(scope="session")
def openmpi() -> Path:
    """The folder of a virtual environment with Open MPI and ippmpi (``.ci/run`` makes one)."""
    folder = os.environ.get("IPPMPI_TEST_OPENMPI", "")
    if not folder:
        pytest.skip("IPPMPI_TEST_OPENMPI does not name a virtual environment with Open MPI (make install MPI=openmpi)")
    return Path(folder)
