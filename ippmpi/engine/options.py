"""The command line of an engine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from ippmpi import config


class Options(NamedTuple):
    """The command line. ``local_rank`` stands for MPI where there is none."""

    file: str
    world: str
    size: int
    local_rank: int | None = None
    startup_command: str | None = None
    startup_script: str | None = None

    @classmethod
    def parse(cls, argv: Sequence[str]) -> Options:
        """Read ``--name value`` pairs; raise ValueError. (argparse would cost each rank 5 ms.)"""
        names = ("--file", "--world", "--size", "--local-rank", "--startup-command", "--startup-script")
        given = dict(zip(argv[::2], argv[1::2], strict=len(argv) % 2 == 0))
        if len(argv) % 2 or given.keys() - set(names) or not given.keys() >= set(names[:3]):
            raise ValueError(
                "usage: --file FILE --world NAME --size N [--local-rank R] [--startup-command CODE] "
                f"[--startup-script FILE], not {' '.join(argv)!r}"
            )
        rank, more = given.get("--local-rank"), [given.get(name) for name in names[4:]]
        return cls(given["--file"], given["--world"], int(given["--size"]), None if rank is None else int(rank), *more)

    def settings(self) -> config.EngineSettings:
        """Return the engine's settings: of the profile that the connection file is in, and of the command line."""
        return config.load(
            config.EngineSettings,
            {
                "profile_dir": os.path.dirname(os.path.dirname(os.path.abspath(self.file))),
                "startup_command": self.startup_command,
                "startup_script": self.startup_script,
            },
        )
