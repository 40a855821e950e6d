"""Every option of ipyparallel's commands is understood, or refused with what to do instead."""

from __future__ import annotations

import argparse
import json
import socket
from pathlib import Path

import pytest

from ippmpi import cli, config, connection
from ippmpi.cli.parser import make_parser, understand
from ippmpi.cli.roles import controller_argv, engine_argv, first_free


@pytest.fixture(autouse=True)
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    return tmp_path


def parse(line: str) -> argparse.Namespace:
    program, *words = line.split()
    prefix = {"ipcluster": "cluster", "ipcontroller": "controller", "ipengine": "engine"}[program]
    return understand(make_parser(program, (prefix,)), words)


MEANS = {
    # 5.4, common
    "ipcluster start --profile mpi": {"profile": "mpi"},
    "ipcluster start --profile-dir=/x": {"profile_dir": "/x"},
    "ipcluster start --cluster-id=a": {"cluster_id": "a"},
    "ipcluster start --work-dir=/x": {"work_dir": "/x"},
    "ipcluster start --log-level=10": {"log_level": "debug"},
    "ipcluster start --debug": {"log_level": "debug"},
    "ipcluster engines --quiet": {"log_level": "critical"},
    "ipcluster list --show-config": {"show_config": True},
    "ipcluster stop --show-config-json": {"show_config_json": True},
    # start
    "ipcluster start -n 4": {"n": "4"},
    "ipcluster start --n=4 --engines=MPI": {"n": "4", "engines": "MPI"},
    "ipcluster start --controller=local --ip=*": {"controller": "local", "controller_ip": "*"},
    "ipcluster start --location=here --daemonize": {"controller_location": "here", "daemonize": True},
    "ipcluster start -- --ip=* --reuse": {"controller_args": ["--ip=*", "--reuse"]},
    "ipcluster start --IPController.ip=*": {"controller_args": ["--IPController.ip=*"]},
    "ipcluster start --Cluster.n=3 --IPClusterStart.daemonize=True": {"n": "3", "daemonize": True},
    "ipcluster start -n 2 --Cluster.n=3": {"n": "2"},
    "ipcluster start --Cluster.engine_launcher_class=MPIEngineSetLauncher": {"engines": "mpi"},
    "ipcluster start --IPClusterEngines.engine_launcher_class MPI": {"engines": "MPI"},
    "ipcluster start --MPILauncher.mpi_cmd=mpirun": {"mpiexec": "mpirun"},
    "ipcluster start --MPILauncher.mpi_args=['-x','y']": {"mpi_args": ("-x", "y")},
    "ipcluster start --Cluster.engine_timeout=120": {"engine_timeout_s": "120"},
    "ipcluster start --ProfileDir.location=/x": {"profile_dir": "/x"},
    # engines, stop, list, clean
    "ipcluster engines -n 2 --engines=mpi --daemonize": {"n": "2", "engines": "mpi", "daemonize": True},
    "ipcluster stop a b --all": {"ids": ["a", "b"], "all": True},
    "ipcluster list -o json": {"output": "json"},
    "ipcluster clean --force --all": {"force": True, "all": True},
    # 5.5
    "ipcontroller --ip=* --location=h --port=5": {"ip": "*", "location": "h", "port": "5"},
    "ipcontroller --ports=10101-10120,10200": {"ports": "10101-10120,10200"},
    "ipcontroller --IPController.engine_ports=[7,8]": {"ports": "[7,8]"},
    "ipcontroller --HubFactory.ip=*": {"ip": "*"},
    "ipcontroller --IPController.client_ip=eth0": {"ip": "eth0"},
    "ipcontroller --transport=ipc": {"transport": "ipc"},
    "ipcontroller --IPController.engine_transport=ipc": {"ip": ""},
    "ipcontroller --restore": {"restore": True},
    "ipcontroller --scheme=lru": {"policy": "lru"},
    "ipcontroller --TaskScheduler.scheme_name=twobin": {"policy": "twobin"},
    "ipcontroller --nodb": {"store": "none"},
    "ipcontroller --sqlitedb": {"store": "disk"},
    "ipcontroller --dictdb": {"store": "disk"},
    "ipcontroller --IPController.db_class=NoDB": {"store": "none"},
    "ipcontroller --log-to-file": {"log_to_file": "True"},
    "ipcontroller --work-dir=/x --log-level=ERROR": {"work_dir": "/x", "log_level": "error"},
    # 5.6
    "ipengine --file=f --mpi": {"file": "f", "mpi": True},
    "ipengine --IPEngine.url_file=f --IPEngine.use_mpi=True": {"file": "f", "mpi": True},
    "ipengine --IPEngine.wait_for_url_file=60": {"file_wait_s": "60"},
    "ipengine --MPI.use=mpi4py": {"mpi": True},
    "ipengine --work-dir=/x --log-to-file --debug": {"work_dir": "/x", "log_level": "debug"},
}


@pytest.mark.parametrize("line", MEANS)
def test_an_option_means_a_setting_of_ours(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    args = vars(parse(line))
    assert {name: args[name] for name in MEANS[line]} == MEANS[line]
    assert capsys.readouterr().err == ""


UNNEEDED = [
    "ipcluster start --init",
    "ipcluster start --delay=5",
    "ipcluster start --clean-logs",
    "ipcluster start --clean-logs=False",
    "ipcluster start --log-to-file",
    "ipcluster start --IPClusterStart.early_shutdown=60",
    "ipcluster start --Cluster.send_engines_connection_env=False",
    "ipcluster start --LocalEngineSetLauncher.delay=0.5",
    "ipcluster stop --signal=2",
    "ipcluster stop --log-level=10",
    "ipcluster clean --work-dir=/x",
    "ipcontroller --reuse",
    "ipcontroller --IPController.reuse_files=True",
    "ipcontroller --usethreads",
    "ipcontroller --hwm=0",
    "ipcontroller --ping=5000",
    "ipcontroller --secure",
    "ipcontroller --ident=me",
    "ipcontroller --user=me",
    "ipcontroller --IPController.enable_curve=True",
    "ipcontroller --IPController.broadcast_scheduler_depth=2",
    "ipcontroller --HeartMonitor.period=1000",
    "ipcontroller --Session.username=me",
]


@pytest.mark.parametrize("line", UNNEEDED)
def test_an_option_that_is_not_needed_says_why(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    parse(line)
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(" ".join(line.split()[: line.startswith("ipcluster") + 1]) + ": note: --")
    assert " is not needed: " in said


@pytest.mark.parametrize(
    "line",
    [
        "ipengine --timeout=60",
        "ipengine --location=h",
        "ipengine --IPEngine.enable_nanny=False",
        "ipengine --IPEngine.mpi_registration_delay=0.1",
        "ipengine --ident=me",
    ],
)
def test_a_thousand_ranks_do_not_all_say_that_an_option_is_not_needed(
    line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parse(line)
    assert capsys.readouterr().err == ""


REFUSED = {
    "ipcluster start --log-url=tcp://x": "log folder",
    "ipcluster start --EngineLauncher.engine_cmd=['x']": "engines run with this Python",
    "ipcluster start --Nobody.knows=1": "--help-all shows",
    "ipcluster start --IPEngine.use_mpi=True": "--help-all shows",
    "ipcluster stop -- --ip=*": "nothing may follow --",
    "ipcluster nbextension enable --user": "no extension is needed",
    "ipcontroller --no-secure": "cannot be switched off",
    "ipcontroller --keyfile=f": "keys are in the connection files",
    "ipcontroller --ssh=me@there": "Client(sshserver=...)",
    "ipcontroller --enginessh=me@there": "--ip, --location",
    "ipcontroller --mongodb": "SQLite",
    "ipcontroller --IPController.hb=1,2": "one port is enough",
    "ipcontroller --IPController.client_json_file=x": "security folder",
    "ipcontroller --IPController.curve_secretkey=x": "keys are in the connection files",
    "ipcontroller --TaskScheduler.scheme_name=pure": "'pure' is not among the policies",
    "ipengine --url=tcp://x": "--file",
    "ipengine --ssh=me@there": "ipcontroller --ip, --location",
    "ipengine --IPEngine.id=3": "the ids of a world are its ranks",
}


@pytest.mark.parametrize("line", REFUSED)
def test_an_option_that_cannot_be_is_a_usage_error_that_says_what_to_do(
    line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse(line)
    assert REFUSED[line] in capsys.readouterr().err


@pytest.mark.parametrize("program", [cli.ipcontroller, cli.ipengine, cli.ipcluster])
def test_help_shows_ours_and_help_all_those_of_ipyparallel_too(
    program: object, capsys: pytest.CaptureFixture[str]
) -> None:
    start = ["start"] if program is cli.ipcluster else []
    with pytest.raises(SystemExit, match="0"):
        program([*start, "--help"])  # type: ignore[operator]
    short = capsys.readouterr().out
    assert "--log-url" not in short
    assert "--help-all" in short
    with pytest.raises(SystemExit, match="0"):
        program([*start, "--help-all"])  # type: ignore[operator]
    long = capsys.readouterr().out
    assert "--log-url VALUE" in long
    assert "refused: no log is sent anywhere" in " ".join(long.split())


def test_the_settings_in_effect_can_be_shown(profiles: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (profiles / "profile_p").mkdir()
    (profiles / "profile_p" / "ipcontroller_config.py").write_text("c.IPController.ip = '*'\n")
    assert cli.ipcontroller(["--profile=p", "--scheme=lru", "--show-config-json"]) == 0
    shown = json.loads(capsys.readouterr().out)["controller"]
    assert (shown["ip"], shown["policy"], shown["profile"]) == ("*", "lru", "p")
    assert cli.ipcluster(["start", "-n", "3", "--show-config"]) == 0
    assert "\nn = 3\n" in capsys.readouterr().out


def test_another_folder_of_profiles_can_be_named() -> None:
    args = parse("ipcontroller --ipython-dir=/somewhere --profile=p")
    assert str(config.profile_folder(args.profile)) == "/somewhere/profile_p"


def test_a_file_of_options_can_be_named(profiles: Path) -> None:
    (profiles / "mine.py").write_text(
        "c.IPController.ip = '*'\nc.IPController.port = 3\nc.IPController.ports = '7-9'\n"
    )
    args = parse(f"ipcontroller --config={profiles}/mine.py --ports=12")
    assert (args.ip, args.ports) == ("*", "12")


def test_the_first_free_port_of_a_list_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"none of the ports {port} is free"):
            first_free(str(port), "127.0.0.1")
        assert first_free(f"{port}-{port},{port + 1}-{port + 50}", "127.0.0.1") > port
        argv = controller_argv(parse(f"ipcontroller --ports={port + 1}-{port + 50}"))
        assert int(argv[argv.index("--port") + 1]) > port
    with pytest.raises(ValueError, match="must be a list with ranges"):
        first_free("all", "*")


def test_the_environment_says_profile_cluster_and_address(profiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPP_PROFILE_DIR", str(profiles / "e"))
    monkeypatch.setenv("IPP_CLUSTER_ID", "fromenv")
    monkeypatch.setenv("IPP_CONTROLLER_IP", "*")
    argv = " ".join(controller_argv(parse("ipcontroller")))
    assert f"--profile-dir {profiles}/e --cluster-id fromenv --ip *" in argv
    argv = " ".join(controller_argv(parse("ipcontroller --profile=p --cluster-id=x")))
    assert f"--profile-dir {profiles}/profile_p --cluster-id x" in argv


def test_an_engine_waits_for_its_file_and_then_says_what_is_missing() -> None:
    with pytest.raises(connection.ConnectionFileError, match=r"no connection file .*ipcontroller-engine.json"):
        engine_argv(parse("ipengine --file-wait=0.2"))
