"""The lock, and nothing left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ippmpi.agent.files import Lock, remove_empty_log, remove_folder, remove_traces


def test_only_one_agent_holds_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "host.agent.lock"
    first = Lock(path)
    with pytest.raises(BlockingIOError):
        Lock(path)
    first.release()
    assert not path.exists()
    Lock(path).release()


def test_a_lock_that_was_removed_while_it_was_waited_for_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "host.agent.lock"
    real, opened = os.open, []

    def open_and_lose(*arguments: object) -> int:
        opened.append(real(*arguments))
        if len(opened) == 1:
            path.unlink()  # its last holder has just left
        return opened[-1]

    monkeypatch.setattr(os, "open", open_and_lose)
    lock = Lock(path)
    assert len(opened) == 2
    assert path.stat().st_ino == os.fstat(opened[1]).st_ino
    lock.release()


def test_only_files_of_this_host_and_world_are_removed(tmp_path: Path) -> None:
    ours = ["host.1.exit", "host.22.exit.new", "host.lock", "host.kernel-12.json", "host.kernel-12-3"]
    others = ["host2.1.exit", "host.x.exit", "host.b.1.exit", "notes"]
    for name in ours + others:
        (tmp_path / name).touch()
    remove_traces(tmp_path, "host")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)
    remove_folder(tmp_path)
    assert tmp_path.exists()


def test_an_empty_folder_goes_and_a_missing_one_is_fine(tmp_path: Path) -> None:
    folder = tmp_path / "node"
    folder.mkdir()
    remove_folder(folder)
    assert not folder.exists()
    remove_folder(folder)
    remove_traces(folder, "host")


@pytest.mark.parametrize("text", ["", "something"])
def test_a_log_goes_when_nothing_was_written(tmp_path: Path, text: str) -> None:
    path = tmp_path / "agent.log"
    with open(path, "w") as file:
        file.write(text)
        file.flush()
        remove_empty_log(file.fileno())
    assert path.exists() == bool(text)


def test_a_pipe_is_no_log() -> None:
    read, write = os.pipe()
    remove_empty_log(write)
    os.close(read)
    os.close(write)
