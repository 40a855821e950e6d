"""The commands as programs, with real controllers and local engines."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers import alive, eventually
from ippmpi.cli.parser import make_parser
from ippmpi.cli.roles import controller_argv, engine_argv
from ippmpi.client.client import Client
from ippmpi.cluster import Cluster

IPPMPI = [sys.executable, "-P", "-m", "ippmpi.cli"]


@pytest.fixture(autouse=True)
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    return tmp_path


def ippmpi(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*IPPMPI, *argv], capture_output=True, text=True, timeout=60)


def left(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


@pytest.fixture
def foreground(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a command that stays in the foreground; its output goes to ``<tmp_path>/said``."""
    started: list[subprocess.Popen[str]] = []

    def start(*argv: str) -> subprocess.Popen[str]:
        with (tmp_path / "said").open("w") as log:
            process = subprocess.Popen(
                [*IPPMPI, *argv], stdout=log, stderr=log, text=True, start_new_session=True, stdin=subprocess.DEVNULL
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def said(tmp_path: Path) -> str:
    return (tmp_path / "said").read_text()


# --- without a cluster ---


@pytest.mark.parametrize("command", ["stop", "status", "cache list"])
def test_a_cluster_that_does_not_run_is_exit_code_11(command: str) -> None:
    done = ippmpi("cluster", *command.split())
    assert done.returncode == 11
    assert done.stderr.startswith("not running: no connection file ")
    assert "Traceback" not in done.stderr


def test_nothing_to_list_is_an_empty_table() -> None:
    assert ippmpi("cluster", "list").stdout.split() == ["PROFILE", "CLUSTER", "ID", "RUNNING", "ENGINES", "LAUNCHER"]
    assert json.loads(ippmpi("cluster", "list", "-o", "json").stdout) == []
    assert ippmpi("cluster", "stop", "--all").stdout == "no cluster is running\n"


def test_another_tools_files_are_named_as_such(profiles: Path) -> None:
    security = profiles / "profile_default" / "security"
    security.mkdir(parents=True)
    (security / "cluster-.json").write_text('{"cluster": {}}')
    done = ippmpi("cluster", "start", "--engines=local", "-n", "1")
    assert done.returncode == 1
    assert "belongs to another tool" in done.stderr
    assert "Traceback" not in done.stderr
    assert left(profiles) == ["cluster-.json"]
    assert ippmpi("cluster", "stop").returncode == 11


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--engines=lsf2"], "no 'lsf2' in ippmpi.launchers; have"),
        (["-n", "many"], "argument n must be int, not 'many'"),
        (["--mpiexec=/not/there"], "no mpiexec found; looked for /not/there"),
        (["--cluster-id=a/b"], "cluster id 'a/b'"),
    ],
)
def test_a_start_that_cannot_be_says_why_and_leaves_nothing(profiles: Path, argv: list[str], text: str) -> None:
    done = ippmpi("cluster", "start", *argv)
    assert done.returncode == 1
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert left(profiles) == []


def test_a_launcher_that_fails_shows_its_last_words(tmp_path: Path) -> None:
    mpiexec = tmp_path / "mpiexec"
    mpiexec.write_text("#!/bin/sh\necho HYDRA not enough slots\nexit 4\n")
    mpiexec.chmod(0o755)
    done = ippmpi("cluster", "start", f"--mpiexec={mpiexec}")
    assert done.returncode == 1
    assert "ended with exit code 4: no slots" in done.stderr
    assert "--- last output ---\nHYDRA not enough slots" in done.stderr


# --- with a cluster ---


def test_start_list_status_stop(
    foreground: Callable[..., subprocess.Popen[str]], tmp_path: Path, profiles: Path
) -> None:
    process = foreground("cluster", "start", "--engines=LOCAL", "-n", "2")
    eventually(lambda: "stop:" in said(tmp_path), 30, "the cluster is ready")
    assert "2 engines (local) are ready after" in said(tmp_path)
    assert "connect: import ippmpi as ipp; rc = ipp.Client()\n" in said(tmp_path)

    rows = ippmpi("cluster", "list").stdout.splitlines()
    assert rows[1].split() == ["default", "True", "2", "local"]
    (listed,) = json.loads(ippmpi("cluster", "list", "-o", "json").stdout)
    assert listed["running"] is True

    status = ippmpi("cluster", "status")
    head, *engines = status.stdout.splitlines()
    assert head.split() == ["ENGINE", "RANK", "WORLD", "HOST", "PID", "STATE", "TASKS", "COMPLETED"]
    assert [line.split()[:2] for line in engines] == [["0", "0"], ["1", "1"]]
    assert len(json.loads(ippmpi("cluster", "status", "-o", "json").stdout)["engines"]) == 2

    second = ippmpi("cluster", "start", "--engines=local")
    assert second.returncode == 10
    assert "is already running" in second.stderr
    assert process.poll() is None

    stopped = ippmpi("cluster", "stop")
    assert stopped.returncode == 0, stopped.stderr
    assert "(2 engines)" in stopped.stdout
    assert process.wait(10) == 0
    assert said(tmp_path).endswith("the cluster was stopped\n")
    assert left(profiles) == ["said"]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything(
    foreground: Callable[..., subprocess.Popen[str]], tmp_path: Path, profiles: Path, signum: signal.Signals
) -> None:
    process = foreground("cluster", "start", "--engines=local", "-n", "1", "--cluster-id=x", "--profile=p")
    eventually(lambda: "stop:" in said(tmp_path), 30, "the cluster is ready")
    assert "ipp.Client(profile='p', cluster_id='x')" in said(tmp_path)
    assert "ippmpi cluster stop --profile=p --cluster-id=x" in said(tmp_path)
    pid = Cluster.from_file(profile="p", cluster_id="x").controller.identity.pid  # type: ignore[union-attr]
    process.send_signal(signum)
    assert process.wait(10) == 0
    assert said(tmp_path).endswith(f"{signum.name}: stopping\n")
    assert not alive(pid)
    assert left(profiles) == ["said"]


def test_a_daemon_stays_until_it_is_stopped(profiles: Path) -> None:
    done = ippmpi("cluster", "start", "--engines=local", "-n", "1", "--daemonize")
    try:
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        more = ippmpi("cluster", "engines", "--engines=local", "-n", "2", "--daemonize")
        assert more.returncode == 0, more.stderr
        assert "2 engines (local) are ready" in more.stdout
        assert ippmpi("cluster", "list").stdout.splitlines()[1].split() == ["default", "True", "3", "local"]
    finally:
        stopped = ippmpi("cluster", "stop", "--all")
    assert "(3 engines)" in stopped.stdout
    assert left(profiles) == []


def controller_pid() -> int:
    controller = Cluster.from_file().controller
    assert controller is not None
    return controller.identity.pid


def test_a_controller_that_is_killed_is_started_again(
    foreground: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = foreground("cluster", "start", "--engines=local", "-n", "1")
    eventually(lambda: "stop:" in said(tmp_path), 30, "the cluster is ready")
    with contextlib.closing(Client()) as rc:
        engine, pid = rc[0].apply_sync(os.getpid), controller_pid()
        os.kill(pid, signal.SIGKILL)
        assert Cluster.from_file().supervised is False  # whoever looks meanwhile does not take it for gone
        assert rc[0].apply_async(os.getpid).get(timeout=10) == engine
        eventually(lambda: "restored" in said(tmp_path))
        assert controller_pid() != pid
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert left(tmp_path) == ["said"]


FAILS_WHEN_ASKED = """
import signal, sys
if "ippmpi.controller" in sys.orig_argv:
    signal.signal(signal.SIGUSR2, lambda *_: sys.exit(3))
"""


@pytest.mark.parametrize("daemonize", [False, True], ids=["foreground", "daemon"])
def test_a_controller_that_fails_is_started_again_too(
    foreground: Callable[..., subprocess.Popen[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    daemonize: bool,
) -> None:
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(FAILS_WHEN_ASKED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "hook"))
    process = foreground("cluster", "start", "--engines=local", "-n", "1", *(["--daemonize"] * daemonize))
    eventually(lambda: "stop:" in said(tmp_path), 30, "the cluster is ready")
    if daemonize:
        assert process.wait(10) == 0
    try:
        with contextlib.closing(Client()) as rc:
            engine = rc[0].apply_sync(os.getpid)
            for signum in (signal.SIGUSR2, signal.SIGKILL):
                pid = controller_pid()
                os.kill(pid, signum)
                assert rc[0].apply_async(os.getpid).get(timeout=20) == engine
                eventually(lambda: controller_pid() != pid, what="the cluster file names the new one")  # noqa: B023
            log = tmp_path / "profile_default" / "log" / "ipcluster.log"
            text = log.read_text() if daemonize else said(tmp_path)
            assert "the controller has failed with exit code 3; starting it again" in text
            assert "the controller was ended by signal 9; starting it again" in text
    finally:
        assert ippmpi("cluster", "stop").returncode == 0
    assert process.wait(10) == 0
    assert [name for name in left(tmp_path) if name != "said" and "sitecustomize" not in name] == []


def test_a_daemon_that_gives_up_stops_the_cluster_and_its_log_says_why(
    profiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (profiles / "hook").mkdir()
    (profiles / "hook" / "sitecustomize.py").write_text(FEWER_RESTARTS)
    monkeypatch.setenv("PYTHONPATH", str(profiles / "hook"))
    assert ippmpi("cluster", "start", "--engines=local", "-n", "1", "--daemonize").returncode == 0
    log, folders = profiles / "profile_default" / "log" / "ipcluster.log", Cluster.from_file().to_record().folders
    with contextlib.closing(Client()) as rc:
        engine = rc[0].apply_sync(os.getpid)
    for restarts in range(1, 4):
        os.kill(controller_pid(), signal.SIGKILL)
        if restarts < 3:
            eventually(lambda: log.read_text().count("restored") == restarts, 20)  # noqa: B023
    eventually(lambda: "error: the controller has ended by itself" in log.read_text(), 20)
    assert "it was started again 2 times in " in log.read_text()
    assert "giving up, the cluster is stopped" in log.read_text()
    eventually(lambda: not alive(engine), what="its engine is stopped")
    eventually(lambda: not any(Path(folder).exists() for folder in folders), what="its folders are removed")


FEWER_RESTARTS = """
import sys
if "cluster" in sys.orig_argv:
    import ippmpi.cli.foreground
    ippmpi.cli.foreground.MOST_RESTARTS = 2
"""


def test_a_daemon_that_cannot_start_returns_the_exit_code_and_the_reason(profiles: Path) -> None:
    done = ippmpi("cluster", "start", "--engines=nonsense", "--daemonize")
    assert done.returncode == 1
    assert "no 'nonsense' in ippmpi.launchers" in done.stderr
    assert left(profiles) == []


def test_a_daemon_that_is_interrupted_while_it_starts_leaves_nothing(
    foreground: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = foreground("cluster", "start", "--engines=local", "-n", "1", "--daemonize")
    eventually(lambda: "controller: pid" in said(tmp_path), 30)
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 0
    eventually(lambda: left(tmp_path) == ["said"] or "stop:" in said(tmp_path))
    assert ippmpi("cluster", "stop", "--all").returncode == 0


def test_a_new_client_waits_for_a_controller_that_is_being_started_again(
    foreground: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = foreground("cluster", "start", "--engines=local", "-n", "1")
    eventually(lambda: "stop:" in said(tmp_path), 30, "the cluster is ready")
    for _ in range(3):
        os.kill(controller_pid(), signal.SIGKILL)
        with contextlib.closing(Client(timeout=10)) as rc:
            assert rc[0].apply_async(len, "abc").get(timeout=10) == 3
    os.kill(process.pid, signal.SIGSTOP)
    try:
        pid = controller_pid()
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not alive(pid))
        with pytest.raises(TimeoutError, match=r"was killed and has not been started again within 0\.5 s"):
            Client(timeout=0.5)
    finally:
        os.kill(process.pid, signal.SIGCONT)
    assert Client(timeout=10).ids == [0]


def test_why_a_controller_cannot_be_started_again_is_said(
    foreground: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = foreground("cluster", "start", "--engines=local", "-n", "1")
    eventually(lambda: "stop:" in said(tmp_path), 30, "the cluster is ready")
    folder = Path(Cluster.from_file().to_record().folders[0])
    (folder / "secret.key").unlink()
    os.kill(controller_pid(), signal.SIGKILL)
    eventually(lambda: "nothing to restore: no " in said(tmp_path), 10)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0


def test_stale_files_are_cleaned(foreground: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    foreground("cluster", "start", "--engines=local", "-n", "1")
    eventually(lambda: "stop:" in said(tmp_path), 30, "the cluster is ready")
    cluster = Cluster.from_file()
    saved = cluster.to_dict()
    saved["cluster_id"] = saved["token"] = "gone"
    saved["controller"]["started"] = 1
    saved["engine_sets"], saved["folders"], saved["controller_log"], saved["supervisor"] = {}, [], "", None
    gone = cluster.cluster_file.with_name("cluster-gone.json")
    gone.write_text(json.dumps(saved))
    done = ippmpi("cluster", "clean")
    assert done.stdout == f"removed {gone}\n"
    assert ippmpi("cluster", "status").returncode == 0


def test_force_stops_what_runs_before_it_cleans(profiles: Path) -> None:
    assert ippmpi("cluster", "start", "--engines=local", "-n", "1", "--daemonize").returncode == 0
    assert ippmpi("cluster", "clean").stdout == ""
    assert ippmpi("cluster", "status").returncode == 0
    assert "stopped cluster ''" in ippmpi("cluster", "clean", "--force").stdout
    assert left(profiles) == []


# --- controller and engine by hand ---


def test_controller_and_engine_can_be_started_by_hand(
    foreground: Callable[..., subprocess.Popen[str]], profiles: Path
) -> None:
    controller = foreground("controller", "--cluster-id=x")
    file = profiles / "profile_default/security/ipcontroller-x-engine.json"
    eventually(file.exists, 20, "the controller is ready")
    (profiles / "script.py").write_text("a = 5")
    engine = foreground("engine", "--cluster-id=x", "-c", "b = a + 1", "-s", str(profiles / "script.py"))
    cluster = Cluster.from_connection(cluster_id="x")
    with contextlib.closing(cluster.connect_client_sync()) as rc:
        rc.wait_for_engines(1, timeout=20)
        assert rc[:].apply_sync(abs, -2) == [2]
        assert rc[:]["b"] == [6]
    assert ippmpi("cluster", "stop", "x").returncode == 0
    assert controller.wait(10) == 0
    assert engine.wait(10) == 0


def test_only_settings_that_differ_are_passed_to_a_controller(profiles: Path) -> None:
    args = make_parser("ipcontroller", ("controller",)).parse_args(["--ip=*", "--port", "1234", "--profile", "p"])
    argv = controller_argv(args)
    assert argv[3:] == [
        "ippmpi.controller",
        "--profile-dir",
        str(profiles / "profile_p"),
        "--ip",
        "*",
        "--port",
        "1234",
    ]


def test_world_and_size_go_together() -> None:
    args = make_parser("ipengine", ("engine",)).parse_args(["--file=f", "--world=w"])
    with pytest.raises(ValueError, match="--world and --size go together"):
        engine_argv(args)
