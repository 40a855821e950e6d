"""Every row of what users know has a test that exists, or a reason; the page made from them is up to date."""

from __future__ import annotations

import ast
import functools
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from api.rows import AREAS, FILES, Row

TESTS = Path(__file__).parent.parent
DOCS = TESTS.parent / "docs"
ROWS = [(area, row) for area, rows in AREAS.items() for row in rows]


@functools.cache
def functions(file: str) -> frozenset[str]:
    tree = ast.parse((TESTS / file).read_text())
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize(("area", "row"), ROWS, ids=lambda value: value.name if isinstance(value, Row) else "")
def test_a_row_names_a_test_that_exists_or_a_reason(area: str, row: Row) -> None:
    assert row.test or row.note, f"{area}: {row.name} has neither a test nor a reason"
    if row.test:
        file, _, name = row.test.partition(":")
        assert f"test_{name}" in functions(FILES[file]), f"{area}: {row.name}: no test_{name} in {FILES[file]}"


def test_no_row_comes_twice() -> None:
    for area, rows in AREAS.items():
        names = [row.name for row in rows]
        assert len(set(names)) == len(names), area


def test_the_page_for_those_who_come_from_ipyparallel_is_up_to_date() -> None:
    page = (DOCS / "coming-from-ipyparallel.md").read_text()
    assert page == _generator().page(), "run docs/coming.py"


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("coming", DOCS / "coming.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
