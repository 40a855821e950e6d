"""Every file of examples/ runs, from a neutral folder, and says what it found out.

But the quickstart, which takes longer than all others: CI runs it after the suite, and so does ``make demo``.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "examples"
EXAMPLES = sorted(path for path in FOLDER.glob("*.py") if path.stem != "quickstart")
ALL = pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)


@pytest.mark.mpi
@pytest.mark.slow
@ALL
def test_an_example_runs(example: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", str(example)],
        cwd=tmp_path,
        env={**os.environ, "IPYTHONDIR": str(tmp_path / "ipython"), "IPPMPI_CONTROLLER_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout
    assert done.stderr == ""


@ALL
def test_an_example_checks_what_it_prints(example: Path) -> None:
    tree = ast.parse(example.read_text())
    assert any(isinstance(node, ast.Assert) for node in ast.walk(tree))
    assert len(example.read_text().splitlines()) < 110, "they are to be read"
