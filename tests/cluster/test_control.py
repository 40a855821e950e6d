from __future__ import annotations

import time
from pathlib import Path

import pytest

from helpers import alive
from ippmpi import config
from ippmpi.cluster import control
from ippmpi.config import ClusterSettings
from ippmpi.errors import LaunchError


@pytest.fixture
def settings(tmp_path: Path) -> ClusterSettings:
    return config.load(ClusterSettings, {"profile_dir": tmp_path, "cluster_id": "a", "start_timeout_s": 5}, {})


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file of a module that is started in place of the controller."""
    monkeypatch.setattr(control, "MODULE", "controller_for_a_test")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "controller_for_a_test.py"


READY = "import os, sys, time; os.write(int(sys.argv[sys.argv.index('--ready-fd') + 1]), b'ready\\n')\n"


def test_a_controller_is_told_what_it_needs_and_says_when_it_is_ready(
    settings: ClusterSettings, program: Path, tmp_path: Path
) -> None:
    program.write_text("import sys; print(sys.argv[1:], flush=True)\n" + READY + "time.sleep(60)")
    process = control.start_controller(settings, "10.0.0.1", tmp_path / "log")
    said = (tmp_path / "log").read_text()
    assert f"'--profile-dir', '{tmp_path}', '--cluster-id', 'a', '--ip', '10.0.0.1', '--ready-fd'" in said
    control.end_process(process, 0.0)
    assert process.poll() == -9


def test_a_controller_that_ends_is_reported_at_once_with_its_output(
    settings: ClusterSettings, program: Path, tmp_path: Path
) -> None:
    program.write_text("raise SystemExit('no good')")
    began = time.monotonic()
    with pytest.raises(LaunchError, match=r"controller ended \(exit code 1\)") as caught:
        control.start_controller(settings, "", tmp_path / "log")
    assert caught.value.output == "no good"
    assert time.monotonic() - began < 2


def test_a_controller_that_never_gets_ready_is_killed(settings: ClusterSettings, program: Path, tmp_path: Path) -> None:
    program.write_text("import os, time; print(os.getpid(), flush=True); time.sleep(60)")
    with pytest.raises(LaunchError, match=r"was not ready within 1 s"):
        control.start_controller(config.replace(settings, start_timeout_s=1), "", tmp_path / "log")
    assert not alive(int((tmp_path / "log").read_text()))


def test_a_routable_address_is_one_of_this_machine_or_all() -> None:
    address = control.routable_address(["no.such.host.invalid:2"])
    assert address == "*" or not address.startswith("127.")


def test_an_address_for_this_machine_itself_is_not_loopback() -> None:
    assert not control.routable_address(["127.0.0.1"]).startswith("127.")
