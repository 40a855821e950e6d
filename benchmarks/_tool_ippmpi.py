"""Measure ippmpi with MPI engines; called by ``compare.py`` in ippmpi's own environment."""

from __future__ import annotations

from _driver import measure

import ippmpi

ROLES = {
    "ippmpi.engine": "engine",
    "ippmpi.agent": "agent",
    "ippmpi.controller": "controller",
}


def noop() -> None:
    """Do nothing."""


def identity(value: int) -> int:
    """Return the argument."""
    return value


if __name__ == "__main__":
    measure(ippmpi, ROLES, (noop, identity), ("ippmpi", "msgspec"))
