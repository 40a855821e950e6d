from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from ippmpi import connection
from ippmpi.cluster.leftovers import wait_unused


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "node"
    path.mkdir()
    return path


def test_a_folder_without_locks_is_not_waited_for(folder: Path) -> None:
    (folder / f"{connection.host_prefix()}-12345678.agent").touch()
    started = time.monotonic()
    wait_unused(str(folder), 30)
    wait_unused(str(folder / "never"), 30)
    assert time.monotonic() - started < 5


def test_an_agent_has_time_to_leave(folder: Path) -> None:
    fd = connection.take_lock(folder / f"{connection.host_prefix()}-12345678.lock")
    started = time.monotonic()
    wait_unused(str(folder), 0.2)
    assert time.monotonic() - started >= 0.2
    leaves = threading.Timer(0.2, os.close, (fd,))
    leaves.start()
    wait_unused(str(folder), 30)
    assert time.monotonic() - started < 10
    leaves.join()


def test_an_agent_may_remove_its_folder_at_any_moment(folder: Path) -> None:
    ended = threading.Event()

    def come_and_go() -> None:
        while not ended.is_set():
            folder.mkdir(exist_ok=True)
            shutil.rmtree(folder)

    agent = threading.Thread(target=come_and_go)
    agent.start()
    try:
        for _ in range(5000):
            wait_unused(str(folder), 1)
    finally:
        ended.set()
        agent.join()
