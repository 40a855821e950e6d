from __future__ import annotations

import builtins
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import ippmpi as ipp
from ippmpi.client import imports
from ippmpi.client.imports import importing


class Watching:
    """A view that notes what it should import."""

    def __init__(self) -> None:
        self.statements: list[str] = []

    def apply_async(self, function: Any, statement: str) -> Watching:
        assert function is imports.run
        self.statements.append(statement)
        return self

    def get(self) -> None:
        """Succeed."""

    def __len__(self) -> int:
        return 4


@pytest.fixture
def view() -> Iterator[Watching]:
    yield Watching()
    assert builtins.__import__ is not imports._import
    assert not imports._watched


STATEMENTS = [
    "import json",
    "import json as j",
    "import xml.dom",
    "import xml.dom.minidom as md",
    "from xml import dom",
    "from os.path import join, split as cut",
    "from math import *",
]


@pytest.mark.parametrize("statement", STATEMENTS)
def test_statements_are_seen_with_the_names_that_they_bind(view: Watching, statement: str) -> None:
    names = {"importing": importing, "view": view, "frame": None}
    source = (
        f"import sys\nwith importing(view, sys._getframe(), quiet=True):\n    x = 1; {statement}; y = 2\nimport re\n"
    )
    exec(source, names)
    assert view.statements == [statement]


def test_statements_in_functions_are_seen_and_those_of_functions_that_are_called_are_not(view: Watching) -> None:
    names: dict[str, Any] = {"importing": importing, "view": view}
    exec(
        """
import sys

def helper():
    import fractions

def f():
    with importing(view, sys._getframe(), quiet=True):
        helper()
        import decimal as d, textwrap
        from json import dumps
    return d

f()
""",
        names,
    )
    assert view.statements == ["import decimal as d", "import textwrap", "from json import dumps"]


def test_relative_imports_get_their_full_name() -> None:
    variables = {"__package__": "a.b.c"}
    assert imports._absolute("m", variables, 0) == "m"
    assert imports._absolute("m", variables, 1) == "a.b.c.m"
    assert imports._absolute("m", variables, 3) == "a.m"
    assert imports._absolute("", variables, 2) == "a.b"


def test_blocks_of_several_threads_do_not_disturb_each_other() -> None:
    views, together, problems = [Watching() for _ in range(4)], threading.Barrier(4), []
    source = """
with importing(view, sys._getframe(), quiet=True):
    together.wait(10)
    import json as mine
    together.wait(10)
"""

    def work(view: Watching) -> None:
        try:
            exec(source, {"importing": importing, "view": view, "together": together, "sys": __import__("sys")})
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(view,)) for view in views]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not problems
    assert [view.statements for view in views] == [["import json as mine"]] * 4
    assert builtins.__import__ is not imports._import


def test_a_block_that_fails_is_left_as_others_are(view: Watching) -> None:
    source = "import sys\nwith importing(view, sys._getframe(), quiet=True):\n    import no_such_module\n"
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        exec(source, {"importing": importing, "view": view})
    assert view.statements == []


def test_a_view_announces_imports_and_raises_what_failed_on_engines(
    rc: ipp.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    with rc[:].sync_imports():
        import json
        from math import pi as circle
    assert capsys.readouterr().out == "import json on 4 engine(s)\nfrom math import pi as circle on 4 engine(s)\n"
    assert (json.dumps(1), round(circle)) == ("1", 3)
    with rc[0].importer:
        import json as again
    assert again is json
    assert capsys.readouterr().out == "import json as again on 1 engine(s)\n"
    with rc[0].sync_imports(quiet=True):
        import json
    assert capsys.readouterr().out == ""
    with pytest.raises(NotImplementedError, match=r"use view\.execute"):
        rc[0].sync_imports(local=False)


def test_what_fails_on_engines_is_raised_at_the_end_of_the_block(
    rc: ipp.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(statement: str) -> None:
        raise ImportError(f"not here: {statement}")

    monkeypatch.setattr(imports, "run", fail)
    reached = []
    block = rc[0].sync_imports(quiet=True)
    with pytest.raises(ipp.RemoteError, match="not here: import json"), block:  # noqa: PT012 - where it is raised is meant
        import json

        reached.append(json)
    assert reached
