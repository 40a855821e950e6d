"""``python -m ippmpi.agent``: one node's agent for one world, started by the first of its ranks.

It logs to standard error, which is a file in the node folder. A normal life, whatever happens to the
ranks, leaves that empty at the default level, so that the file and the folder go in the end.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from ippmpi import config
from ippmpi.agent.files import Lock, remove_empty_log, remove_folder, remove_traces
from ippmpi.agent.process import Agent
from ippmpi.collecting import collect_seldom
from ippmpi.config import AgentSettings
from ippmpi.connection import AGENT_LOCK, host_prefix, load, node_folder
from ippmpi.errors import ConnectionFileError

_log = logging.getLogger("ippmpi.agent")


def main(argv: Sequence[str] | None = None) -> int:
    """Run an agent; return at once if there is one."""
    options = _options(argv)
    # the file is in <profile folder>/security; the profile's own settings count on every node
    profile_dir = options.file.absolute().parent.parent
    settings = config.load(AgentSettings, {"profile_dir": profile_dir, "transport": options.transport})
    logging.basicConfig(
        stream=sys.stderr,
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    _own_session()
    _whole_node()
    collect_seldom()
    try:
        connection = load(options.file, role="engine")
        folder = node_folder(connection.folder_key)
        lock = Lock(folder / (host_prefix() + AGENT_LOCK), options.lock_fd)
    except BlockingIOError:
        return 0
    except ConnectionFileError as error:
        _log.error("%s", error)
        return 1
    try:
        return _serve(Agent(connection, options.world, settings, replaces=options.lock_fd is not None))
    except ConnectionFileError as error:
        _log.error("%s", error)
        return 1
    finally:
        remove_traces(folder, host_prefix())
        lock.release()
        remove_empty_log()
        remove_folder(folder)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ippmpi.agent", description=__doc__.splitlines()[0])
    parser.add_argument("--file", type=Path, required=True, help="the engines' connection file")
    parser.add_argument("--world", required=True, help="name of the MPI job")
    parser.add_argument("--transport", choices=["auto", "tcp"], help="how to reach the controller")
    parser.add_argument("--lock-fd", type=int, help="descriptor of the lock: this agent replaces one that died")
    return parser.parse_args(argv)


def _serve(agent: Agent) -> int:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: agent.stop())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the engines
    agent.run()
    return 0


def _own_session() -> None:
    """Leave the process group of mpiexec, which kills it with the ranks."""
    try:
        os.setsid()
    except PermissionError:  # the rank that started this process has seen to it
        if os.getsid(0) != os.getpid():
            _log.warning("this process leads a group of a foreign session")


def _whole_node() -> None:
    """Undo the binding to the core of one rank."""
    try:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
    except (OSError, AttributeError) as error:
        _log.warning("cannot use all cores: %s", error)


if __name__ == "__main__":
    sys.exit(main())
