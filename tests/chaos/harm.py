"""Kinds of harm: who is killed, stopped, cut off or slowed down; and where the parts of a cluster are found."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import ippmpi as ipp
from chaos.oracle import Death
from chaos.proxy import Proxy
from helpers import PROC, alive
from ippmpi.errors import IppmpiError

WINDOW_S = 600.0
CONTROLLER_KILLS, SET_KILLS = 15, 4
"""In ``WINDOW_S``: fewer than the supervisor, and ``restart="always"``, put up with."""

LONGEST_S = {"controller": 6.0, "agent": 6.0, "engine": 3.0, "client": 8.0}
"""How long one is stopped: less than what makes others give it up (``agent_gone_s``; ``REJOIN_S`` of a new agent)."""


@dataclass(frozen=True, slots=True)
class Blow:
    """One act. All of it is drawn before, so that the seed fixes it: ``which`` picks among those that are there."""

    pause_s: float
    kind: str
    which: int
    size: float  # 0 to 1: how long, or how slow


@dataclass(slots=True)
class Scene:
    """Everybody that harm can be done to; ``deaths`` of engines, ``restarts`` of the controller: for the oracle."""

    cluster: ipp.Cluster
    profile: Path
    clients: list[subprocess.Popen[bytes]]
    to_clients: list[Proxy]
    to_agents: list[Proxy]
    deaths: list[Death] = field(default_factory=list)
    restarts: list[float] = field(default_factory=list)
    changes: list[tuple[float, float]] = field(default_factory=list)
    stopped: dict[int, float] = field(default_factory=dict)  # process to when it goes on
    undo: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    kills: defaultdict[str, deque[float]] = field(default_factory=lambda: defaultdict(deque))

    def die(self, pids: Iterable[int]) -> None:
        """Note that these engines die now."""
        self.deaths += [Death(pid, time.monotonic()) for pid in pids]

    def may_kill(self, what: str, most: int) -> bool:
        """Count one more kill of *what*, unless that would be too many."""
        now, times = time.monotonic(), self.kills[what]
        while times and now - times[0] > WINDOW_S:
            times.popleft()
        if len(times) >= most:
            return False
        times.append(now)
        return True

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Have *call* called by ``heal``."""
        self.undo.append((time.monotonic() + seconds, call))

    def heal(self, *, all_: bool = False) -> None:
        """Undo what has lasted long enough, or everything."""
        now = time.monotonic()
        due = [each for each in self.undo if all_ or each[0] <= now]
        self.undo = [each for each in self.undo if each not in due]
        for _, call in due:
            call()


# --- who is there ---


def processes(profile: Path, module: str) -> dict[int, list[str]]:
    """Return the processes of a cluster that run *module*, with their command lines."""
    found = {}
    for folder in PROC.glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if module in command and "-m" in command[:4] and any(part.startswith(str(profile)) for part in command):
            found[int(folder.name)] = command
    return {pid: command for pid, command in found.items() if alive(pid)}


def engines(profile: Path) -> dict[str, list[int]]:
    """Return the engine processes by world."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for pid, command in sorted(processes(profile, "ippmpi.engine").items()):
        if Path(command[0]).name.startswith("python"):  # not the parent that records how it ends
            found[command[command.index("--world") + 1]].append(pid)
    return dict(found)


def agents(profile: Path) -> list[int]:
    """Return the agents."""
    return sorted(processes(profile, "ippmpi.agent"))


# --- kinds of harm; each returns what it did ---


def kill_engine(scene: Scene, blow: Blow) -> str:
    """Kill one engine; the whole world ends with it if it is an MPI job, and is started again."""
    worlds = engines(scene.profile)
    if not worlds:
        return "nobody"
    world, pids = sorted(worlds.items())[blow.which % len(worlds)]
    key = world.partition("-")[0]
    if not scene.may_kill(f"set {key}", SET_KILLS):
        return restart_engines(scene, blow)
    scene.die(pids)
    victim = pids[blow.which // 7 % len(pids)]
    _signal(victim, signal.SIGKILL)
    return f"pid {victim} of world {world}"


def note_deaths(scene: Scene, key: str) -> None:
    """Note that all engines of a set die now."""
    scene.die(p for world, pids in engines(scene.profile).items() if world.startswith(f"{key}-") for p in pids)


def restart_engines(scene: Scene, blow: Blow) -> str:
    """Have the cluster end and start again one of its sets."""
    sets = sorted(scene.cluster.engines)
    if not sets:
        return "nobody"
    key = sets[blow.which % len(sets)]
    begin = time.monotonic()
    try:
        with scene.cluster._lock:  # else ``restart="always"`` may just be starting others
            note_deaths(scene, key)
            scene.cluster.restart_engines_sync(key)
    except (IppmpiError, OSError, KeyError) as error:  # the controller is away, or the set is being started again
        return f"set {key}: {error}"
    finally:
        scene.changes.append((begin, time.monotonic()))
    return f"set {key}"


def kill_agent(scene: Scene, blow: Blow) -> str:
    """Kill an agent; its engines start another one."""
    found = agents(scene.profile)
    if not found:
        return "nobody"
    pid = found[blow.which % len(found)]
    _signal(pid, signal.SIGKILL)
    return f"pid {pid}"


def kill_controller(scene: Scene, _: Blow) -> str:
    """Kill the controller; its supervisor starts it again."""
    controller = scene.cluster.controller
    if controller is None or not scene.may_kill("controller", CONTROLLER_KILLS):
        return "nobody"
    scene.restarts.append(time.monotonic())
    controller.signal(signal.SIGKILL)
    return f"pid {controller.identity.pid}"


def stop(scene: Scene, blow: Blow) -> str:
    """Stop a process for a while."""
    everybody = [("client", process.pid) for process in scene.clients]
    everybody += [("agent", pid) for pid in agents(scene.profile)]
    everybody += [("engine", pid) for pids in engines(scene.profile).values() for pid in pids]
    if scene.cluster.controller is not None:
        everybody += [("controller", scene.cluster.controller.identity.pid)] * 2
    role, pid = everybody[blow.which % len(everybody)]
    seconds = blow.size * LONGEST_S[role]
    _signal(pid, signal.SIGSTOP)
    scene.later(seconds, lambda: _signal(pid, signal.SIGCONT))
    return f"{role} {pid} for {seconds:.1f} s"


def cut(scene: Scene, blow: Blow) -> str:
    """Break the connections of a client or of the agents, once or for a while."""
    proxies = scene.to_clients + scene.to_agents
    proxy = proxies[blow.which % len(proxies)]
    seconds = max(0.0, blow.size * 8 - 4)
    if not seconds:
        proxy.cut()
        return proxy.address
    proxy.refuse(True)
    scene.later(seconds, lambda: proxy.refuse(False))
    return f"{proxy.address} for {seconds:.1f} s"


def hold(scene: Scene, blow: Blow) -> str:
    """Let nothing pass for a while."""
    proxies = scene.to_clients + scene.to_agents
    proxy = proxies[blow.which % len(proxies)]
    seconds = blow.size * 6
    proxy.hold(True)
    scene.later(seconds, lambda: proxy.hold(False))
    return f"{proxy.address} for {seconds:.1f} s"


def delay(scene: Scene, blow: Blow) -> str:
    """Slow a connection down for a while."""
    proxies = scene.to_clients + scene.to_agents
    proxy = proxies[blow.which % len(proxies)]
    seconds = blow.size * 0.2
    proxy.delay(seconds)
    scene.later(5.0, lambda: proxy.delay(0.0))
    return f"{proxy.address} by {seconds * 1000:.0f} ms"


KINDS: dict[str, tuple[int, Callable[[Scene, Blow], str]]] = {
    "kill engine": (2, kill_engine),
    "restart engines": (1, restart_engines),
    "kill agent": (4, kill_agent),
    "kill controller": (3, kill_controller),
    "stop": (6, stop),
    "cut": (6, cut),
    "hold": (3, hold),
    "delay": (2, delay),
}


def blows(seed: int, kinds: list[str] | None = None) -> Iterator[Blow]:
    """Draw what is done, for ever; *kinds*: only these."""
    names = kinds or list(KINDS)
    weights = [KINDS[name][0] for name in names]
    chance = random.Random(f"{seed}/harm")
    while True:
        pause_s = chance.choice((0.0, 0.3, 1.0, 2.0, 4.0))
        yield Blow(pause_s, chance.choices(names, weights)[0], chance.randrange(1 << 16), chance.random())


def strike(scene: Scene, blow: Blow) -> str:
    """Do it; return what was done."""
    return KINDS[blow.kind][1](scene, blow)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
