"""``ippmpi controller`` and ``ippmpi engine``: become that process."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ippmpi import config, connection
from ippmpi.cluster.sets import engine_command, log_file
from ippmpi.config import ControllerSettings, EngineSettings
from ippmpi.connection import Connection
from ippmpi.controller.address import bind_address, check_free
from ippmpi.engine.started import MpiJob, alone, find_job
from ippmpi.errors import ConnectionFileError
from ippmpi.traits.files import of_profile
from ippmpi.traits.values import scheme, transport, truth

from .known import note
from .parser import settings_of

LOOK_S = 0.1  # between two looks for a file


def run(args: argparse.Namespace) -> int:
    """Replace this process by the one that was asked for; does not return."""
    argv = controller_argv(args) if args.role is ControllerSettings else engine_argv(args)
    if getattr(args, "work_dir", None):
        os.chdir(args.work_dir)
    os.execvp(argv[0], argv)


# --- the controller ------------------------------------------------------------------------------


def controller_argv(args: argparse.Namespace) -> list[str]:
    """Return the command of a controller with the settings that were given."""
    settings = config.load(ControllerSettings, _controller_given(args), below=_below(ControllerSettings, args))
    settings.folder.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-P", "-m", "ippmpi.controller", "--profile-dir", str(settings.folder)]
    for option in config.options(ControllerSettings):
        value = getattr(settings, option.name)
        if option.name not in ("profile", "profile_dir") and value != option.default:
            argv += [option.flags[-1], str(value)]
    if getattr(args, "ports", None) and not args.port:
        argv += ["--port", str(first_free(str(args.ports), settings.ip))]
    if args.ready_fd is not None:
        argv += ["--ready-fd", str(args.ready_fd)]
    _log_to_file(args, settings, "ipcontroller")
    return [*argv, "--restore"] if args.restore else argv


def _controller_given(args: argparse.Namespace) -> dict[str, Any]:
    given = settings_of(args, ControllerSettings)
    if given["policy"] is not None:
        given["policy"] = scheme(given["policy"])
    if getattr(args, "transport", None) and transport(args.transport) is not None:
        given["ip"] = transport(args.transport)
    return given


def first_free(ports: str, ip: str) -> int:
    """Return the first free port of a list with ranges, as ``10101-10120,10200``.

    Raises:
        ValueError: it is no such list, or none of them is free.
    """
    try:
        ranges = [part.partition("-")[::2] for part in ports.strip("[]").replace(" ", "").split(",")]
        numbers = [n for low, high in ranges for n in range(int(low), int(high or low) + 1)]
    except ValueError:
        raise ValueError(f"--ports must be a list with ranges, as 10101-10120,10200, not {ports!r}") from None
    for number in numbers:
        try:
            check_free(bind_address(ip), number)
        except OSError:
            continue
        return number
    raise ValueError(f"none of the ports {ports} is free")


# --- an engine -----------------------------------------------------------------------------------


def engine_argv(args: argparse.Namespace) -> list[str]:
    """Return the command of an engine: a rank of an MPI job, or one without MPI."""
    if bool(args.world) != bool(args.size):
        raise ValueError("--world and --size go together: give both, or, where they can be found out, neither")
    settings = config.load(EngineSettings, settings_of(args, EngineSettings), below=_below(EngineSettings, args))
    job = MpiJob(args.world, args.size) if args.world else find_job(mpi=args.mpi)
    world = job.world if job is not None else alone()
    found, profile_dir = _find(args, settings)
    found = connection.for_world(found, world)
    mine = connection.world_path(profile_dir, world, found.cluster_id, by_hand=True)
    _write_once(found, mine)
    argv = engine_command(mine, found, world, job.size if job is not None else 1)
    for name in ("startup_command", "startup_script"):
        if getattr(args, name):
            argv += [f"--{name.replace('_', '-')}", getattr(args, name)]
    _log_to_file(args, settings, "ipengine")
    return argv if job is not None or args.mpi else [*argv, "--local-rank", "0"]


def _write_once(found: Connection, file: Path) -> None:
    """Write what the ranks of a world share, unless another one of them has."""
    with contextlib.suppress(ConnectionFileError):
        if connection.load(file, "engine") == found:
            return
    connection.write(found, file)


def _find(args: argparse.Namespace, settings: EngineSettings) -> tuple[Connection, Path]:
    """Return what leads to the controller, and the profile folder in which files of this engine go."""
    given = config.take_connection_variable()
    if given:
        return connection.parse(given.encode(), "engine", f"the variable {config.CONNECTION_VARIABLE}"), settings.folder
    if args.file:
        file = Path(args.file).expanduser().absolute()
        # a copy that lies elsewhere says nothing about where files of ours may go
        folder = file.parents[1] if file.parent.name == "security" else settings.folder
        return _wait(file, settings.file_wait_s), folder
    file = connection.path(settings.folder, "engine", settings.cluster_id)
    return _wait(file, settings.file_wait_s), settings.folder


def _wait(file: Path, timeout_s: float) -> Connection:
    """Read a connection file as soon as it is there, and its controller runs."""
    deadline = time.monotonic() + timeout_s
    while True:
        if file.exists() and not connection.stale(found := connection.load(file, "engine")):
            return found
        if time.monotonic() >= deadline:
            break
        time.sleep(LOOK_S)
    if file.exists():
        raise ConnectionFileError(f"the controller that wrote {file} has ended: start one (waited {timeout_s:g} s)")
    raise connection.missing(file, "engine")


# --- both ----------------------------------------------------------------------------------------


def _below(role: type[config.Settings], args: argparse.Namespace) -> Any:
    """Return the source of the settings under all others: configuration files of ipyparallel.

    What such a file says that is an option, but not a setting, goes into *args*.
    """

    def read(folder: Path) -> Mapping[str, object]:
        found = of_profile(folder, role)
        for name in found.keys() - role.FIELDS.keys():
            if getattr(args, name, None) in (None, False, ""):
                setattr(args, name, found[name])
        return found

    return read


def _log_to_file(args: argparse.Namespace, settings: config.Settings, program: str) -> None:
    if not truth(getattr(args, "log_to_file", False)):
        return
    file = log_file(settings, program, str(os.getpid()))
    file.parent.mkdir(parents=True, exist_ok=True)
    note(program, args, f"the log is {file}")
    log = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
