"""Measure ipyparallel with MPI engines; called by ``compare.py`` in ipyparallel's own environment.

Its nannies, one for each engine, do the work of our agents.
"""

from __future__ import annotations

import ipyparallel
from _driver import measure

ROLES = {
    "ipyparallel.engine": "engine",
    "ipyparallel.engine.nanny": "agent",
    "ipyparallel.controller": "controller",
}


def noop() -> None:
    """Do nothing."""


def identity(value: int) -> int:
    """Return the argument."""
    return value


if __name__ == "__main__":
    measure(ipyparallel, ROLES, (noop, identity), ("ipyparallel",))
