from __future__ import annotations

import pytest

from ippmpi import plugins
from ippmpi.errors import LaunchError
from ippmpi.launching import JobSpec


def spec(**changes: object) -> JobSpec:
    fields = {"n": 3, "world": "w", "program": ("engine", "--size", "3"), "log_file": "/l", "work_dir": "/"}
    return JobSpec(**(fields | changes))  # type: ignore[arg-type]


def test_each_process_is_told_its_rank() -> None:
    launcher = plugins.load("ippmpi.launchers", "local")(spec())
    assert launcher.argv(launcher.prepare(launcher.spec)) == [
        ["engine", "--size", "3", "--local-rank", "0"],
        ["engine", "--size", "3", "--local-rank", "1"],
        ["engine", "--size", "3", "--local-rank", "2"],
    ]
    assert not launcher.remote(())


def test_hosts_are_refused() -> None:
    launcher = plugins.load("ippmpi.launchers", "local")(spec(hosts=("a", "b")))
    with pytest.raises(LaunchError, match=r"hosts=\['a', 'b'\] use 'mpi'"):
        launcher.start()
