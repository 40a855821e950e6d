from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest


def test_code_runs_in_the_namespace(bench: Any) -> None:
    bench.do("push", {"a": 2})
    bench.execute("b = a * 2\ndef f(): return b + 1")
    assert bench.do("pull", ["b", "f()", "__name__"]) == [4, 5, "__main__"]


def test_a_silent_cell_leaves_no_trace(bench: Any) -> None:
    assert bench.execute("1 + 1") == {"execution_count": 1, "source": "1 + 1", "result": None, "metadata": {}}
    assert bench.execute("7", silent=False)["execution_count"] == 1
    assert bench.do("pull", "len(Out)") == 1


def test_cells_are_counted_and_remembered(bench: Any) -> None:
    assert bench.execute("6 * 7", silent=False) == {
        "execution_count": 1,
        "source": "6 * 7",
        "result": {"text/plain": "42"},
        "metadata": {},
    }
    assert bench.execute("x = 1", silent=False)["result"] is None
    found = bench.execute("Out[1], _1, In[1]", silent=False)
    assert found["execution_count"] == 3
    assert found["result"] == {"text/plain": "(42, 42, '6 * 7')"}


def test_magics_and_commands_work(bench: Any, capfd: pytest.CaptureFixture[str]) -> None:
    bench.execute("%alias_magic -l again whos")
    bench.execute("%%capture caught\nprint('inside')")
    bench.execute("!echo from a child")
    bench.execute("lines = !echo kept")
    assert bench.do("pull", ["caught.stdout", "list(lines)"]) == ["inside\n", ["kept"]]
    assert "from a child" in capfd.readouterr().out


def test_displays_are_bundles(bench: Any) -> None:
    bench.execute(
        "from IPython.display import HTML, display, clear_output, update_display\n"
        "handle = display(HTML('<b>1</b>'), display_id='i')"
    )
    bench.execute("update_display(HTML('<b>2</b>'), display_id='i')\nclear_output(wait=True)")
    first, second, third = bench.displays
    assert first["kind"] == "display_data"
    assert first["data"]["text/html"] == "<b>1</b>"
    assert first["transient"] == second["transient"] == {"display_id": "i"}
    assert (second["kind"], second["data"]["text/html"]) == ("update_display_data", "<b>2</b>")
    assert (third["kind"], third["metadata"]) == ("clear_output", {"wait": True})


def test_rich_results_have_all_their_forms(bench: Any) -> None:
    found = bench.execute("class R:\n  def _repr_html_(self): return '<i>r</i>'\nR()", silent=False)
    assert found["result"]["text/html"] == "<i>r</i>"
    assert bench.displays == []


def test_applied_functions_display_too(bench: Any, main: Any) -> None:
    bench.apply(main("from IPython.display import HTML, display\ndef f(): display(HTML('<b>'))")["f"])
    assert bench.displays[0]["data"]["text/html"] == "<b>"


def test_help_is_displayed_not_paged(bench: Any) -> None:
    bench.execute("len?")
    assert "Return the number of items" in bench.displays[0]["data"]["text/plain"]


@pytest.mark.parametrize(
    ("code", "ename", "inside"),
    [
        ("x = 1\n1 / 0", "ZeroDivisionError", "----> 2 1 / 0"),
        ("def f(:", "SyntaxError", "def f(:"),
        ("if 1:\nx", "IndentationError", "IndentationError"),
        ("%nothing", "UsageError", "Line magic function `%nothing` not found"),
        ("raise ExceptionGroup('g', [ValueError(7)])", "ExceptionGroup", "ValueError: 7"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", "KeyboardInterrupt"),
        ("await missing", "NameError", "missing"),
    ],
)
def test_a_traceback_is_text_and_is_not_printed(
    bench: Any, capfd: pytest.CaptureFixture[str], code: str, ename: str, inside: str
) -> None:
    failure = bench.reply("execute", {"code": code}).failure
    assert failure.ename == ename
    assert inside in failure.traceback
    assert "\x1b[" not in failure.traceback
    assert "ippmpi" not in failure.traceback
    printed = capfd.readouterr()
    assert printed.out == printed.err == ""


def test_a_traceback_names_the_file_that_the_code_came_from(bench: Any) -> None:
    code = "def f():\n    raise KeyError('k')\nf()"
    failure = bench.reply("execute", {"code": code, "filename": "/somewhere/script.py"}).failure
    assert "/somewhere/script.py:3" in failure.traceback
    assert "raise KeyError('k')" in failure.traceback
    assert "Cell In" in bench.reply("execute", {"code": "f()"}).failure.traceback


def test_clear_forgets_what_cells_made(bench: Any) -> None:
    bench.execute("x = 1\nx", silent=False)
    bench.do("clear", None)
    assert bench.reply("pull", "x").failure.ename == "NameError"
    assert bench.do("pull", ["len(Out)", "get_ipython() is not None"]) == [0, True]
    assert bench.execute("2", silent=False)["result"] == {"text/plain": "2"}


def test_get_ipython_starts_the_shell(bench: Any, main: Any) -> None:
    assert not bench.shell.started
    assert bench.apply(main("f = lambda: get_ipython().user_ns['__name__']")["f"]) == "__main__"
    assert bench.shell.started


def test_only_what_runs_at_the_top_level_claims_names(bench: Any, main: Any) -> None:
    names = main("a = b = c = d = e = 1\nf = lambda: (a, b, c, d, e)")
    bench.apply(names["f"])
    bench.execute("def a():\n  b = 5\nfor c in [1]: pass\nimport sys as e")
    exec("a = b = c = d = e = 2", names)
    a, b, c, d, e = bench.apply(names["f"])
    assert callable(a)
    assert (b, c, d, e) == (2, 1, 2, sys)


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    heavy = {"IPython", "numpy", "cloudpickle", "psutil", "mpi4py", "argparse", "ctypes", "tqdm", "rich", "zmq"}
    small = {"ast", "dataclasses", "hashlib", "inspect", "random", "tempfile", "tomllib", "typing_extensions"}
    code = (
        "import sys; sys.modules['typing_extensions'] = None; import msgspec; del sys.modules['typing_extensions']\n"
        "import ippmpi.engine.process\n"
        f"avoided = {heavy | small}\n"
        "assert not avoided & set(sys.modules), avoided & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True, timeout=30)
