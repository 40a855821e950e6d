from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ippmpi as ipp
from client.conftest import Pair
from client.fakes import FakeHub
from helpers import eventually
from ippmpi.client.magics import Magics
from ippmpi.errors import AlreadyDisplayedError
from ippmpi.wire.messages import Failure, Interrupt, SendSignal, Submit


class Shell:
    """What the magics need of an IPython."""

    def __init__(self) -> None:
        self.user_ns: dict[str, Any] = {}
        self.magics: dict[tuple[str, str], Any] = {}
        self.cells: list[str] = []

    def register_magic_function(self, function: Any, kind: str, name: str) -> None:
        self.magics[kind, name] = function

    def run_cell(self, cell: str) -> None:
        self.cells.append(cell)

    def px(self, line: str) -> Any:
        return self.magics["line", "px"](line)

    def cell(self, options: str, code: str) -> Any:
        return self.magics["cell", "px"](options, code)


@pytest.fixture
def shell(rc: ipp.Client) -> Shell:
    return activated(rc)


def activated(rc: ipp.Client) -> Shell:
    shell = Shell()
    Magics(rc.direct_view("all", block=True), shell).register("")
    return shell


def test_px_runs_a_line_and_shows_what_it_prints_and_gives(
    shell: Shell, rc: ipp.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shell.px("x = engine * 2") is None
    assert rc[:]["x"] == [0, 2, 4, 6]
    assert shell.px("print(x)") is None
    assert sorted(capsys.readouterr().out.splitlines()) == [f"[stdout:{i}] {i * 2}" for i in range(4)]
    shell.px("x + 1")
    assert sorted(capsys.readouterr().out.splitlines()) == [f"Out[{i}:7]: {i * 2 + 1}" for i in range(4)]


def test_px_that_does_not_block_returns_the_result(rc: ipp.Client) -> None:
    shell = Shell()
    Magics(rc[:], shell).register("_b")
    result = shell.magics["line", "px_b"]("x = 1")
    assert isinstance(result, ipp.AsyncResult)
    result.get()
    assert shell.magics["cell", "px_b"]("--block", "x = 2") is None


def test_cells_take_targets_names_and_run_here_too(shell: Shell, hub: FakeHub) -> None:
    shell.cell("-t 1 -o out --local", "y = 5")
    assert isinstance(shell.user_ns["out"], ipp.AsyncResult)
    assert hub.submits[-1].targets == [1]
    assert shell.cells == ["y = 5"]
    for spec, targets in (("::2", [0, 2]), ("1,3", [1, 3]), ("[0]", [0]), ("all", [0, 1, 2, 3]), ("-1", [3])):
        shell.cell(f"--targets={spec}", "y = 6")
        assert hub.submits[-1].targets == targets


@pytest.mark.parametrize("options", ["--targets=some", "--nothing", "--group-outputs=colour"])
def test_wrong_options_are_usage_errors(shell: Shell, options: str) -> None:
    from IPython.core.error import UsageError

    with pytest.raises(UsageError, match="%px"):
        shell.cell(options, "1")


def test_errors_are_shown_at_once_and_then_counted(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AlreadyDisplayedError, match="4 errors"):
        shell.px("1 // 0")
    assert capsys.readouterr().err.count("ZeroDivisionError") >= 4


def test_without_streaming_output_is_grouped_and_errors_are_composite(
    shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.cell("--no-stream", "print(engine)")
    assert capsys.readouterr().out.splitlines() == [f"[stdout:{i}] {i}" for i in range(4)]
    with pytest.raises(ipp.CompositeError):
        shell.cell("--no-stream", "1 // 0")


def test_equal_lines_of_engines_are_one_unless_that_is_switched_off(
    shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.px("print('converged')")
    assert capsys.readouterr().out == "[0-3] converged\n"
    shell.px("'equal'")
    assert capsys.readouterr().out == "Out[0-3:7]: 'equal'\n"
    shell.cell("--no-fold", "print('converged')")
    assert sorted(capsys.readouterr().out.splitlines()) == [f"[stdout:{engine}] converged" for engine in range(4)]
    shell.cell("--no-stream", "print('converged')")
    assert capsys.readouterr().out == "[0-3] converged\n"
    shell.magics["line", "pxconfig"]("--no-fold")
    shell.px("print('converged')")
    assert "[stdout:2] converged" in capsys.readouterr().out


def test_a_program_that_is_not_interactive_gets_no_stream_and_no_bar(
    rc: ipp.Client, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPP_NONINTERACTIVE", "1")
    shell = activated(rc)
    shell.px("print(engine)")
    assert capsys.readouterr().out.splitlines() == [f"[stdout:{i}] {i}" for i in range(4)]
    with pytest.raises(ipp.CompositeError):
        shell.px("1 // 0")


def test_pxconfig_sets_defaults(shell: Shell, hub: FakeHub) -> None:
    configure = shell.magics["line", "pxconfig"]
    configure("--targets 2 --noblock")
    shell.px("z = 1").get(5)
    assert hub.submits[-1].targets == [2]
    configure("--block")
    assert shell.px("z = 2") is None
    assert hub.submits[-1].targets == [2]


def test_pxresult_shows_the_last_one(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    from IPython.core.error import UsageError

    show = shell.magics["line", "pxresult"]
    with pytest.raises(UsageError, match="has run yet"):
        show("")
    shell.cell("--noblock", "print(engine)")
    show("-r")
    assert "[stdout:3] 3" in capsys.readouterr().out
    assert show("-o kept") is None
    assert isinstance(shell.user_ns["kept"], ipp.AsyncResult)


# --- Ctrl-C and progress ---


@pytest.fixture
def interrupting(manual: Pair) -> Iterator[tuple[Shell, FakeHub]]:
    """A shell, and a hub that makes the user press Ctrl-C when work comes, and ends the work when it is interrupted."""
    rc, hub = manual
    main = threading.main_thread().ident
    assert main is not None

    def watch() -> None:
        submit = eventually(lambda: hub.submits)[0]
        signal.pthread_kill(main, signal.SIGINT)
        eventually(lambda: any(isinstance(m, Interrupt | SendSignal) for m in hub.messages))
        end(hub, submit)

    thread = threading.Thread(target=watch)
    thread.start()
    yield activated(rc), hub
    thread.join()


def end(hub: FakeHub, submit: Submit) -> None:
    for engine in submit.targets:
        hub.fail(submit.task, engine, Failure("KeyboardInterrupt", "", engine=engine))


def test_ctrl_c_interrupts_the_engines_and_returns(
    interrupting: tuple[Shell, FakeHub], capsys: pytest.CaptureFixture[str]
) -> None:
    shell, hub = interrupting
    assert shell.px("while True: pass") is None
    (interrupt,) = [m for m in hub.messages if isinstance(m, Interrupt)]
    assert interrupt.tasks == [hub.submits[0].task]
    assert "Interrupting the engines" in capsys.readouterr().err


def test_ctrl_c_can_send_another_signal(interrupting: tuple[Shell, FakeHub]) -> None:
    shell, hub = interrupting
    shell.cell("--signal-on-interrupt SIGUSR1 -t 1,2", "while True: pass")
    (sent,) = [m for m in hub.messages if isinstance(m, SendSignal)]
    assert (sent.signal, sent.targets) == (signal.SIGUSR1, [1, 2])


def test_a_bar_is_shown_when_it_takes_long(manual: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    rc, hub = manual

    def work() -> None:
        task = eventually(lambda: hub.submits)[0].task
        for engine in range(4):
            hub.print(task, engine, f"line {engine}\n")
            threading.Event().wait(0.1)
            hub.reply(task, engine, {"execution_count": 1, "source": "", "result": None, "metadata": {}})

    thread = threading.Thread(target=work)
    thread.start()
    activated(rc).cell("--progress-after=0", "slow()")
    thread.join()
    captured = capsys.readouterr()
    assert "/4" in captured.err
    assert "[stdout:3] line 3" in captured.out


# --- in IPython ---


def test_a_client_in_ipython_brings_the_magics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from IPython.core.interactiveshell import InteractiveShell

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    shell = InteractiveShell.instance()
    shell.history_manager.enabled = False  # type: ignore[union-attr]
    try:
        hub = FakeHub()
        with ipp.Client(_connect=hub.connect) as rc:
            shell.run_cell("%px a = 5")
            assert rc[:]["a"] == [5] * 4
            shell.run_cell("%%px --targets 1\na = 'braces {a} and $a'\n")
            assert rc[1]["a"] == "braces {a} and $a"
            rc.activate(targets=[0], suffix="0")
            shell.run_cell("%px0 a = 7")
            assert rc[:]["a"][0] == 7
            assert not rc.block
    finally:
        InteractiveShell.clear_instance()


def test_activating_outside_ipython_is_a_warning(rc: ipp.Client) -> None:
    with pytest.warns(UserWarning, match="only inside IPython"):
        rc[:].activate()
