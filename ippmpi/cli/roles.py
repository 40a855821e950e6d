"""``ippmpi controller`` and ``ippmpi engine``: become that process."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from ippmpi import config, connection
from ippmpi.cluster.sets import engine_command
from ippmpi.config import ControllerSettings, EngineSettings

from .parser import settings_of


def run(args: argparse.Namespace) -> int:
    """Replace this process by the one that was asked for; does not return."""
    argv = controller_argv(args) if args.role == "controller" else engine_argv(args)
    os.execvp(argv[0], argv)


def controller_argv(args: argparse.Namespace) -> list[str]:
    """Return the command of a controller with the settings that were given."""
    settings = config.load(ControllerSettings, settings_of(args, ControllerSettings))
    settings.folder.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-P", "-m", "ippmpi.controller", "--profile-dir", str(settings.folder)]
    for option in config.options(ControllerSettings):
        value = getattr(settings, option.name)
        if option.name not in ("profile", "profile_dir") and value != option.default:
            argv += [option.flags[-1], str(value)]
    return [*argv, "--restore"] if args.restore else argv


def engine_argv(args: argparse.Namespace) -> list[str]:
    """Return the command of an engine: one without MPI, or one rank of ``--world``."""
    settings = config.load(EngineSettings, settings_of(args, EngineSettings))
    file = args.file or str(connection.find("engine", profile_dir=settings.folder, cluster_id=settings.cluster_id))
    if bool(args.world) != bool(args.size):
        raise ValueError("--world and --size go together: under mpiexec, give both; for a single engine, neither")
    world = args.world or f"single-{os.getpid()}"
    found = connection.for_world(connection.load(file, "engine"), world)
    mine = connection.world_path(Path(file).absolute().parents[1], world, found.cluster_id)
    connection.write(found, mine)  # every rank of a world writes the same
    argv = engine_command(mine, found, world, args.size or 1)
    for name in ("startup_command", "startup_script"):
        if getattr(args, name):
            argv += [f"--{name.replace('_', '-')}", getattr(args, name)]
    return argv if args.size else [*argv, "--local-rank", "0"]
