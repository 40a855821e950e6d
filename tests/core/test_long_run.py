"""A short form of the core's long run (``long_run.py``)."""

from __future__ import annotations

import random

import pytest

from core import long_run


@pytest.mark.parametrize("seed", [1, None], ids=["fixed", "random"])
def test_twenty_thousand_random_events_break_no_rule(seed: int | None) -> None:
    long_run.run(random.randrange(1 << 30) if seed is None else seed, 20_000)
