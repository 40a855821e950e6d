"""What engines raise, as a user catches it: each on a real cluster."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ippmpi as ipp
from clusters import defined, running, script
from ippmpi import connection

MAIN = """
    class OwnError(Exception):
        def __init__(self, code, text):
            super().__init__(text)
            self.code = code

    def divide(x):
        return 1 / x

    def own():
        raise OwnError(7, "mine")

    def different():
        raise [ValueError("v"), KeyError("k"), ZeroDivisionError("z")][engine_id]

    def leave():
        raise SystemExit(3)

    def stop():
        raise StopIteration(1)

    def cancelled():
        import concurrent.futures
        raise concurrent.futures.CancelledError()

    def unsendable():
        return (i for i in ())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("profile")


@pytest.fixture(scope="module")
def rc(folder: Path) -> Iterator[ipp.Client]:
    with running(folder, 3, "local") as (_, rc):
        for engine in rc.ids:
            rc[engine].push({"engine_id": engine}, block=True)
        yield rc


@pytest.fixture(scope="module")
def main() -> Any:
    return defined(MAIN)


def test_a_remote_exception_is_caught_by_its_type(rc: ipp.Client, main: Any) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        rc[1].apply_sync(main.divide, 0)
    error: Any = caught.value
    assert isinstance(error, ipp.RemoteError)
    assert error.args == ("division by zero",)
    assert (error.ename, error.evalue, error.rank) == ("ZeroDivisionError", "division by zero", 1)
    assert error.host
    assert error.engine_info["engine_id"] == 1
    shown = "".join(traceback.format_exception(error))
    assert shown.count("in divide") == 1
    assert "--- on engine 1 (rank 1 on " in shown


def test_a_balanced_task_and_a_map_keep_the_type_too(rc: ipp.Client, main: Any) -> None:
    view = rc.load_balanced_view()
    with pytest.raises(ZeroDivisionError):
        view.apply_sync(main.divide, 0)
    with pytest.raises(ZeroDivisionError):
        list(view.imap(main.divide, [1, 0, 2]))
    values = view.map_sync(main.divide, [1, 0, 2], return_exceptions=True)
    assert isinstance(values[1], ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        view.map_async(main.divide, [0, 1], chunksize=2).split()[0].get()


def test_code_that_is_executed_raises_its_type(rc: ipp.Client) -> None:
    with pytest.raises(ZeroDivisionError, match="engine 0"):
        rc[0].execute("1 / 0", block=True)
    with pytest.raises(NameError):
        rc[0]["no_such_name"]


def test_except_star_sorts_the_failures_of_several_engines(rc: ipp.Client, main: Any) -> None:
    seen: dict[str, Any] = {}
    try:
        rc[:].apply_sync(main.different)
    except* ValueError as group:
        seen["ValueError"] = group
    except* (KeyError, ZeroDivisionError) as group:
        seen["others"] = group
    assert [e.engine_info["engine_id"] for e in seen["ValueError"].errors] == [0]
    assert [e.engine_info["engine_id"] for e in seen["others"].errors] == [1, 2]
    assert isinstance(seen["others"], ipp.CompositeError)


def test_an_awaited_call_raises_the_type(rc: ipp.Client, main: Any) -> None:
    async def call() -> None:
        await rc[0].apply_async(main.divide, 0)

    with pytest.raises(ZeroDivisionError):
        asyncio.run(call())


def test_the_first_exception_has_its_type_although_others_still_run(rc: ipp.Client) -> None:
    wait = defined("def f():\n    import time\n    time.sleep(2 if engine_id else 0)\n    1 / 0").f
    result = rc[:].apply_async(wait)
    with pytest.raises(ipp.CompositeError) as caught:
        result.get(20, return_when=ipp.FIRST_EXCEPTION)
    assert isinstance(caught.value.errors[0], ZeroDivisionError)
    result.wait(20)


@pytest.mark.parametrize("name", ["leave", "stop", "cancelled"])
def test_what_would_confuse_the_caller_is_a_plain_remote_error(rc: ipp.Client, main: Any, name: str) -> None:
    with pytest.raises(ipp.RemoteError) as caught:
        rc[0].apply_sync(getattr(main, name))
    assert type(caught.value) is ipp.RemoteError


def test_a_type_that_is_not_known_here_is_a_remote_error_with_its_name(rc: ipp.Client, main: Any) -> None:
    with pytest.raises(ipp.RemoteError) as caught:
        rc[0].apply_sync(main.own)  # a class of a __main__ that this process does not have
    assert type(caught.value) is ipp.RemoteError
    assert (caught.value.ename, caught.value.evalue) == ("OwnError", "mine")


def test_a_result_that_cannot_be_sent_is_a_type_error(rc: ipp.Client, main: Any) -> None:
    with pytest.raises(TypeError, match="generator cannot be sent"):
        rc[0].apply_sync(main.unsendable)


def test_an_error_that_is_raised_again_does_not_collect_frames(rc: ipp.Client, main: Any) -> None:
    result = rc[0].apply_async(main.divide, 0)
    lengths = set()
    for _ in range(3):
        with pytest.raises(ZeroDivisionError) as caught:
            result.get()
        lengths.add(len(list(traceback.walk_tb(caught.value.__traceback__))))
    assert len(lengths) == 1


def test_another_client_gets_the_type_from_the_store(rc: ipp.Client, main: Any, folder: Path) -> None:
    result = rc[0].apply_async(main.divide, 0)
    result.wait(10)
    with ipp.Client(connection.path(folder, "client")) as other, pytest.raises(ZeroDivisionError):
        other.get_result(result.msg_ids[0]).get(10)


SCRIPT = """
    import sys
    import ippmpi as ipp

    class OwnError(Exception):
        def __init__(self, code, text):
            super().__init__(text)
            self.code = code

    def own():
        raise OwnError(7, "mine")

    def leave():
        sys.exit(3)

    with ipp.Client(sys.argv[1]) as rc:
        try:
            rc[0].apply_sync(own)
        except OwnError as error:
            print("caught", error.code, error.args, isinstance(error, ipp.RemoteError))
        try:
            rc[0].apply_sync(leave)
        except ipp.RemoteError as error:
            print("still here:", error.ename)
"""


def test_a_script_catches_its_own_class_and_is_not_ended_by_a_remote_exit(rc: ipp.Client, folder: Path) -> None:
    assert len(rc) == 3
    with script(SCRIPT, str(connection.path(folder, "client"))) as process:
        text, _ = process.communicate(timeout=60)
    assert text.splitlines() == ["caught 7 ('mine',) True", "still here: SystemExit"]


def test_the_errors_of_a_path_are_of_the_operating_system(rc: ipp.Client, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        rc[0].apply_sync(open, str(tmp_path / "missing"))
    assert (caught.value.errno, caught.value.filename) == (2, str(tmp_path / "missing"))


def test_a_text_that_is_no_text_is_an_error_all_the_same(rc: ipp.Client) -> None:
    """As of a file whose name is no UTF-8: it cannot be encoded, so the reply would never leave."""
    failing = defined("def f():\n    raise ValueError('odd \\udcff')").f
    with pytest.raises(ValueError, match=r"odd \\udcff"):
        rc[0].apply_async(failing).get(10)
