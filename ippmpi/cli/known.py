"""Options of ipyparallel's commands that are no settings of ours: what they mean, or why not.

They are understood, so that existing scripts go on; ``--help`` shows ours, ``--help-all`` these too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from ippmpi.config import EngineSettings
from ippmpi.traits.table import ALWAYS, KEYS, LIVENESS, NO_LOGGER, Meaning


class Known(NamedTuple):
    """An option: its *flags*, what it means, and what it is given: a *value*, or (None) *const*, or either."""

    flags: tuple[str, ...]
    means: Meaning
    const: Any = None
    value: bool = True


def _option(flag: str, means: Meaning) -> Known:
    return Known((flag,), means)


def _flag(flag: str, means: Meaning, const: Any = True) -> Known:
    return Known((flag,), means, const, value=False)


_LOGS = "the output of the controller and of engines is in the profile's log folder"

COMMON = (
    _flag("--debug", Meaning("log_level"), "debug"),
    _flag("--quiet", Meaning("log_level"), "critical"),
    _flag("--init", Meaning(unneeded="the profile folder is made when it is missing")),
    Known(("--clean-logs",), Meaning(unneeded="logs of what has ended well are removed"), const="True"),
    _option("--log-url", Meaning(refused=NO_LOGGER)),
)
"""What every command of ipyparallel takes, besides what is ours too."""

CLUSTER = (Known(("--log-to-file",), Meaning(unneeded=_LOGS), const="True"),)

START = (
    *CLUSTER,
    _option("--delay", Meaning(unneeded="engines start as soon as the controller is ready, which it says")),
)

STOP = (
    *CLUSTER,
    _option("--signal", Meaning(unneeded="engines are asked to finish, and killed if they do not")),
    _option("--work-dir", Meaning(unneeded="nothing is started")),
    _option("--log-level", Meaning(unneeded="all is printed")),
)

CONTROLLER = (
    Known(("--log-to-file",), Meaning("log_to_file"), const="True"),
    _option("--work-dir", Meaning("work_dir")),
    _option("--ports", Meaning("ports")),
    _option("--scheme", Meaning("policy")),
    _option("--transport", Meaning("transport")),
    _flag("--nodb", Meaning("store"), "none"),
    _flag("--sqlitedb", Meaning("store"), "disk"),
    _flag("--dictdb", Meaning("store"), "disk"),
    _flag("--mongodb", Meaning(refused="records are in SQLite, in --store-dir")),
    _flag("--usethreads", Meaning(unneeded="the controller is one process")),
    _flag(
        "--reuse",
        Meaning(
            unneeded="keys are new at each start, so files that were copied must be copied again; after a kill, "
            "--restore goes on with the same"
        ),
    ),
    _option("--hwm", Meaning(unneeded="how much is handed ahead follows the time that tasks take")),
    _option("--ping", Meaning(unneeded=LIVENESS)),
    _flag("--secure", Meaning(unneeded=ALWAYS)),
    _flag("--no-secure", Meaning(refused="keys and encryption cannot be switched off")),
    _option("--keyfile", Meaning(refused=KEYS)),
    _option("--ident", Meaning(unneeded="it names nothing here")),
    _option("--user", Meaning(unneeded="it names nothing here")),
    _option("--ssh", Meaning(refused="say it where the client is: Client(sshserver=...)")),
    _option("--enginessh", Meaning(refused="engines connect to the controller's address: --ip, --location")),
)

ENGINE = (
    Known(("--log-to-file",), Meaning("log_to_file"), const="True"),
    _option("--work-dir", Meaning("work_dir")),
    _option("--url", Meaning(refused="an address is not enough, the file holds the keys: --file")),
    _option("--timeout", Meaning(unneeded="an engine has a minute to join")),
    _option("--location", Meaning(unneeded="engines connect, nobody connects to them")),
    _option("--ssh", Meaning(refused="engines connect to the controller's address: ipcontroller --ip, --location")),
    _option("--sshkey", Meaning(refused="engines connect to the controller's address: ipcontroller --ip, --location")),
    _option("--keyfile", Meaning(refused=KEYS)),
    _option("--ident", Meaning(unneeded="it names nothing here")),
    _option("--user", Meaning(unneeded="it names nothing here")),
)


def add_known(parser: argparse.ArgumentParser, known: Sequence[Known]) -> None:
    """Let *parser* understand these options, and show them for ``--help-all`` only."""
    for option in known:
        means = option.means
        action = _Unneeded if means.unneeded else _Refused if means.refused else _Setting
        nargs = None if option.const is None else "?" if option.value else 0
        added = parser.add_argument(
            *option.flags,
            action=action,
            nargs=nargs,
            const=option.const,
            dest=means.setting or argparse.SUPPRESS,
            default=argparse.SUPPRESS,
            help=argparse.SUPPRESS,
            metavar="VALUE",
        )
        added.full_help = _about(means, option.const)  # type: ignore[attr-defined] # for --help-all
    parser.add_argument("--help-all", action=_HelpAll, nargs=0, help="show also the options of ipyparallel, and exit")


def _about(means: Meaning, const: Any) -> str:
    if means.unneeded:
        return f"accepted, not needed: {means.unneeded}"
    if means.refused:
        return f"refused: {means.refused}"
    ours = f"--{means.setting.replace('_', '-')}"
    return f"as {ours}" if const in (None, True, "True") else f"as {ours}={const}"


class _Setting(argparse.Action):
    """One of our settings, by another name."""

    def __call__(self, _: argparse.ArgumentParser, args: argparse.Namespace, values: Any, __: object = None) -> None:
        setattr(args, self.dest, self.const if self.nargs == 0 else values)


class _Unneeded(argparse.Action):
    """Accepted; why nothing needs to be done about it is said."""

    def __call__(
        self, parser: argparse.ArgumentParser, args: argparse.Namespace, _: object, option: str | None = None
    ) -> None:
        why = getattr(self, "full_help").partition(": ")[2]  # noqa: B009 - mypy knows no such attribute
        note(parser.prog, args, f"{option} is not needed: {why}")


class _Refused(argparse.Action):
    """Refused, with what to do instead."""

    def __call__(self, parser: argparse.ArgumentParser, _: object, __: object, option: str | None = None) -> None:
        instead = getattr(self, "full_help").partition(": ")[2]  # noqa: B009 - mypy knows no such attribute
        parser.error(f"{option} is not possible: {instead}")


class _HelpAll(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        for action in parser._actions:
            action.help = getattr(action, "full_help", action.help)
        parser.print_help()
        parser.exit()


def note(program: str, args: argparse.Namespace, text: str) -> None:
    """Tell the user something that is no error; not a thousand times, once for each rank."""
    if args.role is not EngineSettings:
        print(f"{program}: note: {text}", file=sys.stderr)
