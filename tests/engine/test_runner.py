from __future__ import annotations

import fcntl
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import handed
from ippmpi.engine.failures import MOST_TEXT
from ippmpi.engine.memory import Unread
from ippmpi.errors import UnmetDependency
from ippmpi.wire.messages import INLINE_LIMIT, Failure
from ippmpi.wire.pickling import pack, unpack


def test_apply_calls_a_function(bench: Any) -> None:
    reply = bench.reply("apply", (divmod, (7,), {}), client="c")
    assert reply.failure.ename == "TypeError"
    assert bench.do("apply", (dict, ([("a", 1)],), {"b": 2})) == {"a": 1, "b": 2}


def test_a_reply_says_who_and_when(bench: Any) -> None:
    before = time.time()
    reply = bench.reply("apply", (time.time, (), {}), client="abc")
    assert (reply.task, reply.engine) == ("abc-1", 3)
    at = unpack(reply.content.inline)
    assert isinstance(at, float)
    assert before - 1 < reply.started - 1 < at < reply.completed + 1 < time.time() + 2  # two clocks, which may drift


def test_functions_see_the_namespace_of_the_engine(bench: Any, main: Any) -> None:
    bench.do("push", {"a": 3})
    assert bench.apply(main("f = lambda: a + 1")["f"]) == 4
    assert bench.apply(main("a = 100\nf = lambda: a + 1")["f"]) == 4, "a pushed name was replaced"


def test_names_of_execute_and_of_px_are_never_replaced(bench: Any, main: Any) -> None:
    f = main("x = 1\nf = lambda: x")["f"]
    assert bench.apply(f) == 1
    bench.execute("x = 1")  # the same object, as small numbers are: only the code can tell
    assert bench.apply(main("x = 2\nf = lambda: x")["f"]) == 1


def test_an_edited_helper_is_never_stale(bench: Any, main: Any) -> None:
    names = main("def helper(): return 1\ndef f(): return helper()")
    assert bench.apply(names["f"]) == 1
    exec("def helper(): return 2", names)
    assert bench.apply(names["f"]) == 2
    assert bench.namespace.origins() == {"helper": "aaa"}


def test_what_a_call_was_pickled_with_does_not_outlive_it(bench: Any) -> None:
    outcome = bench.runner.run("aaa-1", "apply", pack((abs, (-1,), {}), "cloudpickle").join())
    assert outcome.reply.content.inline[4] == 1, "the result is not pickled as the call was"
    assert pack([1]).join()[4] == 0


def test_push_pull_clear(bench: Any) -> None:
    assert bench.do("push", {"a": 1, "b": [2]}) is None
    assert bench.do("pull", "a") == 1
    assert bench.do("pull", ["a", "b[0] + 1"]) == [1, 3]
    assert bench.do("clear", None) is None
    assert bench.reply("pull", "a").failure.ename == "NameError"


def test_an_unknown_operation_is_a_failure(bench: Any) -> None:
    assert (
        "no operation 'dance'; have apply, keep, execute, push, pull, clear"
        in bench.reply("dance", None).failure.evalue
    )


# --- failures ------------------------------------------------------------------------------------


def test_a_failure_says_what_and_where_without_our_frames(bench: Any, main: Any) -> None:
    reply = bench.reply("apply", (main("def g(): return 1 / 0\ndef f(): return g()")["f"], (), {}))
    failure = reply.failure
    facts = ("code", 3, 3, "w1", "c1", os.getpid())
    assert failure == Failure(
        "ZeroDivisionError", "division by zero", failure.traceback, *facts, failure.types, failure.made
    )
    assert failure.types == ["builtins:ZeroDivisionError", "builtins:ArithmeticError"]
    lines = failure.traceback.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert [line.strip() for line in lines if line.startswith("  File")] == [
        'File "<client>", line 2, in f',
        'File "<client>", line 1, in g',
    ]
    assert "ippmpi" not in failure.traceback
    assert reply.content.size == 0


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit("x"), BaseException("y")])
def test_nothing_that_code_raises_ends_the_engine(bench: Any, error: BaseException) -> None:
    def f() -> None:
        raise error

    assert bench.reply("apply", (f, (), {})).failure.ename == type(error).__name__
    assert bench.apply(len, "abc") == 3


def test_exits_of_executed_code_do_not_end_the_engine(bench: Any) -> None:
    for code in ("import sys; sys.exit(3)", "exit", "quit()", "raise SystemExit(3)"):
        assert bench.reply("execute", {"code": code}).failure.ename == "SystemExit"


def test_an_unmet_dependency_has_its_own_kind(bench: Any) -> None:
    def f() -> None:
        raise UnmetDependency("elsewhere")

    assert bench.reply("apply", (f, (), {})).failure.kind == "UnmetDependency"


def test_causes_and_groups_are_told(bench: Any, main: Any) -> None:
    f = main(
        "def f():\n  try:\n    1 / 0\n  except Exception as e:\n    raise ExceptionGroup('g', [ValueError(7)]) from e"
    )["f"]
    text = bench.reply("apply", (f, (), {})).failure.traceback
    assert "ZeroDivisionError" in text
    assert "ValueError: 7" in text
    assert "ippmpi" not in text


def test_an_exception_that_cannot_be_described_is_described(bench: Any, main: Any) -> None:
    f = main("class E(Exception):\n  def __str__(self): raise ValueError\ndef f(): raise E")["f"]
    failure = bench.reply("apply", (f, (), {})).failure
    assert failure.ename == "E"
    assert failure.evalue == "<E; its text raised ValueError>"


def test_long_texts_are_cut_in_the_middle(bench: Any, main: Any) -> None:
    failure = bench.reply("apply", (main("def f(): raise ValueError('a' * 10**6 + 'z')")["f"], (), {})).failure
    for text in (failure.evalue, failure.traceback):
        assert len(text) < MOST_TEXT + 100
        assert "characters left out" in text
        assert text.endswith("z")


def test_a_result_that_cannot_be_sent_is_named(bench: Any) -> None:
    failure = bench.reply("apply", (threading.Lock, (), {})).failure
    assert failure.ename == "TypeError"
    assert "its result of type _thread.lock cannot be sent: cannot pickle '_thread.lock' object" in failure.evalue


def test_a_missing_module_is_named(bench: Any) -> None:
    flat = pack((os.path.join, ("a",), {})).join().replace(b"posixpath", b"posixpats")
    failure = bench.runner.run("aaa-1", "apply", flat).reply.failure
    assert failure is not None
    assert failure.ename == "ModuleNotFoundError"
    assert "this engine has no module 'posixpats'" in failure.evalue


def test_a_content_that_never_came_is_a_failure(bench: Any) -> None:
    reply = bench.runner.run("aaa-1", "apply", Failure("EngineError", "lost", kind="EngineError")).reply
    assert reply.failure == Failure("EngineError", "lost", "", "EngineError", 3, 3, "w1", "c1", os.getpid())


# --- large results -------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 2000])
def test_a_large_result_is_a_sealed_memory_file(bench: Any, count: int) -> None:
    arrays = [np.arange(INLINE_LIMIT // count + 2000, dtype=np.uint8) for _ in range(count)]
    outcome = bench.runner.run("aaa-1", "apply", pack((lambda: arrays, (), {})).join())
    content, memory = outcome.reply.content, outcome.memory
    assert memory is not None
    assert content.path == f"/proc/{os.getpid()}/fd/{memory}"
    assert not content.inline
    flat = bytearray(os.pread(memory, content.size + 1, 0))
    assert len(flat) == content.size
    assert all((a == b).all() for a, b in zip(unpack(flat), arrays, strict=True))  # type: ignore[call-overload]
    assert fcntl.fcntl(memory, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE
    os.close(memory)


def test_a_result_that_needs_more_memory_than_there_is_is_a_failure(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(os, "memfd_create", full)
    failure = bench.runner.run("aaa-1", "apply", pack((lambda: bytes(10**6), (), {})).join()).reply.failure
    assert failure is not None
    assert "its result of type builtins.bytes cannot be sent: [Errno 12] Cannot allocate memory" in failure.evalue


def test_the_same_request_twice_gives_equal_results(bench: Any) -> None:
    blob = pack((sys.getrecursionlimit, (), {})).join()
    first, second = (bench.runner.run("aaa-1", "apply", blob).reply.content for _ in range(2))
    assert first == second


def test_a_large_result_is_a_file_for_a_controller_on_this_host(bench: Any, tmp_path: Path) -> None:
    bench.runner.folder = str(tmp_path)
    outcome = bench.runner.run("aaa-1", "apply", pack((lambda: np.arange(1_000_000), (), {})).join())
    content, memory = outcome.reply.content, outcome.memory
    assert str(tmp_path) in os.readlink(content.path)
    assert unpack(os.pread(memory, content.size + 1, 0)).sum() == 499_999_500_000
    os.close(memory)


@pytest.mark.parametrize("cut", [0, 1])
def test_a_handed_content_is_read_when_it_runs(bench: Any, tmp_path: Path, cut: int) -> None:
    blob = pack((len, ("four",), {}), "cloudpickle").join()
    fd = handed(tmp_path, blob[: len(blob) - cut]).detach()
    reply = bench.runner.run("aaa-1", "apply", Unread(fd, len(blob))).reply
    if cut:
        assert reply.failure.kind == "EngineError"
        assert f"content of {len(blob)} bytes did not arrive" in reply.failure.evalue
    else:
        assert unpack(reply.content.inline) == 4
        assert reply.content.inline == pack(4, "cloudpickle").join(), "the answer is pickled as the question was"
    assert not os.path.exists(f"/proc/self/fd/{fd}")


def test_a_folder_that_cannot_be_used_makes_a_result_a_memory_file(bench: Any, tmp_path: Path) -> None:
    bench.runner.folder = str(tmp_path / "gone")
    outcome = bench.runner.run("aaa-1", "apply", pack((lambda: np.arange(1_000_000), (), {})).join())
    assert "memfd" in os.readlink(outcome.reply.content.path)
    os.close(outcome.memory)
