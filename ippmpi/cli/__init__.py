"""The command line: ippmpi, and ipcluster, ipcontroller, ipengine as people know them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .dispatch import run


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``ippmpi <command> ...``; return the exit code."""
    return run("ippmpi", (), sys.argv[1:] if argv is None else argv)


def ipcluster(argv: Sequence[str] | None = None) -> int:
    """Run ``ippmpi cluster ...``."""
    return run("ipcluster", ("cluster",), sys.argv[1:] if argv is None else argv)


def ipcontroller(argv: Sequence[str] | None = None) -> int:
    """Run ``ippmpi controller ...``."""
    return run("ipcontroller", ("controller",), sys.argv[1:] if argv is None else argv)


def ipengine(argv: Sequence[str] | None = None) -> int:
    """Run ``ippmpi engine ...``."""
    return run("ipengine", ("engine",), sys.argv[1:] if argv is None else argv)
