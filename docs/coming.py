"""Write ``docs/coming-from-ipyparallel.md`` from ``tests/api/rows.py``: run this file after changing a row."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

PAGE = Path(__file__).with_name("coming-from-ipyparallel.md")
ROWS = Path(__file__).parent.parent / "tests" / "api" / "rows.py"

HEAD = """# Coming from ipyparallel

`import ippmpi as ipp` in place of `import ipyparallel as ipp` is the port of a script. This page lists what people know
of ipyparallel, what is different here, and the test that shows it. Made from `tests/api/rows.py` by `docs/coming.py`;
edit it there."""


def page() -> str:
    """Return the page."""
    rows = _rows()
    areas = rows.AREAS
    done = sum(bool(row.test) for found in areas.values() for row in found)
    others = sum(map(len, areas.values())) - done
    parts = [
        HEAD,
        f"{done} rows have a test, {others} are left out or different and say why.",
    ]
    for area, found in areas.items():
        lines = [f"## {area}", "", "| what people know | here | shown by |", "|---|---|---|"]
        usual = "does not happen" if found is rows.DEFECTS else "the same"
        lines += [_line(row, rows.FILES, usual) for row in found]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _line(row: object, files: dict[str, str], usual: str) -> str:
    name, test, note = row  # type: ignore[misc] # a Row
    if not test:
        return f"| {name} | {note} | |"
    file, _, function = test.partition(":")
    return f"| {name} | {note or usual} | `{files[file]}`: {function.replace('_', ' ')} |"


def _rows() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rows", ROWS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    PAGE.write_text(page())
