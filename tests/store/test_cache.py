"""The cache of results, on real files and with its real thread."""

from __future__ import annotations

import os
import queue
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers import eventually
from ippmpi import clock
from ippmpi.core.effects import Cached, Found, Uncache
from ippmpi.store.cache import Cache
from ippmpi.store.cachefile import ROW_BYTES, CacheFile, CacheLimits, Value


class Loop:
    """Calls what comes from the thread when the test waits for it."""

    def __init__(self) -> None:
        self.calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def call_soon(self, call: Callable[[], None]) -> None:
        self.calls.put(call)

    def run(self) -> None:
        self.calls.get(timeout=10)()


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., CacheFile]]:
    files = []

    def make(**limits: Any) -> CacheFile:
        files.append(CacheFile(tmp_path / "cache", CacheLimits(**limits)))
        return files[-1]

    yield make
    for file in files:
        file.close()


def get(file: CacheFile, digest: str, tmp_path: Path) -> bytes | None:
    target = tmp_path / f"taken-{digest}"
    value = file.get(digest, target)
    if value is None:
        assert not target.exists()
        return None
    if value.content is not None:
        return value.content
    assert value == Value(value.size, None, target)
    data = target.read_bytes()
    target.unlink()
    return data


def large(tmp_path: Path, data: bytes = b"large" * 1000) -> Path:
    path = tmp_path / "spooled"
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    return path


# --- the file ------------------------------------------------------------------------------------


def test_a_value_is_found_again_also_by_the_next_one_who_opens_the_file(
    opened: Callable[..., CacheFile], tmp_path: Path
) -> None:
    first = opened()
    assert first.put("aa", "f", b"value", 5)
    assert first.put("bb", "g", large(tmp_path), 5000)
    large(tmp_path).unlink()  # the spool's file goes
    for file in (first, opened()):
        assert get(file, "aa", tmp_path) == b"value"
        assert get(file, "bb", tmp_path) == b"large" * 1000
        assert get(file, "cc", tmp_path) is None


def test_a_large_value_is_copied_from_and_to_another_disk(opened: Callable[..., CacheFile], tmp_path: Path) -> None:
    other = Path("/dev/shm") / f"ippmpi-test-{os.getpid()}"
    if not other.parent.is_dir() or other.parent.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other disk here")
    file = opened()
    try:
        other.write_bytes(b"x" * 100_000)
        assert file.put("aa", "f", other, 100_000)
        other.unlink()
        value = file.get("aa", other)
        assert value is not None
        assert value.path is not None
        assert value.path.read_bytes() == b"x" * 100_000
    finally:
        other.unlink(missing_ok=True)


def test_a_value_that_comes_again_takes_the_place_of_the_first(
    opened: Callable[..., CacheFile], tmp_path: Path
) -> None:
    file = opened()
    for value in (b"one", b"two"):
        file.put("aa", "f", value, 3)
    for data in (b"a" * 100, b"b" * 100):
        file.put("bb", "f", large(tmp_path, data), 100)
    assert get(file, "aa", tmp_path) == b"two"
    assert get(file, "bb", tmp_path) == b"b" * 100
    assert file.counts()["entries"] == 2


def test_what_was_used_longest_ago_goes_first(
    opened: Callable[..., CacheFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(clock, "now", lambda: now)
    file = opened(entries=10)
    for number in range(10):
        now += 1
        file.put(f"a{number}", "f", b"v", 1)
    now += 1
    assert get(file, "a0", tmp_path) == b"v"
    now += 1
    file.put("b0", "f", b"v", 1)
    found = {entry["digest"] for entry in file.list(100)}
    assert found == {"a0", "b0", *(f"a{number}" for number in range(3, 10))}


def test_bytes_are_bounded_and_a_value_that_is_too_large_is_not_kept(
    opened: Callable[..., CacheFile], tmp_path: Path
) -> None:
    file = opened(bytes=40_000)
    assert not file.put("aa", "f", large(tmp_path, b"x" * 10_001), 10_001)
    for number in range(20):
        assert file.put(f"a{number}", "f", large(tmp_path, b"x" * 9_000), 9_000)
    counts = file.counts()
    assert counts["bytes"] == counts["entries"] * (9_000 + ROW_BYTES) <= 40_000
    assert len(list((tmp_path / "cache" / "values").iterdir())) == counts["entries"]
    assert get(file, "a19", tmp_path) is not None


def test_what_was_not_used_for_long_is_dropped(
    opened: Callable[..., CacheFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(clock, "now", lambda: now)
    file = opened(age_s=100.0)
    file.put("aa", "f", b"v", 1)
    file.put("bb", "f", b"v", 1)
    now += 90
    assert get(file, "bb", tmp_path) == b"v"
    now += 20
    assert file.prune() == 1
    assert [entry["digest"] for entry in file.list(10)] == ["bb"]


def test_entries_are_listed_and_dropped_by_name_by_digest_or_all(
    opened: Callable[..., CacheFile], tmp_path: Path
) -> None:
    file = opened()
    file.put("aa", "f", b"v", 1)
    file.put("bb", "f", large(tmp_path), 5000)
    file.put("cc", "g", b"v", 1)
    file.put("dd", "h", b"v", 1)
    get(file, "aa", tmp_path)
    get(file, "aa", tmp_path)
    assert {entry["digest"] for entry in file.list(10, "f")} == {"aa", "bb"}
    assert file.list(1)[0] | {"created": 0, "used": 0} == {
        "digest": "aa", "name": "f", "size": 1, "created": 0, "used": 0, "hits": 2,
    }  # fmt: skip
    assert file.drop([], ["f"]) == 2
    assert file.drop(["cc", "nothing", "../cache.sqlite"]) == 1
    assert list((tmp_path / "cache" / "values").iterdir()) == []
    assert get(file, "dd", tmp_path) == b"v"
    assert file.drop([], everything=True) == 1
    assert file.list(10) == []


def test_a_value_whose_file_is_gone_is_not_found_any_more(opened: Callable[..., CacheFile], tmp_path: Path) -> None:
    file = opened()
    file.put("aa", "f", large(tmp_path), 5000)
    (tmp_path / "cache" / "values" / "aa").unlink()
    assert get(file, "aa", tmp_path) is None
    assert file.list(10) == []


def test_a_value_file_of_the_wrong_length_is_not_used(opened: Callable[..., CacheFile], tmp_path: Path) -> None:
    file = opened()
    file.put("aa", "f", large(tmp_path), 5000)
    (tmp_path / "cache" / "values" / "aa").write_bytes(b"short")
    assert get(file, "aa", tmp_path) is None


def test_two_controllers_may_use_one_folder(opened: Callable[..., CacheFile], tmp_path: Path) -> None:
    one, two = opened(), opened()
    one.put("aa", "f", b"v", 1)
    two.put("bb", "f", large(tmp_path), 5000)
    assert get(two, "aa", tmp_path) == b"v"
    assert get(one, "bb", tmp_path) == b"large" * 1000
    one.drop(["bb"])
    assert get(two, "bb", tmp_path) is None


def test_old_value_files_without_an_entry_are_removed(
    opened: Callable[..., CacheFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = opened()
    file.put("aa", "f", large(tmp_path), 5000)
    stray = tmp_path / "cache" / "values" / "bb"
    stray.write_bytes(b"x")
    opened()
    assert stray.exists(), "another controller may be about to enter it"
    later = clock.now() + 2 * 86400
    monkeypatch.setattr(clock, "now", lambda: later)
    opened()
    assert not stray.exists()
    assert (tmp_path / "cache" / "values" / "aa").exists()


def test_a_damaged_file_is_put_aside(opened: Callable[..., CacheFile], tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir(mode=0o700)
    (tmp_path / "cache" / "cache.sqlite").write_bytes(b"this is no database" * 1000)
    file = opened()
    assert file.put("aa", "f", b"v", 1)
    assert [path.name.rpartition("-")[0] for path in (tmp_path / "cache").glob("*damaged*")] == ["cache.sqlite.damaged"]


def test_a_folder_that_others_may_enter_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir(mode=0o755)
    (tmp_path / "cache").chmod(0o755)
    with pytest.raises(OSError, match=r"must be a folder of user .* with mode 0700"):
        CacheFile(tmp_path / "cache", CacheLimits())


def test_a_file_of_another_version_is_left_alone(opened: Callable[..., CacheFile], tmp_path: Path) -> None:
    opened()
    db = sqlite3.connect(tmp_path / "cache" / "cache.sqlite")
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(sqlite3.Error, match="a cache of version 99, this is version 1"):
        CacheFile(tmp_path / "cache", CacheLimits())


# --- the thread ----------------------------------------------------------------------------------


def test_nothing_is_made_before_the_first_question(tmp_path: Path, loop: Loop) -> None:
    cache = Cache(tmp_path / "cache", loop.call_soon)
    assert not (tmp_path / "cache").exists()
    cache.close()


def test_answers_come_in_order_so_what_was_put_is_found(tmp_path: Path, loop: Loop) -> None:
    cache = Cache(tmp_path / "cache", loop.call_soon)
    got: list[object] = []
    cache.get("aa", tmp_path, got.append)
    cache.put("aa", "f", b"value", 5, lambda: got.append("put"))
    cache.get("aa", tmp_path, got.append)
    cache.consult(Cached(), lambda found: got.append(found.value["entries"][0]["hits"]))  # type: ignore[index]
    cache.consult(Uncache(names=["f"]), got.append)
    cache.get("aa", tmp_path, got.append)
    cache.close()
    while not loop.calls.empty():
        loop.run()
    assert got == [None, "put", Value(5, b"value"), 1, Found(1), None]


def test_uses_are_written_down_soon_also_if_nothing_more_comes(tmp_path: Path, loop: Loop) -> None:
    cache = Cache(tmp_path / "cache", loop.call_soon)
    cache.put("aa", "f", b"value", 5, lambda: None)
    cache.get("aa", tmp_path, lambda _: None)
    loop.run()
    loop.run()
    other = CacheFile(tmp_path / "cache", CacheLimits())
    eventually(lambda: other.list(1)[0]["hits"] == 1, 10, "the use is written down")
    other.close()
    cache.close()


def test_a_cache_that_cannot_be_used_finds_nothing_and_says_so_once(
    tmp_path: Path, loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file is in the way")
    cache = Cache(tmp_path / "cache", loop.call_soon)
    got: list[object] = []
    for _ in range(3):
        cache.get("aa", tmp_path, got.append)
        cache.put("aa", "f", b"value", 5, lambda: got.append("put"))
        loop.run()
        loop.run()
    cache.consult(Cached(), got.append)
    loop.run()
    cache.close()
    assert got[:6] == [None, "put"] * 3
    assert isinstance(got[6], Found)
    assert "cannot be read or written" in got[6].error
    assert len([r for r in caplog.records if "calls run as if nothing were cached" in r.message]) == 1
