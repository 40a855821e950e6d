"""The supervisor of a foreground cluster, with a cluster that follows a script."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from ippmpi.cli import foreground
from ippmpi.errors import LaunchError


class Killed:
    """A cluster whose controller has ended with *code*; *starts* says which attempts to start it again succeed."""

    def __init__(self, file: Path, code: int, *starts: bool) -> None:
        self.cluster_file = file
        self.engines: dict[str, object] = {}
        self.starts = list(starts)
        self.attempts = 0
        self.controller = SimpleNamespace(poll=lambda: code, identity=SimpleNamespace(pid=7))
        self.running = False
        file.touch()

    def restore_controller_sync(self) -> None:
        self.attempts += 1
        if not self.starts:
            self.cluster_file.unlink()
        elif not self.starts.pop(0):
            raise LaunchError("no port", "")


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreground, "FIRST_PAUSE_S", 0.0001)
    monkeypatch.setattr(foreground, "MOST_RESTARTS", 4)


def test_a_controller_that_is_killed_again_and_again_is_given_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = Killed(tmp_path / "c", -9, *[True] * 100)
    foreground.supervise(cluster)  # type: ignore[arg-type]
    assert cluster.attempts == 4
    text = (
        "the controller was ended by signal 9; it was started again 4 times in 0 s: giving up, the cluster is stopped"
    )
    assert text in capsys.readouterr().out


def test_a_start_that_fails_is_tried_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cluster = Killed(tmp_path / "c", -9, False, True)
    foreground.supervise(cluster)  # type: ignore[arg-type]
    assert cluster.attempts == 3
    assert "error: no port" in capsys.readouterr().out


def test_a_controller_that_ends_well_is_not_started_again(tmp_path: Path) -> None:
    cluster = Killed(tmp_path / "c", 0, True)
    foreground.supervise(cluster)  # type: ignore[arg-type]
    assert cluster.attempts == 0


def test_a_controller_that_fails_is_started_again_as_often_as_one_that_is_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = Killed(tmp_path / "c", 3, *[True] * 100)
    foreground.supervise(cluster)  # type: ignore[arg-type]
    assert cluster.attempts == 4
    said = capsys.readouterr().out
    assert "the controller has failed with exit code 3; starting it again" in said
    assert "giving up" in said


def test_a_cluster_that_was_stopped_is_not_started_again(tmp_path: Path) -> None:
    cluster = Killed(tmp_path / "c", -9, True)
    cluster.cluster_file.unlink()
    foreground.supervise(cluster)  # type: ignore[arg-type]
    assert cluster.attempts == 0


def test_the_pause_grows_with_recent_restarts_only() -> None:
    now = 1000.0
    assert foreground._pause_s([], now) == foreground._pause_s([900.0], now) == 0
    assert foreground._pause_s([999.0, 998.0], now) == 2 * foreground._pause_s([999.0], now)
    assert foreground._pause_s([now] * 50, now) == foreground.LONGEST_PAUSE_S
