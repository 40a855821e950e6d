"""Measure what reliability promises: ``python benchmarks/reliability.py cuts|memory|away`` prints a table row.

``cuts`` breaks the client's TCP connection again and again while tasks run, ``memory`` sends very many of them
through ``imap``, ``away`` stops a client (SIGSTOP) while its tasks end. Each starts a cluster of local engines.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator

import msgspec

import ippmpi as ipp
from ippmpi import connection
from ippmpi.client.client import Client

ENGINES = 2


class Relay:
    """A TCP relay on loopback whose connections can be cut; new ones are let through."""

    def __init__(self, port: int) -> None:
        """Pass on what comes to *port*."""
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            near, _ = self._listener.accept()
            far = socket.create_connection(("127.0.0.1", self._target))
            self._open += [near, far]
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Break every connection."""
        broken, self._open = self._open, []
        for one in broken:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def cluster() -> Iterator[tuple[ipp.Cluster, Client]]:
    """Start a cluster with files of its own."""
    with tempfile.TemporaryDirectory() as folder:
        started = ipp.Cluster(n=ENGINES, engines="local", profile_dir=folder, cluster_id="", controller_ip="127.0.0.1")
        try:
            yield started, started.start_and_connect_sync()
        finally:
            started.stop_cluster_sync()


def row(measure: str, bar: str, found: str) -> None:
    """Print one row."""
    print(f"| {measure} | {bar} | {found} |", flush=True)


# --- cuts ----------------------------------------------------------------------------------------


def note(number: int) -> int:
    """Count, in the engine's namespace, how often each number has run."""
    runs = globals().setdefault("runs", [])
    runs.append(number)
    return number


def cuts(tasks: int, times: int) -> None:
    """Cut the connection *times* times, evenly, during *tasks* tasks."""
    with cluster() as (started, local):
        record = connection.load(connection.path(started.settings.folder, "client", ""), "client")
        relay = Relay(int(record.address.rpartition(":")[2]))
        fields = msgspec.structs.replace(record, address=f"tcp://127.0.0.1:{relay.port}", socket="/nowhere")
        with Client(msgspec.to_builtins(fields)) as remote:
            recoveries: list[float] = []
            values: Counter[int] = Counter()
            begin = time.monotonic()
            view = remote.load_balanced_view()
            for value in view.imap(note, range(tasks), ordered=False, max_outstanding=500):
                values[value] += 1
                if len(recoveries) < times and sum(values.values()) >= (len(recoveries) + 1) * tasks // (times + 1):
                    relay.cut()
                    cut = time.monotonic()
                    remote[0].apply_async(os.getpid).get(60)
                    recoveries.append(time.monotonic() - cut)
            seconds = time.monotonic() - begin
            ran: Counter[int] = Counter()
            for some in local[:].pull("runs").get(60):
                ran.update(some)
    lost = sum(values[n] == 0 for n in range(tasks))
    twice = sum(count > 1 for count in ran.values()) + sum(count > 1 for count in values.values())
    found = f"{lost} lost, {twice} twice, longest recovery {max(recoveries):.2f} s ({tasks / seconds:.0f} tasks/s)"
    row(f"TCP connection cut {len(recoveries)} times during {tasks:,} tasks", "0 lost, 0 twice, ≤ 5 s each", found)


# --- memory --------------------------------------------------------------------------------------


def echo(data: bytes) -> bytes:
    """Return what came."""
    return data


def rss_mb(pid: int) -> float:
    """Return the memory that process *pid* holds now."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


def memory(tasks: int) -> None:
    """Send *tasks* tasks of 1 kB through ``imap``, results as large."""
    with cluster() as (started, rc):
        assert started.controller is not None
        controller = started.controller.identity.pid
        view = rc.load_balanced_view()
        view.map_sync(echo, [bytes(1000)] * 1000)
        first = most = rss_mb(controller)
        client = rss_mb(os.getpid())
        begin = time.monotonic()
        items = (n.to_bytes(8, "big") * 125 for n in range(tasks))
        for number, value in enumerate(view.imap(echo, items, max_outstanding=1000)):
            assert value[:8] == number.to_bytes(8, "big")
            if number % 1000 == 0:
                most, client = max(most, rss_mb(controller)), max(client, rss_mb(os.getpid()))
            if number % 50_000 == 0:
                print(
                    f"{number:,}: controller {rss_mb(controller):.0f} MB, client {rss_mb(os.getpid()):.0f} MB",
                    flush=True,
                )
        rate = tasks / (time.monotonic() - begin)
    found = f"controller + {most - first:.0f} MB, client {client:.0f} MB ({rate:.0f} tasks/s)"
    row(f"memory after {tasks:,} tasks of 1 kB (`imap`)", "controller + 64 MB, client ≤ 300 MB", found)


# --- away ----------------------------------------------------------------------------------------

USER = """
import os, sys, time
import ippmpi as ipp

def work(n):
    print(n)
    return bytes(1000) + str(n).encode()

work.__module__ = "__main__"
rc = ipp.Client(profile_dir=sys.argv[1])
view = rc.load_balanced_view()
tasks = int(sys.argv[2])
results = [view.apply_async(work, n) for n in range(tasks)]
print("submitted", flush=True)
good = sum(r.get(600) == bytes(1000) + str(n).encode() for n, r in enumerate(results))
print("done", good, sum(r.stdout == f"{n}\\n" for n, r in enumerate(results)), flush=True)
"""


def away(tasks: int, seconds: float) -> None:
    """Stop a client for *seconds* while its *tasks* end."""
    with cluster() as (started, rc):
        assert started.controller is not None
        controller = started.controller.identity.pid
        first = most = rss_mb(controller)
        command = [sys.executable, "-P", "-c", USER, str(started.settings.folder), str(tasks)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as user:
            assert user.stdout is not None
            assert user.stdout.readline() == "submitted\n"
            os.kill(user.pid, signal.SIGSTOP)
            end = time.monotonic() + seconds
            while time.monotonic() < end or rc.queue_status()["unassigned"]:
                time.sleep(0.2)
                most = max(most, rss_mb(controller))
            os.kill(user.pid, signal.SIGCONT)
            back = time.monotonic()
            _, good, once = user.stdout.readline().split()
            late = time.monotonic() - back
            most = max(most, rss_mb(controller))
    grown = most - first
    found = f"{good} of {tasks} results right, {once} outputs once, after {late:.1f} s; controller + {grown:.0f} MB"
    row(f"client back after {seconds:g} s", "result ≤ 5 s, output once", found)


def main() -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("cuts")
    one.add_argument("--tasks", type=int, default=100_000)
    one.add_argument("--cuts", type=int, default=100)
    one = commands.add_parser("memory")
    one.add_argument("--tasks", type=int, default=1_000_000)
    one = commands.add_parser("away")
    one.add_argument("--tasks", type=int, default=20_000)
    one.add_argument("--seconds", type=float, default=600.0)
    args = parser.parse_args()
    if args.command == "cuts":
        cuts(args.tasks, args.cuts)
    elif args.command == "memory":
        memory(args.tasks)
    else:
        away(args.tasks, args.seconds)


if __name__ == "__main__":
    main()
