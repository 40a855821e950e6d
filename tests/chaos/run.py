"""Random work, random harm, and a judge: ``python tests/chaos/run.py --seconds 1800 --seed 1``.

The seed fixes what is asked for and what is done to whom, though not the moments at which it meets: run a seed that
has found something a few times. ``--kinds`` and ``--log`` help to find out what it was.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import msgspec

import ippmpi as ipp
from chaos import harm
from chaos.oracle import Asked, History, Outcome, judge
from chaos.proxy import Proxy
from helpers import PROC, eventually
from ippmpi import connection
from ippmpi.cli.foreground import supervise

WORKER = Path(__file__).with_name("work.py")
SETS = (("mpi", 2), ("local", 2))
MARK = "IPPMPI_CHAOS"

MOST_MB = {"controller": 300, "agent": 200, "client": 400}
MOST_NEW_DESCRIPTORS = 30  # a client's, between its first task and its last one


class Run:
    """One cluster, its clients, and what happened to them."""

    def __init__(self, seed: int, kinds: list[str] | None, folder: Path) -> None:
        """Start nothing yet."""
        self.seed = seed
        self.kinds = kinds
        self.folder = folder
        self.mark = uuid.uuid4().hex
        self.shm = set(os.listdir("/dev/shm"))
        self.profile = folder / "profile"
        os.environ[MARK] = self.mark  # of the cluster's processes, to find those that stay behind
        self.cluster = ipp.Cluster(
            n=SETS[0][1], profile_dir=str(self.profile), cluster_id="", restart="always", engine_timeout=60
        )
        self.proxies: list[Proxy] = []
        self.count = sum(n for _, n in SETS)
        self.done: list[str] = []

    def start(self) -> None:
        """Start everything."""
        chance = random.Random(f"{self.seed}/cluster")
        transport = chance.choice(("unix", "tcp"))
        self.cluster.start_controller_sync()
        self.to_agents = self._proxy("engine", transport)
        self._lead_agents()
        for engines, n in SETS:
            self.cluster.start_engines_sync(n, engines=engines)
        with contextlib.closing(self.cluster.connect_client_sync()) as rc:
            self.cluster.wait_for_engines_sync(rc, self.count)
        self.supervisor = threading.Thread(target=supervise, args=(self.cluster,), name="supervisor", daemon=True)
        self.supervisor.start()
        ways = [self._proxy("client", way) for way in chance.sample(("unix", "tcp"), chance.randint(1, 2))]
        workers = [self._worker(number, proxy) for number, proxy in enumerate(ways)]
        self.scene = harm.Scene(self.cluster, self.profile, workers, ways, [self.to_agents])

    # --- wiring ---

    def _found(self, role: connection.Role) -> connection.Connection:
        return connection.load(connection.path(self.profile, role), role)

    def _proxy(self, role: connection.Role, way: str) -> Proxy:
        found = self._found(role)
        target, listen = found.address, ""
        if way == "unix":
            target, listen = f"unix://{found.socket}", str(self.folder / f"{role}{len(self.proxies)}")
        proxy = Proxy(lambda: target, listen)
        self.proxies.append(proxy)
        return proxy

    @staticmethod
    def _through(proxy: Proxy, found: connection.Connection) -> connection.Connection:
        if proxy.address.startswith("unix://"):
            return msgspec.structs.replace(found, socket=proxy.address.removeprefix("unix://"), address="")
        return msgspec.structs.replace(found, socket="/nowhere", address=proxy.address)

    def _lead_agents(self) -> None:
        """Have agents that are started from now on use the proxy; a restored controller writes its file anew."""
        file = connection.path(self.profile, "engine")
        with contextlib.suppress(OSError):
            found = connection.load(file, "engine")
            led = self._through(self.to_agents, found)
            if led != found:
                connection.write(led, file)

    def _worker(self, number: int, proxy: Proxy) -> subprocess.Popen[bytes]:
        file = self.folder / f"client{number}.json"
        connection.write(self._through(proxy, self._found("client")), file)
        name = f"c{number}"
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", str(WORKER), str(file), str(self.folder), name, str(self.seed)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
        told = self.folder / f"{name}.told"
        eventually(lambda: told.exists() and told.stat().st_size, 60, f"client {name} is ready")
        return process

    # --- the run ---

    def rage(self, seconds: float) -> None:
        """Do harm for so long."""
        end = time.monotonic() + seconds
        began = time.monotonic()
        for blow in harm.blows(self.seed, self.kinds):
            due = time.monotonic() + blow.pause_s
            while time.monotonic() < due:
                time.sleep(0.05)
                self.scene.heal()
            if time.monotonic() > end:
                return
            self._lead_agents()
            did = harm.strike(self.scene, blow)
            self.done.append(f"{time.monotonic():9.1f} (+{time.monotonic() - began:5.1f} s)  {blow.kind}: {did}")

    def finish(self) -> list[str]:
        """Stop doing harm, let all work end, end the cluster; return what is wrong."""
        self.scene.heal(all_=True)
        problems = []
        for process in self.scene.clients:
            assert process.stdin is not None
            process.stdin.close()
        self._bring_engines_back()
        for number, process in enumerate(self.scene.clients):
            try:
                code = process.wait(150)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
            if code not in (0, 3):  # 3: not all has ended; the judge says what
                problems.append(f"client c{number} ended with {code}: {(self.folder / f'c{number}.log').read_text()}")
        problems += self._memory()
        self._keep_logs()
        self.cluster.stop_cluster_sync()
        self.supervisor.join(30)
        for proxy in self.proxies:
            proxy.close()
        return problems + judge(self.history()) + self._left()

    def _keep_logs(self) -> None:
        """Copy all logs: a good end removes them."""
        kept = self.folder / "logs"
        kept.mkdir()
        for folder in (str(self.profile / "log"), *self.cluster._sets.folders):
            for file in Path(folder).glob("*.log"):
                shutil.copy(file, kept / f"{Path(folder).name}-{file.name}")

    def _bring_engines_back(self) -> None:
        """Have all sets run, so that tasks which wait for an engine can end."""

        def complete() -> bool:
            dead = [key for key, launcher in self.cluster.engines.items() if launcher.poll() is not None]
            for key in dead:
                harm.note_deaths(self.scene, key)
                with contextlib.suppress(ipp.errors.IppmpiError, OSError, KeyError):
                    self.cluster.restart_engines_sync(key)
            return not dead and sum(map(len, harm.engines(self.profile).values())) == self.count

        with contextlib.suppress(AssertionError):  # the judge will tell
            eventually(complete, 60)

    def history(self) -> History:
        """Read what clients and tasks have told."""
        history = History(deaths=self.scene.deaths, restarts=self.scene.restarts, changes=self.scene.changes)
        for file in sorted(self.folder.glob("*.told")):
            for line in file.read_text().splitlines():
                _enter(json.loads(line), history)
        runs = self.folder / "runs"
        lines = runs.read_text().splitlines() if runs.exists() else []
        history.runs = [(key, int(pid), float(when)) for key, pid, when in (line.split() for line in lines)]
        return history

    # --- what must not grow or stay ---

    def _memory(self) -> Iterator[str]:
        found = [("agent", pid) for pid in harm.agents(self.profile)]
        if self.cluster.controller is not None:
            found.append(("controller", self.cluster.controller.identity.pid))
        for role, pid in found:
            with contextlib.suppress(OSError):
                mb = _rss_mb(pid)
                if mb > MOST_MB[role]:
                    yield f"{role} {pid} has {mb} MB, at most {MOST_MB[role]} are allowed"
        for file in sorted(self.folder.glob("*.told")):
            told = [json.loads(line) for line in file.read_text().splitlines()]
            if not told:
                yield f"client {file.stem} has told nothing"
                continue
            first, last = told[0], told[-1]
            if last["what"] == "done" and last["fds"] > first["fds"] + MOST_NEW_DESCRIPTORS:
                yield f"client {file.stem} had {first['fds']} descriptors at first and {last['fds']} in the end"
            if last["what"] == "done" and last["rss"] >> 20 > MOST_MB["client"]:
                yield f"client {file.stem} has {last['rss'] >> 20} MB"

    def _left(self) -> list[str]:
        def left() -> list[str]:
            found = [f"process {pid}: {text}" for pid, text in _marked(self.mark).items()]
            found += [f"file {path}" for path in self.profile.rglob("security/*")]
            found += [f"folder {path}" for path in self.cluster._sets.folders if os.path.exists(path)]
            return found + [f"/dev/shm/{name}" for name in _orphaned(set(os.listdir("/dev/shm")) - self.shm)]

        with contextlib.suppress(AssertionError):
            eventually(lambda: not left(), 15)
        return [f"left behind: {what}" for what in left()]


def _enter(told: dict, history: History) -> None:
    what, key = told.pop("what"), told.get("key", "")
    if what == "asked":
        history.asked[key] = Asked(**{**told, "after": tuple(told["after"])})
    elif what == "ended":
        history.ended.setdefault(key, []).append([Outcome(**outcome) for outcome in told["outcomes"]])
    elif what in ("refused", "aborted"):
        getattr(history, what).add(key)


def _rss_mb(pid: int) -> int:
    return int((PROC / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


def _marked(mark: str) -> dict[int, str]:
    """Return the processes that carry our mark, but for this one."""
    found = {}
    for folder in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200]
    found.pop(os.getpid(), None)
    return found


def _orphaned(names: set[str]) -> list[str]:
    """Return those segments that no living process has mapped: others may be at work on this machine."""
    mapped = set()
    for folder in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            mapped |= {name for name in names if f"/dev/shm/{name}" in (folder / "maps").read_text()}
    return sorted(names - mapped)


def chaos(seconds: float, seed: int, kinds: list[str] | None = None, *, log: bool = False) -> list[str]:
    """Run it; return what is wrong, after printing how to get it again."""
    folder = Path(tempfile.mkdtemp(prefix="chaos-", dir="/tmp"))
    run = Run(seed, kinds, folder)
    try:
        run.start()
        run.rage(seconds)
    except BaseException:
        run.cluster.stop_cluster_sync()
        raise
    problems = run.finish()
    history = run.history()
    ends = Counter(o.error or "right" for end in history.ended.values() for outcomes in end for o in outcomes)
    print(
        f"seed {seed}: {len(history.asked)} requests, {len(history.runs)} runs, {len(run.done)} blows, "
        f"ends: {dict(ends)}, {len(problems)} problems",
        flush=True,
    )
    if log or problems:
        print(*run.done, sep="\n")
    if problems:
        print(*problems[:50], sep="\n")
        print(f"again: python tests/chaos/run.py --seconds {seconds:g} --seed {seed}; all files: {folder}", flush=True)
    else:
        shutil.rmtree(folder)
    return problems


def main() -> int:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--kinds", help=f"only these, with commas between: {', '.join(harm.KINDS)}")
    parser.add_argument("--log", action="store_true", help="print what was done, also if all is well")
    options = parser.parse_args()
    print(f"chaos for {options.seconds:g} s, seed {options.seed}", flush=True)
    kinds = options.kinds.split(",") if options.kinds else None
    return 1 if chaos(options.seconds, options.seed, kinds, log=options.log) else 0


if __name__ == "__main__":
    sys.exit(main())
