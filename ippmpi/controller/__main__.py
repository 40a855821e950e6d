"""``python -m ippmpi.controller``: run a controller in the foreground until it is stopped."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from ippmpi import config
from ippmpi.collecting import collect_seldom
from ippmpi.config import ControllerSettings
from ippmpi.controller.process import serve
from ippmpi.errors import IppmpiError

log = logging.getLogger("ippmpi.controller")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a controller; return 0 after a normal stop, 1 if it could not start or broke."""
    parser = _parser()
    options = vars(parser.parse_args(argv))
    ready_fd, restore = options.pop("ready_fd"), options.pop("restore")
    try:
        settings = config.load(ControllerSettings, options)
        logging.basicConfig(
            stream=sys.stderr,
            level=settings.log_level.upper(),
            format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        )
    except ValueError as error:
        parser.error(str(error))
    collect_seldom()
    try:
        serve(settings, ready_fd, restore=restore)
    except (IppmpiError, OSError, LookupError, ValueError) as error:
        log.error("cannot go on: %s", error, exc_info=log.isEnabledFor(logging.DEBUG))
        return 1
    except Exception:  # the outermost place of the process
        log.exception("ended by an error of its own")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ippmpi.controller", description=__doc__)
    for option in config.options(ControllerSettings):
        text = f"{option.text} (default: {option.default!r})".replace("%", "%%")
        parser.add_argument(*option.flags, dest=option.name, metavar=option.metavar or None, help=text)
    parser.add_argument("--restore", action="store_true", help="go on where a controller that was killed has ended")
    parser.add_argument("--ready-fd", type=int, metavar="FD", help="descriptor to write a line to when ready")
    return parser


if __name__ == "__main__":
    sys.exit(main())
