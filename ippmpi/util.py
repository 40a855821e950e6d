"""Small things that users of ipyparallel import from its ``util``."""

from __future__ import annotations

from datetime import UTC, datetime

from ippmpi.client.conditional import interactive

__all__ = ["interactive", "utcnow"]


def utcnow() -> datetime:
    """Return the time of day, with its time zone (UTC), as in the metadata of results."""
    return datetime.now(UTC)
