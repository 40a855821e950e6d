"""A small form of ``benchmarks/scale.py``: a real controller, a real client, simulated nodes of 128 ranks.

The script itself raises unless all ranks have registered, their ids are contiguous, and each has answered in its place.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "scale.py"
MOST_GROWTH = 9.0
"""Of CPU time, for four times as many ranks: what grows with their square would be 16 times as much."""


def measured(agents: int, *options: str) -> dict[str, float]:
    command = [sys.executable, str(SCRIPT), "--agents", str(agents), "--rounds", "1", "--idle", "0", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return {key: value for key, (value,) in json.loads(done.stdout).items()}


def test_a_thousand_ranks_register_and_answer_and_four_times_as_many_take_about_four_times_as_long() -> None:
    small, large = (measured(agents, "--calls", "20")["call_controller_s"] for agents in (8, 32))
    assert large < MOST_GROWTH * small


def test_the_core_needs_no_more_per_rank_for_many_ranks_than_for_few() -> None:
    small, large = (measured(agents, "--core") for agents in (32, 128))
    assert large["core_register_s"] < MOST_GROWTH * small["core_register_s"]
    assert large["core_call_s"] < MOST_GROWTH * small["core_call_s"]
