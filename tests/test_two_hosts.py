"""The whole chain over two compute hosts: mpiexec over ssh, TCP and CURVE to a controller on the login host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers import eventually
from testbed.hosts import Hosts, missing

pytestmark = [pytest.mark.hosts, pytest.mark.mpi, pytest.mark.slow]

DRIVER = Path(__file__).parent / "testbed" / "drive.py"

LIMIT_S = 120


def mpich_missing() -> str:
    """Say why this Python has no MPICH beside it, or return an empty text."""
    mpiexec = Path(sys.prefix, "bin", "mpiexec")
    if not mpiexec.exists():
        return f"no {mpiexec}: pip install mpich"
    said = subprocess.run([mpiexec, "--version"], capture_output=True, text=True, timeout=20).stdout
    return "" if "HYDRA" in said else f"{mpiexec} is not MPICH's"


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    """Bring up login, c1 and c2."""
    reason = missing() or mpich_missing()
    if reason:
        pytest.skip(reason)
    with Hosts(nodes=2) as up:
        yield up


def leftovers(hosts: Hosts) -> dict[str, Any]:
    """Return what is on the hosts beyond what a fresh host has: processes, files in /tmp and /dev/shm."""
    script = "ls -A /dev/shm; find /tmp -mindepth 1 -maxdepth 1 -name 'ippmpi-*' ! -path \"$1\""
    found: dict[str, Any] = {}
    for name in hosts.names:
        processes = hosts.processes(name)
        files = hosts.run(name, ["sh", "-c", script, "sh", str(hosts.folder)]).split()
        if processes or files:
            found[name] = {"processes": processes, "files": files}
    return found


def assert_clean(hosts: Hosts) -> None:
    """Wait until the hosts are as fresh ones; name what stays."""
    seen: list[dict[str, Any]] = []

    def clean() -> bool:
        seen.append(leftovers(hosts))
        return not seen[-1]

    try:
        eventually(clean, timeout_s=10)
    except AssertionError:
        pytest.fail(f"left behind: {json.dumps(seen[-1], indent=1)}")


def drive(hosts: Hosts, story: str, *arguments: str, meanwhile: Callable[[], None] | None = None) -> dict[str, Any]:
    """Run one story of the driver on login; return its facts and what it left behind."""
    home = hosts.shared / "ipython"
    variables = {**os.environ, "IPYTHONDIR": str(home), "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}"}
    log = hosts.shared / f"{story}.log"
    with log.open("w", encoding="utf-8") as output:
        process = hosts.popen("login", [sys.executable, str(DRIVER), story, *arguments], env=variables, output=output)
        try:
            if meanwhile is not None:
                meanwhile()
            process.wait(timeout=LIMIT_S)
        finally:
            process.kill()
            process.wait()
    said = log.read_text(encoding="utf-8")
    logs = "\n".join(f"--- {p.name}\n{p.read_text(errors='replace')[-3000:]}" for p in home.glob("profile_*/log/*"))
    assert process.returncode == 0, f"{story}: exit code {process.returncode}\n{said}\n{logs}"
    facts: dict[str, Any] = json.loads(said.strip().splitlines()[-1])
    return facts


@pytest.fixture(scope="module")
def facts(hosts: Hosts) -> dict[str, Any]:
    """Return what the driver saw in normal work."""
    return drive(hosts, "normal")


def test_ids_are_ranks_in_the_order_of_hosts(facts: dict[str, Any]) -> None:
    assert facts["ids"] == [0, 1, 2, 3]
    ranks, sizes, names, _ = zip(*facts["identities"], strict=True)
    assert ranks == (0, 1, 2, 3)
    assert sizes == (4, 4, 4, 4)
    assert names == ("c1", "c1", "c2", "c2")


def test_a_collective_crosses_the_hosts(facts: dict[str, Any]) -> None:
    assert facts["sums"] == [6.0] * 4


def test_a_20_mb_array_survives_the_way_there_and_back(facts: dict[str, Any]) -> None:
    assert facts["same_arrays"] == [True] * 4


def test_output_of_every_rank_arrives(facts: dict[str, Any]) -> None:
    assert facts["stdout"] == [f"out of rank {rank}\n" for rank in range(4)]
    assert facts["stderr"] == [f"err of rank {rank}\n" for rank in range(4)]


def test_the_controller_holds_two_connections_per_node_and_client(hosts: Hosts, facts: dict[str, Any]) -> None:
    sockets = facts["sockets"]
    peers = Counter(address for address, _ in sockets["tcp"])
    assert {name: peers.pop(hosts.address(name), 0) for name in ("c1", "c2")} == {"c1": 2, "c2": 2}, sockets
    own = peers.total() + len(sockets["unix"])  # the client sits on the controller's host: TCP or Unix
    assert own == 2, sockets
    assert sockets["other"] == [], sockets
    assert len(sockets["tcp_listening"]) == 1, sockets


def test_what_listens_on_the_network_speaks_curve(facts: dict[str, Any]) -> None:
    assert facts["mechanism"] == "CURVE"


def test_a_normal_stop_leaves_nothing_on_any_host(hosts: Hosts, facts: dict[str, Any]) -> None:
    assert facts["ids"]
    assert_clean(hosts)


def test_a_rank_killed_on_another_host_is_reported_within_two_seconds(hosts: Hosts) -> None:
    facts = drive(hosts, "kill")
    assert "error" in facts, "the task of the killed rank did not fail"
    assert facts["seconds"] < 2.0, facts
    for word in ("rank 3", "c2", str(facts["pid"])):
        assert word in facts["error"], facts
    assert facts["names_signal"], facts
    assert_clean(hosts)


def test_a_client_elsewhere_reaches_a_controller_on_loopback_through_ssh(hosts: Hosts) -> None:
    profile = hosts.shared / "tunnel"
    ipcluster = [sys.executable, "-P", "-m", "ippmpi.cli", "cluster"]
    options = ["--profile-dir", str(profile), "--engines=local", "-n", "2", "--ip=127.0.0.1", "--daemonize"]
    hosts.run("login", [*ipcluster, "start", *options])
    code = (
        "import sys, socket, ippmpi as ipp\n"
        "with ipp.Client(sys.argv[1], sshserver='login') as rc:\n"
        "    print(socket.gethostname(), rc[:].apply_sync(socket.gethostname))"
    )
    try:
        file = profile / "security" / "ipcontroller-client.json"
        said = hosts.run("c1", [sys.executable, "-P", "-c", code, str(file)])
        assert said == "c1 ['login', 'login']\n"
    finally:
        hosts.run("login", [*ipcluster, "stop", "--profile-dir", str(profile)])
    assert_clean(hosts)


def test_a_host_that_loses_power_is_reported_within_15_seconds_and_nobody_else_notices(hosts: Hosts) -> None:
    def cut() -> None:
        eventually((hosts.shared / "ready").exists, 60, "ranks work on both hosts")
        hosts.unplug("c2")
        hosts.crash("c2")
        (hosts.shared / "crashed").touch()

    facts = drive(hosts, "crash", str(hosts.shared), meanwhile=cut)
    assert facts["hosts"] == ["c2", "c2", "c1", "c1"]
    assert facts["seconds"] < 15.0, facts
    for word in ("rank 1", "c2", "out of reach"):
        assert word in facts["error"], facts
    assert facts["safe"]
    assert facts["ids"] == [2, 3]
