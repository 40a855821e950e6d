"""Which commands there are, and their options; those of settings are made from ``config``.

Nothing is imported for a command before it is known that it runs, so ``--help`` is fast.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Sequence
from typing import Any

from ippmpi import config
from ippmpi.config import ClusterSettings, ControllerSettings, EngineSettings, Settings
from ippmpi.traits.values import level

from . import known
from .traitargs import apply, apply_files, split

WHICH = ("profile", "profile_dir", "cluster_id")


def make_parser(program: str, prefix: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Return the parser of *program*, which stands for ``ippmpi`` followed by *prefix*."""
    root = _Parser(prog=program, description=_about(prefix))
    root.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    if not prefix:
        commands = root.add_subparsers(title="commands", required=True, metavar="COMMAND")
        for name, (about, fill) in TOP.items():
            fill(commands.add_parser(name, help=about, description=about))
    else:
        TOP[prefix[0]][1](root)
    return root


def settings_of(args: argparse.Namespace, settings: type[Settings]) -> dict[str, Any]:
    """Return the settings that the command line gave, by name."""
    return {o.name: getattr(args, o.name, None) for o in config.options(settings)}


def understand(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Parse a command line, with ``--Class.trait=value`` and what follows ``--`` as people know it."""
    words, traits = split(argv)
    at = words.index("--") if "--" in words else len(words)
    words, for_controller = words[:at], words[at + 1 :]
    args = parser.parse_args(words)
    if for_controller:
        if not hasattr(args, "controller_args"):
            parser.error(f"nothing may follow --, as {' '.join(for_controller)} does")
        args.controller_args = [*(args.controller_args or ()), *for_controller]
    if args.ipython_dir:
        config.use_ipython_folder(args.ipython_dir)
    apply(args.parser, args, traits)
    apply_files(args)
    if getattr(args, "log_level", None) is not None:
        args.log_level = level(args.log_level)
    return args


def add_settings(
    parser: argparse.ArgumentParser, settings: type[Settings], only: Collection[str] | None = None
) -> None:
    """Add the options of a role's settings (of those in *only*)."""
    for option in config.options(settings):
        if only is not None and option.name not in only:
            continue
        default = "none" if option.default in ((), "") else option.default
        text = option.text if "default" in option.text else f"{option.text} (default: {default})"
        # checked and converted by config.load, like values from anywhere else
        parser.add_argument(*option.flags, dest=option.name, metavar=option.metavar or None, help=text, default=None)


def _about(prefix: Sequence[str]) -> str:
    return TOP[prefix[0]][0] if prefix else "Drive a live MPI communicator from a prompt."


def _fill_cluster(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, (about, fill) in CLUSTER.items():
        command = commands.add_parser(name, help=about, description=about)
        command.set_defaults(module=f"ippmpi.cli.{name}")
        fill(command)
    # not listed, but people may have it in a script
    commands.add_parser("nbextension", add_help=False).add_argument("words", nargs="*", action=_NoExtension)


def _fill_start(parser: argparse.ArgumentParser) -> None:
    add_settings(parser, ClusterSettings)
    _add_daemonize(parser)
    _add_common(parser, ClusterSettings, known.START)


def _fill_engines(parser: argparse.ArgumentParser) -> None:
    names = {o.name for o in config.options(ClusterSettings) if not o.name.startswith("controller")}
    add_settings(parser, ClusterSettings, names)
    _add_daemonize(parser)
    _add_common(parser, ClusterSettings, known.CLUSTER)


def _add_common(
    parser: argparse.ArgumentParser, role: type[Settings], more: Sequence[known.Known] = known.STOP
) -> None:
    parser.add_argument("--ipython-dir", metavar="FOLDER", help="folder of the IPython profiles (default: $IPYTHONDIR)")
    parser.add_argument(
        "--config", dest="config_file", action="append", metavar="FILE", help="a configuration file of ipyparallel"
    )
    for flag, text in (("--show-config", "print the settings in effect"), ("--show-config-json", "the same as JSON")):
        parser.add_argument(flag, action="store_true", help=f"{text}, and exit")
    known.add_known(parser, (*known.COMMON, *more))
    parser.set_defaults(parser=parser, role=role)


def _add_daemonize(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--daemonize", action="store_true", help="return when all is ready; leave it running")


def _fill_stop(parser: argparse.ArgumentParser) -> None:
    add_settings(parser, ClusterSettings, WHICH)
    parser.add_argument("ids", nargs="*", metavar="ID", help="clusters to stop, instead of --cluster-id")
    parser.add_argument("--all", action="store_true", help="stop all clusters (of the profile, if one is named)")
    _add_common(parser, ClusterSettings)


def _fill_list(parser: argparse.ArgumentParser) -> None:
    add_settings(parser, ClusterSettings, WHICH[:2])
    _add_output(parser)
    _add_common(parser, ClusterSettings)


def _fill_status(parser: argparse.ArgumentParser) -> None:
    add_settings(parser, ClusterSettings, WHICH)
    parser.add_argument("--why", action="store_true", help="say also what each task that has not ended waits for")
    _add_output(parser)
    _add_common(parser, ClusterSettings)


def _fill_cache(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("list", "drop", "clear"), help="list them; drop some; clear: drop all")
    parser.add_argument("names", nargs="*", metavar="NAME", help="functions; for drop also keys, as list shows them")
    add_settings(parser, ClusterSettings, WHICH)
    parser.add_argument("--limit", type=int, default=100, metavar="N", help="list at most so many (default: 100)")
    _add_output(parser)
    _add_common(parser, ClusterSettings)


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="form (default: text)")


def _fill_clean(parser: argparse.ArgumentParser) -> None:
    add_settings(parser, ClusterSettings, WHICH[:2])
    parser.add_argument("--all", action="store_true", help="clean all profiles")
    parser.add_argument("--force", action="store_true", help="also stop the clusters that run, and remove their files")
    _add_common(parser, ClusterSettings)


def _fill_controller(parser: argparse.ArgumentParser) -> None:
    add_settings(parser, ControllerSettings)
    parser.add_argument("--restore", action="store_true", help="go on where a controller that was killed has ended")
    parser.add_argument("--ready-fd", type=int, help=argparse.SUPPRESS)
    _add_common(parser, ControllerSettings, known.CONTROLLER)
    parser.set_defaults(module="ippmpi.cli.roles")


def _fill_engine(parser: argparse.ArgumentParser) -> None:
    add_settings(parser, EngineSettings)
    parser.add_argument("--file", default="", help="engine connection file, instead of profile and cluster id")
    parser.add_argument(
        "--mpi", action="store_true", help="use MPI, also if nothing shows that an MPI job has started this"
    )
    parser.add_argument("--world", default="", metavar="NAME", help="name of the MPI job (default: found out)")
    parser.add_argument("--size", type=int, default=0, metavar="N", help="its number of ranks (default: found out)")
    _add_common(parser, EngineSettings, known.ENGINE)
    parser.set_defaults(module="ippmpi.cli.roles")


Fill = Callable[[argparse.ArgumentParser], None]

CLUSTER: dict[str, tuple[str, Fill]] = {
    "start": ("start a controller and engines; stays in the foreground until Ctrl-C", _fill_start),
    "engines": ("start one more set of engines for a running controller", _fill_engines),
    "stop": ("stop clusters", _fill_stop),
    "list": ("list running clusters, of all profiles unless one is named", _fill_list),
    "status": ("show the engines of a running cluster and what they do", _fill_status),
    "cache": ("show or drop the results of calls with cache=, by way of a running cluster", _fill_cache),
    "clean": ("remove what clusters that have ended left behind", _fill_clean),
}

TOP: dict[str, tuple[str, Fill]] = {
    "cluster": ("Start, stop and look at clusters.", _fill_cluster),
    "controller": ("Run a controller in the foreground.", _fill_controller),
    "engine": ("Run one engine in the foreground: under mpiexec or srun, one rank of an MPI world.", _fill_engine),
}


class _Parser(argparse.ArgumentParser):
    """Takes no abbreviated options: a script must not break when one is added."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})


class _NoExtension(argparse.Action):
    """There is nothing to enable."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        parser.error("no extension is needed; for notebook < 7 there is none")


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            parser.exit(message=f"ippmpi {version('ippmpi')}\n")
        except PackageNotFoundError:
            parser.exit(message="ippmpi (not installed)\n")
