"""What IPython can do, on engines, through ``execute``: on a real cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ippmpi as ipp
from clusters import defined, running
from helpers import eventually

MAIN = defined("""
    def engine_id():
        kernel = get_ipython().kernel
        return kernel.engine_id, kernel.int_id
""")


@pytest.fixture(scope="module")
def rc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ipp.Client]:
    with running(tmp_path_factory.mktemp("profile"), 2, "local") as (_, rc):
        yield rc


def both(rc: ipp.Client, code: str) -> Any:
    """Run *code* on both engines, return the result when it is there."""
    result = rc[:].execute(code, silent=False)
    result.get(60)
    return result


def test_timeit(rc: ipp.Client) -> None:
    assert all("loop" in text for text in both(rc, "%timeit -n 2 -r 2 sum(range(10))").stdout)
    assert all("loop" in text for text in both(rc, "%%timeit -n 2 -r 2 x = 1\nx + 1").stdout)
    both(rc, "took = %timeit -o -q -n 2 -r 2 1")
    assert rc[0].pull("took.loops").get(10) == 2


def test_commands_of_the_shell(rc: ipp.Client, tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    assert both(rc, f"!ls {str(tmp_path)!r}").stdout == ["a file\n"] * 2
    both(rc, f"names = !ls {str(tmp_path)!r}\nword = 'kept'")
    assert rc[:].pull("list(names)").get(10) == [["a file"]] * 2
    assert both(rc, "!echo {word} $word >&2").stderr == ["kept kept\n"] * 2


def test_cells_in_other_languages(rc: ipp.Client) -> None:
    assert both(rc, "%%bash\nfor i in 1 2; do echo $i; done; echo careful >&2").stdout == ["1\n2\n"] * 2
    assert both(rc, "%%bash\necho careful >&2").stderr == ["careful\n"] * 2
    with pytest.raises(ipp.CompositeError, match="CalledProcessError"):
        both(rc, "%%bash\nexit 3")


def test_files_run_in_the_namespace_or_beside_it(rc: ipp.Client, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys\nfrom_script = sys.argv[1], __name__, 'before' in globals()")
    both(rc, f"before = 1\n%run {script} word")
    assert rc[0].pull("from_script").get(10) == ("word", "__main__", False)
    both(rc, f"%run -i {script} word")
    assert rc[0].pull("from_script").get(10) == ("word", "__main__", True)
    both(rc, "after = before + 1")  # the namespace is what it was
    assert rc[:].pull("after").get(10) == [2, 2]


def test_inline_figures_are_displays(rc: ipp.Client) -> None:
    pytest.importorskip("matplotlib")
    both(rc, "%matplotlib inline")
    with pytest.raises(ipp.CompositeError, match="no windows"):
        both(rc, "get_ipython().enable_gui('qt')")
    result = both(rc, "import matplotlib.pyplot as plt\n_ = plt.plot([1, 2])\nplt.show()")
    result_without_show = both(rc, "_ = plt.plot([2, 1])")
    for displays in (*result.outputs, *result_without_show.outputs):
        assert displays[0]["data"]["image/png"]


def test_other_magics(rc: ipp.Client, tmp_path: Path) -> None:
    both(rc, "shown = 12")
    assert all("shown" in text for text in both(rc, "%whos int").stdout)
    assert both(rc, f"%cd -q {tmp_path}\n%pwd").stdout == ["", ""]
    both(rc, "%%writefile written.txt\ntext")
    assert (tmp_path / "written.txt").read_text() == "text\n"
    both(rc, "%%capture caught\nprint('kept')")
    assert rc[:].pull("caught.stdout").get(10) == ["kept\n"] * 2
    (tmp_path / "own_magic.py").write_text(
        "def load_ipython_extension(shell):\n"
        "    shell.register_magic_function(lambda line: line * 2, magic_name='twice')\n"
    )
    both(rc, "%load_ext own_magic\ndone = %twice ab")
    assert rc[:].pull("done").get(10) == ["abab"] * 2


def test_the_engine_knows_its_id(rc: ipp.Client) -> None:
    assert rc[:].apply_sync(MAIN.engine_id) == [(0, 0), (1, 1)]


def test_an_engine_is_no_notebook(rc: ipp.Client) -> None:
    both(rc, "from ippmpi.client.notebook import in_notebook\nhere = in_notebook()")
    assert rc[0].pull("here").get(10) is False


def test_there_is_nobody_to_ask_for_input(rc: ipp.Client) -> None:
    for code in ("input('who? ')", "import sys; sys.stdin.readline() or 1 / 0"):
        with pytest.raises(ipp.CompositeError):
            both(rc, code)
    with pytest.raises(EOFError):
        rc[0].apply_sync(input)


def test_a_thread_of_a_task_goes_on_behind_it_and_can_be_looked_at(rc: ipp.Client) -> None:
    both(
        rc,
        "import threading\nstep, stop = 0, threading.Event()\n"
        "def simulate():\n    global step\n    while not stop.wait(0.001): step += 1\n"
        "thread = threading.Thread(target=simulate); thread.start()",
    )
    first = rc[:].pull("step").get(10)
    eventually(lambda: all(a > b for a, b in zip(rc[:].pull("step").get(10), first, strict=True)))
    rc[:].execute("stop.set(); thread.join()", block=True)


def test_cells_are_numbered_and_their_history_is_there(rc: ipp.Client) -> None:
    both(rc, "%reset -f in out\nx = 'first'")
    both(rc, "x * 2")
    assert all("x * 2" in text for text in both(rc, "%history").stdout)
    assert rc[0].pull("list(Out.values())").get(10) == ["firstfirst"]
