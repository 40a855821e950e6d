from __future__ import annotations

import builtins
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ippmpi import config
from ippmpi.config import EngineSettings
from ippmpi.engine.mpi import WorldFacts
from ippmpi.engine.startup import Startup

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def run(bench: Any, tmp_path: Path) -> Callable[..., list[str]]:
    """Run the startup of an engine of rank 3 on c1; return what it complained of."""

    def run(python_startup: str = "", **options: str) -> list[str]:
        said: list[str] = []
        startup = Startup(bench.namespace, bench.shell, WorldFacts(3, 4, 2, "c1"), said.append)
        startup.run(EngineSettings(profile_dir=str(tmp_path), **options), python_startup)
        return said

    return run


def written(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def test_files_of_the_profile_run_in_the_order_of_their_names(
    bench: Any, run: Callable[..., list[str]], tmp_path: Path
) -> None:
    written(tmp_path / "startup", b__py="order.append('b')", a__py="order = ['a']", README="no Python")
    assert run() == []
    assert bench.names["order"] == ["a", "b"]
    assert not bench.shell.started  # Python alone needs no IPython


def test_all_that_people_know_runs_in_the_order_of_ipython(
    bench: Any, run: Callable[..., list[str]], tmp_path: Path
) -> None:
    written(tmp_path / "startup", a__py="order.append('folder')")
    written(tmp_path, first__py="order = ['PYTHONSTARTUP']", s__py="order.append('script')")
    said = run(
        str(tmp_path / "first.py"),
        startup_script=str(tmp_path / "s.py"),
        startup_command="order.append('command')",
    )
    assert said == []
    assert bench.names["order"] == ["PYTHONSTARTUP", "folder", "script", "command"]


def test_files_of_ipython_and_commands_have_magics(bench: Any, run: Callable[..., list[str]], tmp_path: Path) -> None:
    written(tmp_path / "startup", a__ipy="%alias_magic -l again whos\nlines = !echo kept")
    assert run(startup_command="%alias_magic -l once whos\nb = get_ipython().user_ns['lines']") == []
    assert list(bench.names["b"]) == ["kept"]
    assert "once" in bench.shell.get_ipython().magics_manager.magics["line"]


def test_a_file_knows_its_name_and_leaves_it_to_nobody(
    bench: Any, run: Callable[..., list[str]], tmp_path: Path
) -> None:
    written(tmp_path / "startup", a__py="here = __file__, __name__")
    assert run() == []
    assert bench.names["here"] == (str(tmp_path / "startup" / "a.py"), "__main__")
    assert "__file__" not in bench.names


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("x = 1\n1 / 0", "ZeroDivisionError: division by zero"),
        ("def f(:", "SyntaxError: "),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt: "),
    ],
)
def test_what_fails_is_told_with_rank_host_and_file_and_the_rest_runs(
    bench: Any, run: Callable[..., list[str]], tmp_path: Path, code: str, what: str
) -> None:
    written(tmp_path / "startup", a__py=code, b__py="went_on = True")
    (said,) = run()
    first, _, trace = said.partition("\n")
    assert first.startswith(f"ippmpi-engine: startup: rank 3 on c1: {tmp_path}/startup/a.py: {what}".rstrip())
    assert "ippmpi" not in trace.replace(str(tmp_path), "")
    assert bench.names["went_on"]


def test_a_shell_s_names_are_there_before_it_is_started(bench: Any) -> None:
    assert not bench.shell.started
    assert bench.do("pull", ["Out", "len(In)"]) == [{}, 1]
    assert bench.reply("pull", "other").failure.ename == "NameError"


def test_a_file_that_is_missing_is_told(run: Callable[..., list[str]], tmp_path: Path) -> None:
    (said,) = run(startup_script=str(tmp_path / "none.py"))
    assert f"rank 3 on c1: {tmp_path}/none.py: FileNotFoundError: " in said


def test_the_folder_can_be_another_one_or_none(bench: Any, run: Callable[..., list[str]], tmp_path: Path) -> None:
    written(tmp_path / "startup", a__py="a = 1")
    written(tmp_path / "mine", a__py="a = 2")
    run(startup_folder="")
    assert "a" not in bench.names
    run(startup_folder=str(tmp_path / "mine"))
    assert bench.names["a"] == 2


def test_names_of_startup_files_are_the_users_and_clear_forgets_them(
    bench: Any, run: Callable[..., list[str]], tmp_path: Path, main: Any
) -> None:
    written(tmp_path / "startup", a__py="a = 'startup'")
    run()
    assert bench.apply(main("a = 'client'\nf = lambda: a")["f"]) == "startup"
    bench.do("clear", None)
    assert bench.reply("pull", "a").failure.ename == "NameError"


def test_displays_before_anybody_is_there_are_dropped(bench: Any, run: Callable[..., list[str]]) -> None:
    bench.shell.publish = lambda bundle: None
    builtins.__dict__["display"] = bench.shell.display
    assert run(startup_command="from IPython.display import HTML, display; display(HTML('<b>'))") == []


def test_the_variable_of_the_interpreter_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONSTARTUP", "/somewhere.py")
    assert config.python_startup() == "/somewhere.py"
    monkeypatch.delenv("PYTHONSTARTUP")
    assert config.python_startup() == ""
