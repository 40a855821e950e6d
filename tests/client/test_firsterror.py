from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import ippmpi as ipp
from client.conftest import Pair
from client.fakes import FakeHub
from client.test_magics import activated
from helpers import eventually
from ippmpi.client import firsterror
from ippmpi.client.firsterror import FirstError
from ippmpi.errors import AlreadyDisplayedError
from ippmpi.wire.messages import Failure

TRACE = "Traceback (most recent call last):\n  File 'x', line 1, in <module>\n  File 'x', line 7, in f\n    1 / 0\n"
OOPS = Failure(
    "ZeroDivisionError",
    "division by zero",
    f"{TRACE}ZeroDivisionError: division by zero",
    engine=1,
    rank=1,
    world="world",
    host="host",
    types=["builtins:ZeroDivisionError"],
)


class Caller:
    """Calls something that blocks, in a thread; keeps how it ended."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.error: BaseException | None = None
        self.value: Any = None
        self._call = call
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.value = self._call()
        except BaseException as error:
            self.error = error

    def join(self) -> None:
        self._thread.join(10)
        assert not self._thread.is_alive()


@contextmanager
def calling(hub: FakeHub, call: Callable[[], Any]) -> Iterator[tuple[Caller, str]]:
    """Start *call*, give its caller and task; at the end answer for all engines that have not."""
    known = len(hub.submits)
    caller = Caller(call)
    try:
        eventually(lambda: len(hub.submits) > known)
        yield caller, hub.submits[-1].task
    finally:
        submit = hub.submits[-1]
        for engine in set(submit.targets) - hub.replied[submit.task]:
            hub.reply(submit.task, engine, None)
        caller.join()


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is told, as it is told."""
    texts: list[str] = []
    monkeypatch.setattr(firsterror, "say", texts.append)
    return texts


def test_a_failure_is_shown_within_a_second_while_others_go_on(manual: Pair, said: list[str]) -> None:
    rc, hub = manual
    with calling(hub, lambda: rc[:].apply_sync(abs, 1)) as (caller, task):
        hub.reply(task, 0, 1)
        began = time.monotonic()
        hub.fail(task, 1, OOPS)
        eventually(lambda: said)
        assert time.monotonic() - began < 1
        first, *trace, last = said[0].splitlines()
        assert first == "abs has failed, others go on:"
        assert trace[0] == "[engine 1 (rank 1 on host)]"
        assert trace[-1] == "ZeroDivisionError: division by zero"
        assert last == "Not answered yet: engines 2-3. Ctrl-C stops waiting."
        hub.fail(task, 2, OOPS)
    assert said[1:] == ["All have answered: 2 of 4 failed."]
    assert isinstance(caller.error, ipp.CompositeError)


def test_what_was_shown_is_raised_with_the_end_of_its_traceback_only(manual: Pair, said: list[str]) -> None:
    rc, hub = manual
    with calling(hub, lambda: rc[:].apply_sync(abs, 1)) as (caller, task):
        hub.fail(task, 1, OOPS)
        eventually(lambda: said)
        hub.fail(task, 2, OOPS)
    error = caller.error
    assert isinstance(error, ipp.CompositeError)
    assert isinstance(error.errors[0], ZeroDivisionError)
    text = "".join(traceback.format_exception(error))
    assert text.count("line 1, in <module>") == 1  # of the second one, which was not shown
    assert text.count("line 7, in f") == 2
    assert "on engine 1 (rank 1 on host), shown above" in text
    in_ipython = error._render_traceback_()
    assert "[engine 1 (rank 1 on host)] ZeroDivisionError: division by zero (shown above)" in in_ipython
    assert sum("line 1, in <module>" in line for line in in_ipython) == 1
    assert sum("line 1, in <module>" in line for line in error.render_traceback()) == 2  # to whoever asks
    assert error.errors[0]._render_traceback_() == [f"{error.errors[0]} (shown above)"]


def test_when_all_end_at_once_nothing_is_shown_but_what_is_raised(rc: ipp.Client, said: list[str]) -> None:
    with pytest.raises(ipp.CompositeError) as caught:
        rc[:].execute("1 / 0", block=True)
    assert not said
    assert not any(error.was_shown for error in caught.value.errors)


@pytest.mark.parametrize(
    "call",
    [
        lambda rc: rc[:].execute("1 / 0", block=True),
        lambda rc: rc[:].map_sync(abs, range(8)),
        lambda rc: rc[:].pull("x", block=True),
        lambda rc: rc[:].apply_async(abs, 1).result(),
        lambda rc: rc.direct_view("all", block=True).apply(abs, 1),
    ],
    ids=["execute", "map_sync", "pull", "result", "block"],
)
def test_all_calls_that_wait_and_raise_show_it(
    manual: Pair, said: list[str], call: Callable[[ipp.Client], Any]
) -> None:
    rc, hub = manual
    with calling(hub, lambda: call(rc)) as (_, task):
        hub.fail(task, 1, OOPS)
        eventually(lambda: said, 2)


def test_of_a_balanced_map_the_results_are_counted(manual: Pair, said: list[str]) -> None:
    rc, hub = manual
    view = rc.load_balanced_view()
    caller = Caller(lambda: view.map_sync(abs, range(3), chunksize=1))
    try:
        eventually(lambda: len(hub.submits) == 3)
        hub.fail(hub.submits[1].task, 1, OOPS)
        eventually(lambda: said)
        assert said[0].splitlines()[-1] == "Not answered yet: 2 of 3 results. Ctrl-C stops waiting."
    finally:
        for submit in (hub.submits[0], hub.submits[2]):
            hub.reply(submit.task, 0, [1])
        caller.join()
    assert isinstance(caller.error, ipp.CompositeError)


def test_nothing_is_shown_where_errors_are_values_or_it_is_switched_off(manual: Pair, said: list[str]) -> None:
    rc, hub = manual
    ar = rc[:].apply_async(abs, 1)
    hub.fail(ar.msg_ids[0], 1, OOPS)
    eventually(lambda: ar.progress == 1)
    with pytest.raises(TimeoutError):
        ar.get(0.6, return_exceptions=True)
    assert not ar.wait(0.1)
    assert rc.show_first_error
    rc.show_first_error = False
    with pytest.raises(TimeoutError):
        ar.get(0.6)
    assert not said
    rc.show_first_error = True
    with pytest.raises(TimeoutError, match="missing: engines 0, 2, 3"):
        ar.get(0.6)
    assert len(said) == 1
    ar.cancel()


def test_a_failure_is_shown_once_however_often_somebody_waits(manual: Pair, said: list[str]) -> None:
    rc, hub = manual
    ar = rc[:].apply_async(abs, 1)
    hub.fail(ar.msg_ids[0], 1, OOPS)
    eventually(lambda: ar.progress == 1)
    for _ in range(2):
        with pytest.raises(TimeoutError):
            ar.get(0.6)
    assert [text.count("line 7") for text in said] == [1, 0]
    ar.cancel()


def test_an_interrupt_says_what_goes_on_and_how_to_end_it(manual: Pair, said: list[str]) -> None:
    rc, hub = manual
    ar = rc[:].apply_async(abs, 1)
    hub.fail(ar.msg_ids[0], 1, OOPS)
    eventually(lambda: ar.progress == 1)

    class Interrupted:
        collector = ar.collector
        read_part = ar.read_part
        waits = 0

        def wait(self, timeout: float | None = -1) -> bool:
            self.waits += 1
            if said:
                raise KeyboardInterrupt
            return ar.wait(timeout)

    with pytest.raises(KeyboardInterrupt):
        firsterror.wait_and_tell(Interrupted(), None)
    task = ar.msg_ids[0]
    assert said[1] == (
        "Stopped waiting; what is not answered goes on (engines 0, 2-3). "
        f"client.get_result('{task}').cancel() ends that."
    )
    ar.cancel()


def test_a_client_that_breaks_off_tells_nothing_more(manual: Pair, said: list[str]) -> None:
    rc, hub = manual
    ar = rc[:].apply_async(abs, 1)
    first = FirstError(ar)
    assert first.due_in() is None
    hub.fail(ar.msg_ids[0], 1, OOPS)
    eventually(lambda: first.due_in() is not None)
    rc.close()
    assert first.due_in() is None
    assert not said


# --- %px ---


def test_px_says_who_has_not_answered_after_a_failure(
    manual: Pair, said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    rc, hub = manual
    shell = activated(rc)
    with calling(hub, lambda: shell.px("1 / 0")) as (caller, task):
        hub.fail(task, 1, OOPS)
        eventually(lambda: said)
        assert capsys.readouterr().err.count("line 7, in f") == 1
        assert said == ["Not answered yet: engines 0, 2-3. Ctrl-C stops waiting."]
        for engine in (0, 2, 3):
            hub.reply(task, engine, {"execution_count": 1, "source": "", "result": None, "metadata": {}})
    assert isinstance(caller.error, AlreadyDisplayedError)
    assert said[1] == "All have answered: 1 of 4 failed."


def test_px_without_streaming_shows_the_first_failure_all_the_same(manual: Pair, said: list[str]) -> None:
    rc, hub = manual
    shell = activated(rc)
    with calling(hub, lambda: shell.cell("--no-stream", "1 / 0")) as (caller, task):
        hub.fail(task, 1, OOPS)
        eventually(lambda: said)
        assert "line 7, in f" in said[0]
        assert said[0].endswith("Not answered yet: engines 0, 2-3. Ctrl-C stops waiting.")
        for engine in (0, 2, 3):
            hub.reply(task, engine, {"execution_count": 1, "source": "", "result": None, "metadata": {}})
    assert isinstance(caller.error, ipp.CompositeError)


# --- where it is shown ---


def test_scripts_are_told_on_stderr(manual: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    rc, hub = manual
    shown = []

    def shows() -> bool:
        shown.append(capsys.readouterr().err)
        return "Not answered yet" in "".join(shown)

    with calling(hub, lambda: rc[:].apply_sync(abs, 1)) as (_, task):
        hub.fail(task, 1, OOPS)
        eventually(shows)


def test_in_a_notebook_it_is_displayed(monkeypatch: pytest.MonkeyPatch) -> None:
    from IPython import display as ipython

    from ippmpi.client import display

    bundles: list[dict[str, str]] = []
    monkeypatch.setattr(display, "in_notebook", lambda: True)
    monkeypatch.setattr(ipython, "publish_display_data", bundles.append)
    display.say("it failed")
    assert bundles == [{"text/plain": "it failed"}]
