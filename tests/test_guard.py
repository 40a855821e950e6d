"""The guard against lost speed (``make guard``) can fail, and can pass."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.mpi, pytest.mark.slow]

GUARD = Path(__file__).resolve().parents[1] / "benchmarks" / "guard.py"
RECORDED = GUARD.with_suffix(".json")


def guard(folder: Path, times: float) -> tuple[int, str]:
    """Run it, quickly and on any machine, with all recorded ratios multiplied."""
    facts = json.loads(RECORDED.read_text())
    ratios = {name: ratio * times for name, ratio in facts["ratios"].items()}
    file = folder / "guard.json"
    file.write_text(json.dumps({**facts, "cores": os.cpu_count(), "ratios": ratios}))
    done = subprocess.run(
        [sys.executable, str(GUARD), "--recorded", str(file), "--calm", "1", "--patience", "0.2"],
        cwd=folder,
        env={**os.environ, "IPYTHONDIR": str(folder / "ipython")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


def test_what_is_a_hundred_times_slower_than_recorded_fails_by_name(tmp_path: Path) -> None:
    status, said = guard(tmp_path, 0.01)
    assert status == 1, said
    for name in json.loads(RECORDED.read_text())["ratios"]:
        assert f"too slow: {name};" in said


def test_what_is_faster_than_recorded_passes(tmp_path: Path) -> None:
    status, said = guard(tmp_path, 100)
    assert status == 0, said
    assert "LOST" not in said


def test_the_file_says_when_and_with_what_it_was_recorded() -> None:
    facts = json.loads(RECORDED.read_text())
    assert {"date", "cores", "versions", "ratios"} <= set(facts)
