"""``ippmpi cluster status``."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Mapping
from typing import Any

import msgspec

from ippmpi.client.explaining import explain_tasks
from ippmpi.errors import ClusterError, ConnectionFileError
from ippmpi.wire.messages import Query

from .dispatch import NOT_RUNNING, text_of
from .find import find_cluster
from .tables import print_table

ANSWER_S = 10.0

COLUMNS = ("ENGINE", "RANK", "WORLD", "HOST", "PID", "STATE", "TASKS", "COMPLETED")


def run(args: argparse.Namespace) -> int:
    """Ask the controller and print what it says of each engine, with ``--why`` also of each task."""
    try:
        cluster = find_cluster(args)
    except (ClusterError, ConnectionFileError, FileNotFoundError) as error:
        print(f"not running: {text_of(error)}", file=sys.stderr)
        return NOT_RUNNING
    with contextlib.closing(cluster.connect_client_sync()) as client:
        status = client.requests.ask(lambda number: Query(number, "status")).result(ANSWER_S)
        why = explain_tasks(client.requests, None, ANSWER_S) if args.why else None
    if why is not None:
        status["why"] = [{"text": reason.text, **msgspec.to_builtins(reason.details)} for reason in why]
    if args.output == "json":
        print(json.dumps(status, indent=2, default=str))
        return 0
    print_table(COLUMNS, [_row(engine) for engine in status["engines"]])
    if why is not None:
        print(why)
    return 0


def _row(engine: Mapping[str, Any]) -> tuple[object, ...]:
    waiting = engine["queue"] + engine["tasks"]
    where = (engine["id"], engine["rank"], engine["world"], engine["host"], engine["pid"])
    return *where, engine["state"], waiting, engine["completed"]
