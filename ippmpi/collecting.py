"""How often the garbage collector of our own long-lived processes looks for cycles: what passes through makes none."""

from __future__ import annotations

import gc

NEW_OBJECTS = 20_000
"""Objects that must have come before the collector looks at the young ones; Python's 700 are a round per 20 tasks."""


def collect_seldom() -> None:
    """Keep what is imported out of the collector's rounds, and have fewer of them. Never in a process of the user's."""
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, 20, 20)
