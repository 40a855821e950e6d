"""From the words of a command line to the module that does it, and from its errors to text and exit code."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from ippmpi.errors import IppmpiError

from .parser import make_parser, understand

FAILED = 1
ALREADY_RUNNING = 10
NOT_RUNNING = 11
INTERRUPTED = 130

# What users can act on. Anything else is a mistake of ours and keeps its traceback.
EXPECTED = (IppmpiError, OSError, LookupError, ValueError)


def run(program: str, prefix: Sequence[str], argv: Sequence[str]) -> int:
    """Parse and do a command; return its exit code."""
    try:
        args = understand(make_parser(program, prefix), argv)
        if args.show_config or args.show_config_json:
            args.module = "ippmpi.cli.show"
        return int(importlib.import_module(args.module).run(args))
    except KeyboardInterrupt:
        return INTERRUPTED
    except EXPECTED as error:
        print(f"{program}: error: {text_of(error)}", file=sys.stderr)
        return FAILED


def text_of(error: BaseException) -> str:
    """Return an error's text (that of a KeyError without its quotes)."""
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
