"""``--Class.trait=value`` on a command line, and configuration files that it names: both as options of ours."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ippmpi.config import ControllerSettings, Settings
from ippmpi.traits.table import meaning, role_of

from .known import note

_TRAIT = re.compile(r"--([A-Z]\w*\.\w+)(?:=(.*))?", re.DOTALL)

Traits = list[tuple[str, str]]


def split(argv: Sequence[str]) -> tuple[list[str], Traits]:
    """Take the traits out of a command line; return the rest, and each with its value."""
    rest: list[str] = []
    traits: Traits = []
    words = iter(argv)
    for word in words:
        found = _TRAIT.fullmatch(word)
        if found is None:
            rest.append(word)
        else:
            traits.append((found[1], next(words, "") if found[2] is None else found[2]))
    return rest, traits


def apply(parser: argparse.ArgumentParser, args: argparse.Namespace, traits: Traits) -> None:
    """Set what *traits* say in *args*, where no option does; end with a usage error if one cannot be had."""
    role: type[Settings] = args.role
    found: dict[str, Any] = {}
    for name, value in traits:
        means = meaning(role, name)
        if means is None and hasattr(args, "controller_args") and role_of(name) is ControllerSettings:
            args.controller_args = [*(args.controller_args or ()), f"--{name}={value}"]
        elif means is None:
            parser.error(f"--{name} has no meaning here; --help-all shows what has")
        elif means.refused:
            parser.error(f"--{name} is not possible: {means.refused}")
        elif means.unneeded:
            note(parser.prog, args, f"--{name} is not needed: {means.unneeded}")
        else:
            try:
                found[means.setting] = means.convert(value)
            except ValueError as error:
                parser.error(f"--{name} {error}")
    _fill(args, found)


def apply_files(args: argparse.Namespace) -> None:
    """Set what the files of ``--config`` say in *args*, where neither an option nor a trait does."""
    if args.config_file:
        from ippmpi.traits.files import of_file

        for file in reversed(args.config_file):
            _fill(args, of_file(Path(file).absolute(), args.role))


def _fill(args: argparse.Namespace, found: Mapping[str, Any]) -> None:
    for name, value in found.items():
        if value is not None and getattr(args, name, None) in (None, False, ""):
            setattr(args, name, value)
