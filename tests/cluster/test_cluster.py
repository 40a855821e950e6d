"""The life of a cluster, with a real controller and real local engines."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ippmpi.launchers.local import Local

from helpers import PROC, eventually
from ippmpi import connection, identity
from ippmpi.cluster import Cluster, ClusterManager, clean, clean_cluster_files, files
from ippmpi.errors import ClusterError, CompositeError, ConnectionFileError, EngineError, LaunchError
from ippmpi.launching import State

Make = Callable[..., Cluster]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Cluster] = []

    def make(**options: Any) -> Cluster:
        cluster = Cluster(**{"n": 1, "engines": "local", "profile_dir": tmp_path / "profile_p", **options})
        made.append(cluster)
        return cluster

    yield make
    for cluster in made:
        cluster.stop_cluster_sync()


def left(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


# --- options ---


def test_options_are_settings_also_without_the_unit(make: Make) -> None:
    cluster = make(engine_timeout=3, n=4, engines="LOCAL", hosts=["a:1"])
    assert cluster.settings.engine_timeout_s == 3.0
    assert (cluster.n, cluster.settings.engines, cluster.settings.hosts) == (4, "LOCAL", ("a:1",))


def test_an_unknown_option_is_answered_with_those_that_exist(make: Make) -> None:
    with pytest.raises(TypeError, match=r"no option 'size'; have .*engines"):
        make(size=4)


def test_every_option_that_people_know_is_accepted(make: Make, tmp_path: Path) -> None:
    cluster = make(
        cluster_file=None,
        cluster_id="x",
        config={"Cluster": {"engine_timeout": 7, "n": 2}},
        controller="local",
        controller_args=["--hwm=1"],
        controller_ip="127.0.0.1",
        controller_location="here",
        delay=5,
        engines="local",
        engine_timeout=9,
        load_profile=True,
        log=None,
        log_level=10,
        n=None,
        parent=None,
        send_engines_connection_env=False,
        shutdown_atexit=True,
    )
    settings = cluster.settings
    assert (settings.engine_timeout_s, settings.n, settings.log_level) == (9.0, 2, "debug")
    assert (settings.controller_args, settings.controller_location) == (("--hwm=1",), "here")
    assert cluster.cluster_file == tmp_path / "profile_p/security/cluster-x.json"


def test_the_names_of_launcher_classes_are_understood_but_not_both(make: Make) -> None:
    assert make(engines=None, engine_launcher_class="MPIEngineSetLauncher").settings.engines == "mpi"
    assert make(controller_launcher_class="LocalControllerLauncher").settings.controller == "local"
    with pytest.raises(TypeError, match="'engine_launcher_class' twice"):
        make(engines="local", engine_launcher_class="mpi")
    with pytest.raises(ValueError, match=r"controller='slurm': the controller is a process of this machine"):
        make(controller="slurm")


def test_the_files_of_a_profile_count_unless_it_is_not_loaded(make: Make, tmp_path: Path) -> None:
    profile = tmp_path / "profile_p"
    profile.mkdir()
    (profile / "ipcluster_config.py").write_text(
        "c.Cluster.n = 3\nc.Cluster.engine_timeout = 5\nc.MPILauncher.environment = {'A': 'file', 'B': 'file'}\n"
    )
    (profile / "ippmpi.toml").write_text("[cluster]\nengine_timeout_s = 6\n")
    loaded = make(n=None, environment={"A": "argument"})
    assert (loaded.settings.n, loaded.settings.engine_timeout_s) == (3, 6.0)
    assert loaded.environment == {"A": "argument", "B": "file"}
    assert make().settings.n == 1
    plain = make(n=None, load_profile=False)
    assert (plain.settings.n, plain.settings.engine_timeout_s, plain.environment) == (0, 60.0, {})


class Special(Local):
    """A launcher that is no plug-in."""

    name = "special"


def test_a_launcher_may_be_a_class_and_other_processes_find_it(make: Make) -> None:
    cluster = make(engines=Special)
    cluster.start_cluster_sync()
    assert isinstance(cluster.engine_set, Special)
    again = Cluster.from_dict(json.loads(json.dumps(cluster.to_dict())))
    assert [type(each).__name__ for each in again.engines.values()] == ["Special"]


def test_options_for_the_controller_are_those_of_ipcontroller(make: Make) -> None:
    cluster = make(controller_args=["--nodb", "--hwm=1"], log_level="DEBUG")
    with cluster as rc:
        assert rc[:].apply_sync(abs, -3) == [3]
        assert "note: --hwm is not needed" in Path(cluster.controller_log).read_text()
        assert cluster.controller is not None
        words = (PROC / str(cluster.controller.identity.pid) / "cmdline").read_text().replace("\0", " ")
    assert "ippmpi.controller " in words
    assert "--store none --log-level debug" in words


def test_a_cluster_may_be_written_down_elsewhere_or_not_at_all(make: Make, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    cluster = make(cluster_file=str(file))
    cluster.start_cluster_sync()
    again = Cluster.from_file(file)
    assert again.cluster_file == file
    assert again.running
    cluster.stop_cluster_sync()
    assert not file.exists()
    with pytest.raises(FileNotFoundError):
        Cluster.from_file(file)
    nowhere = make(cluster_file="", cluster_id="y")
    nowhere.start_cluster_sync()
    assert nowhere.cluster_file is None
    assert nowhere.start_and_connect_sync().ids
    assert list((nowhere.profile_dir / "security").glob("cluster-*")) == []


def test_a_cluster_file_follows_what_the_cluster_does(make: Make) -> None:
    cluster = make()
    cluster.start_cluster_sync()
    assert cluster.cluster_file is not None
    cluster.remove_cluster_file()
    cluster.update_cluster_file()
    assert Cluster.from_file(cluster.cluster_file).running
    cluster.stop_cluster_sync()
    cluster.update_cluster_file()
    assert not cluster.cluster_file.exists()


def test_what_an_interrupted_write_has_left_goes_with_the_cluster_file(make: Make, tmp_path: Path) -> None:
    cluster = make()
    cluster.start_controller_sync()
    assert cluster.cluster_file is not None
    cluster.cluster_file.with_name(f".{cluster.cluster_file.name}.abc").touch()
    cluster.stop_cluster_sync()
    assert left(tmp_path) == []


def test_each_cluster_gets_an_id_of_its_own_unless_it_is_named(make: Make) -> None:
    assert make().cluster_id != make().cluster_id
    assert make(cluster_id="").cluster_id == ""
    with pytest.raises(ValueError, match="cluster id"):
        make(cluster_id="../x")


def test_every_blocking_method_has_its_coroutine() -> None:
    blocking = [name for name in vars(Cluster) if name.endswith("_sync")]
    assert len(blocking) >= 10
    for name in blocking:
        assert asyncio.iscoroutinefunction(getattr(Cluster, name.removesuffix("_sync"))), name


# --- life ---


def test_a_cluster_starts_works_and_leaves_nothing(make: Make, tmp_path: Path) -> None:
    cluster = make(n=2)
    with cluster as rc:
        assert rc.ids == [0, 1]
        assert rc[:].apply_sync(len, "abc") == [3, 3]
        assert cluster.running
        assert cluster.engine_set is not None
        assert cluster.engine_set.state is State.RUNNING
        assert "running" in repr(cluster)
        folders = list(cluster._sets.folders)
        assert any(os.path.exists(folder) for folder in folders)
    assert not cluster.running
    assert left(tmp_path) == []
    assert not any(os.path.exists(folder) for folder in folders)
    cluster.stop_cluster_sync()


def test_logs_are_named_after_the_program_its_cluster_and_its_set(make: Make, tmp_path: Path) -> None:
    with make(cluster_id="mine"):
        controller, engines = left(tmp_path / "profile_p" / "log")
        assert re.fullmatch(r"ipcontroller-mine-\w+\.log", controller)
        assert re.fullmatch(r"ipengine-mine-0-\w+\.log", engines)


def test_a_client_can_bring_the_magics_when_it_starts_the_cluster(make: Make) -> None:
    with pytest.warns(UserWarning, match="magics only inside IPython"):
        rc = make().start_and_connect_sync(activate=True)
    assert rc.ids == [0]
    rc.close()


def test_coroutines_do_not_block_the_loop(make: Make) -> None:
    async def use() -> int:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.create_task(tick())
        async with make() as rc:
            assert rc.ids == [0]
        ticking.cancel()
        return ticks

    assert asyncio.run(use()) > 5


def test_blocking_methods_work_inside_a_running_loop(make: Make) -> None:
    async def use() -> list[int]:
        with make() as rc:
            return list(rc.ids)

    assert asyncio.run(use()) == [0]


def test_engine_sets_come_and_go_while_the_cluster_runs(make: Make) -> None:
    cluster = make()
    rc = cluster.start_and_connect_sync()
    key = cluster.start_engines_sync(2)
    assert key == "1"
    cluster.wait_for_engines_sync(rc, 3)
    with pytest.raises(ClusterError, match="engine set '1' exists already; have 0, 1"):
        cluster.start_engines_sync(1, "1")
    cluster.stop_engines_sync("1")
    eventually(lambda: rc.ids == [0])
    assert list(cluster.engines) == ["0"]
    with pytest.raises(KeyError, match="no engine set '1'; have 0"):
        cluster.stop_engines_sync("1")
    assert rc[:].apply_sync(abs, -1) == [1]


def test_engines_of_a_restarted_set_have_their_ids_again(make: Make) -> None:
    cluster = make()
    rc = cluster.start_and_connect_sync()
    cluster.start_engines_sync(2)
    cluster.wait_for_engines_sync(rc, 3)
    before = rc[:].apply_sync(os.getpid)
    cluster.restart_engines_sync("0")  # ids 1 and 2 are taken meanwhile
    eventually(lambda: rc.ids == [0, 1, 2] and rc[0].apply_sync(os.getpid) != before[0], what="the new engine answers")
    assert rc[1:].apply_sync(os.getpid) == before[1:]
    cluster.restart_engines_sync()
    eventually(lambda: rc.ids == [0, 1, 2] and not set(rc[:].apply_sync(os.getpid)) & set(before[1:]))


def test_a_restarted_set_has_new_processes_and_the_same_id(make: Make) -> None:
    cluster = make()
    rc = cluster.start_and_connect_sync()
    before = rc[:].apply_sync(os.getpid)
    cluster.restart_engines_sync()

    def answers() -> bool:
        with contextlib.suppress(EngineError, CompositeError):  # the old one, until its end has been told
            return bool(rc.ids) and rc[:].apply_sync(os.getpid) != before
        return False

    eventually(answers, what="the new engine answers")
    assert list(cluster.engines) == ["0"]


@pytest.mark.parametrize("engines", ["local", pytest.param("mpi", marks=pytest.mark.mpi)])
def test_a_set_that_dies_starts_again_with_its_ids_and_its_beginning(make: Make, engines: str) -> None:
    cluster = make(n=2, engines=engines, restart="always")
    rc = cluster.start_and_connect_sync()
    rc.direct_view("all").on_start(exec, "import builtins; builtins.begun = 7").get(timeout=10)
    for _ in range(2):
        before = rc[:].apply_sync(os.getpid)
        os.kill(before[1], signal.SIGKILL)

        def answers(before: list[int] = before) -> bool:
            with contextlib.suppress(EngineError, CompositeError):  # the old ones, until their end has been told
                return rc.ids == [0, 1] and not set(rc[:].apply_sync(os.getpid)) & set(before)
            return False

        eventually(answers, 20, "the new engines answer")
        assert rc[:].apply_sync(eval, "begun") == [7, 7]


def test_a_set_that_was_stopped_does_not_start_again(make: Make) -> None:
    cluster = make(n=2, restart="always")
    rc = cluster.start_and_connect_sync()
    rc.shutdown([0, 1], block=True)
    eventually(lambda: cluster.engines["0"].poll() == 0)
    time.sleep(1.0)  # it would have started by now
    assert cluster.engines["0"].poll() == 0
    cluster.stop_engines_sync()
    assert cluster.engines == {}


def test_a_policy_that_is_none_is_refused(make: Make) -> None:
    with pytest.raises(ValueError, match="restart must be one of never, always, not 'often'"):
        make(restart="often")


def test_a_signal_reaches_the_engines(make: Make) -> None:
    cluster = make()
    rc = cluster.start_and_connect_sync()
    result = rc[:].apply_async(time.sleep, 60)
    eventually(lambda: rc.queue_status()[0]["queue"] == 1)
    deadline = time.monotonic() + 10
    while not result.ready() and time.monotonic() < deadline:  # the first may come before the code runs
        cluster.signal_engines_sync(signal.SIGINT)
        result.wait(0.2)
    with pytest.raises(Exception, match="KeyboardInterrupt"):
        result.get(1)


def test_a_signal_to_a_set_of_which_one_engine_is_dead_reaches_the_others(make: Make) -> None:
    cluster = make(n=2)
    rc = cluster.start_and_connect_sync()
    result = rc[1].apply_async(time.sleep, 60)
    eventually(lambda: rc.queue_status(1)["queue"] == 1)
    os.kill(rc[0].apply_sync(os.getpid), signal.SIGKILL)
    eventually(lambda: rc.ids == [1])
    deadline = time.monotonic() + 10
    while not result.ready() and time.monotonic() < deadline:  # the first may come before the code runs
        cluster.signal_engines_sync(signal.SIGINT)
        result.wait(0.2)
    with pytest.raises(Exception, match="KeyboardInterrupt"):
        result.get(1)


# --- failures ---


def test_a_second_controller_of_the_same_id_is_refused(make: Make) -> None:
    first = make(cluster_id="x")
    first.start_controller_sync()
    with pytest.raises(ClusterError, match="has its controller already"):
        first.start_controller_sync()
    with pytest.raises(ClusterError, match="'x' is already running"):
        make(cluster_id="x").start_cluster_sync()
    assert first.running
    assert files.read(first.cluster_file).controller == first.controller.identity  # type: ignore[union-attr]


def test_engines_need_a_controller(make: Make) -> None:
    with pytest.raises(ClusterError, match=r"no controller of cluster .* runs"):
        make().start_engines_sync()


def test_a_controller_that_does_not_start_says_why_and_leaves_nothing(make: Make, tmp_path: Path) -> None:
    cluster = make(controller_ip="no-such-interface")
    with pytest.raises(LaunchError, match="no-such-interface"):
        cluster.start_cluster_sync()
    assert [name for name in left(tmp_path) if not name.endswith(".log")] == []


def test_hosts_that_the_controller_cannot_be_reached_from_are_refused(make: Make) -> None:
    cluster = make(controller_ip="127.0.0.1", engines="mpi")
    cluster.start_controller_sync()
    with pytest.raises(ClusterError, match=r"controller listens on tcp://127.*controller_ip='\*'"):
        cluster.start_engines_sync(hosts=["elsewhere:1"])


def test_an_unknown_launcher_is_answered_with_those_that_exist(make: Make, tmp_path: Path) -> None:
    with pytest.raises(LookupError, match=r"no 'lsf2' in ippmpi.launchers; have .*local, mpi"):
        make(engines="lsf2").start_cluster_sync()
    assert left(tmp_path) == []


def test_engines_that_die_while_they_start_are_reported_within_two_seconds(make: Make, tmp_path: Path) -> None:
    mpiexec = tmp_path / "mpiexec"
    mpiexec.write_text("#!/bin/sh\n[ $1 = --version ] || { echo last words; exit 3; }\n")
    mpiexec.chmod(0o755)
    cluster = make(engines="mpi", mpiexec=mpiexec)
    cluster.start_controller_sync()
    began = time.monotonic()
    with pytest.raises(
        LaunchError, match="1 engines started with mpi: ended with exit code 3: its engines ended"
    ) as caught:
        cluster.start_and_connect_sync()
    assert time.monotonic() - began < 2
    assert caught.value.output == "last words"
    assert cluster.engines == {}
    assert cluster.running


def test_too_few_engines_in_time_is_a_timeout_with_what_was_said(make: Make) -> None:
    cluster = make(engine_timeout=0.3)
    rc = cluster.start_cluster_sync().connect_client_sync()
    with pytest.raises(TimeoutError, match=r"of 2 engines joined within 0.3 s; output so far:\n\(none\)"):
        cluster.wait_for_engines_sync(rc, 2)


def test_a_dead_controller_is_noticed(make: Make) -> None:
    cluster = make()
    cluster.start_cluster_sync()
    assert cluster.controller is not None
    os.kill(cluster.controller.identity.pid, signal.SIGKILL)
    eventually(lambda: not cluster.running)
    with pytest.raises(ClusterError, match=r"controller of cluster .* has ended; log: "):
        cluster.check()
    cluster.stop_cluster_sync()
    assert [name for name in left(cluster.profile_dir) if not name.endswith(".log")] == []  # logs of failures stay


# --- other processes ---


def test_another_process_can_find_and_stop_a_cluster(make: Make, tmp_path: Path) -> None:
    cluster = make(cluster_id="x")
    rc = cluster.start_and_connect_sync()
    code = (
        "import sys; from ippmpi.cluster import Cluster\n"
        "c = Cluster.from_file(profile_dir=sys.argv[1], cluster_id='x')\n"
        "rc = c.connect_client_sync(); print(rc.ids, c.n, sorted(c.engines)); c.stop_cluster_sync()"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, str(cluster.profile_dir)], capture_output=True, text=True, timeout=30
    )
    assert done.stdout == "[0] 1 ['0']\n", done.stderr
    rc.close()
    assert not cluster.running
    assert cluster.engine_set is not None
    assert cluster.engine_set.state is State.AFTER
    assert left(tmp_path) == []


def test_a_saved_cluster_is_json_and_comes_back(make: Make) -> None:
    cluster = make()
    cluster.start_cluster_sync()
    again = Cluster.from_dict(json.loads(json.dumps(cluster.to_dict())))
    assert again.running
    assert again.settings == cluster.settings
    assert not again.shutdown_atexit
    assert [e.spec for e in again.engines.values()] == [e.spec for e in cluster.engines.values()]


def test_a_program_that_ends_takes_its_cluster_along(tmp_path: Path) -> None:
    code = (
        "import sys; from ippmpi.cluster import Cluster\n"
        "c = Cluster(n=1, engines='local', profile_dir=sys.argv[1]); c.start_cluster_sync()\n"
        "print(c.controller.identity.pid)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=30)
    assert done.stderr == ""
    with pytest.raises(ProcessLookupError):
        identity.identify(int(done.stdout))
    assert left(tmp_path) == []


def test_a_missing_cluster_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Cluster.from_file(profile_dir=tmp_path)
    with pytest.raises(ConnectionFileError, match="no connection file"):
        Cluster.from_connection(profile_dir=tmp_path)


def test_a_crashed_cluster_is_never_trusted_and_cleaned_up(make: Make, tmp_path: Path) -> None:
    cluster = make(cluster_id="x")
    rc = cluster.start_and_connect_sync()
    rc.close()
    assert cluster.controller is not None
    assert cluster.engine_set is not None
    folder = connection.controller_folder_path(connection.folder_key(cluster.to_record().token))
    assert folder.exists()
    os.kill(cluster.controller.identity.pid, signal.SIGKILL)
    eventually(lambda: not cluster.running)
    record = msgspec.structs.replace(cluster.to_record(), folders=[])  # killed before it had written them down
    files.write(cluster.cluster_file, record)
    with pytest.raises(ClusterError, match=r"'x' .* is not running: its controller has ended without a stop"):
        Cluster.from_file(cluster.cluster_file)
    eventually(lambda: cluster.engine_set and cluster.engine_set.state is State.AFTER, what="its engines were ended")
    assert left(tmp_path) == []
    assert not folder.exists()
    again = make(cluster_id="x")
    assert again.start_and_connect_sync().ids == [0]


def test_a_controller_started_by_hand_can_be_used_and_is_not_started_twice(make: Make) -> None:
    by_hand = make(cluster_id="x")
    by_hand.start_controller_sync()
    by_hand.remove_cluster_file()
    with pytest.raises(ClusterError, match="a controller of cluster 'x' runs already"):
        make(cluster_id="x").start_controller_sync()
    found = Cluster.from_connection(profile_dir=by_hand.profile_dir, cluster_id="x")
    assert found.running
    try:
        found.start_engines_sync(1, engines="local")
        found.wait_for_engines_sync(found.connect_client_sync(), 1)
    finally:
        found.stop_cluster_sync()
    assert not by_hand.running


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_of_a_controller_started_by_hand_nothing_stays_after_a_stop(tmp_path: Path, signum: signal.Signals) -> None:
    command = [sys.executable, "-P", "-m", "ippmpi.controller", "--profile-dir", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        file = connection.path(tmp_path, "client")
        eventually(lambda: file.exists() and connection.load(file, "client"), what="it is there")
        folder = connection.controller_folder_path(connection.load(file, "client").folder_key)
        cluster = Cluster.from_connection(profile_dir=tmp_path)
        assert folder.exists()
        process.send_signal(signum)
        process.wait(10)
    cluster.stop_cluster_sync()
    assert left(tmp_path) == []
    assert not folder.exists()


def test_the_manager_lists_running_clusters_of_all_profiles(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    cluster = make(cluster_id="x")
    cluster.start_controller_sync()
    foreign = tmp_path / "profile_q" / "security" / "cluster-.json"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("{}")
    gone = make(cluster_id="gone").to_record()
    files.write(files.path(cluster.profile_dir, "gone"), dead(gone))
    manager = ClusterManager()
    assert list(manager.load_clusters()) == ["p:x"]
    assert manager.get_cluster("p:x").cluster_id == "x"
    assert not files.path(cluster.profile_dir, "gone").exists()
    assert foreign.exists()
    with pytest.raises(KeyError, match="no cluster 'p:y'; have p:x"):
        manager.get_cluster("p:y")
    assert manager.load_clusters(profile="q") == {}


def test_the_manager_makes_finds_and_forgets_clusters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    (tmp_path / "profile_a").mkdir()
    (tmp_path / "profile_b").mkdir()
    manager = ClusterManager()
    assert sorted(manager.load_clusters(init_default_clusters=True)) == ["a:", "b:"]
    assert sorted(manager.load_clusters(profiles=["a"], init_default_clusters=True)) == ["a:"]
    assert sorted(manager.load_clusters(profile_dirs=[tmp_path / "profile_b"], init_default_clusters=True)) == ["b:"]
    key, cluster = manager.new_cluster(profile="a", cluster_id="x", n=1)
    assert key == "a:x"
    assert manager.get_cluster(key) is cluster
    with pytest.raises(KeyError, match="there is a cluster 'a:x'"):
        manager.new_cluster(profile="a", cluster_id="x")
    manager.remove_cluster(key)
    with pytest.raises(KeyError, match="no cluster 'a:x'"):
        manager.remove_cluster(key)


def test_files_of_a_running_cluster_are_removed_only_by_force(make: Make, tmp_path: Path) -> None:
    cluster = make(cluster_id="x")
    cluster.start_cluster_sync()
    with pytest.raises(ValueError, match="these clusters run: p:x; stop them before, or use force=True"):
        clean_cluster_files([cluster.profile_dir])
    assert cluster.running
    clean_cluster_files([cluster.profile_dir], force=True)
    eventually(lambda: not cluster.running)
    assert left(tmp_path) == []


def dead(record: files.ClusterRecord) -> files.ClusterRecord:
    starter = files.to_dict(record)["starter"]
    return files.from_dict({**files.to_dict(record), "starter": {**starter, "started": 1}})  # type: ignore[dict-item]


def test_clean_removes_what_ended_clusters_left_and_nothing_else(make: Make, tmp_path: Path) -> None:
    running = make(cluster_id="x")
    running.start_controller_sync()
    alive = set(left(tmp_path))
    profile = running.profile_dir
    old = connection.load(connection.path(profile, "client", "x"), "client")
    saved = json.loads(connection.path(profile, "client", "x").read_text())
    saved["controller"]["started"] = 1
    saved |= {"token": "gone", "socket": "/tmp/none/controller"}
    connection.write_private(connection.path(profile, "client", "y"), json.dumps(saved).encode())
    connection.write_private(profile / "security" / "ipcontroller-z-client.json", b'{"registration": 1, "key": ""}')
    assert [p.name for p in clean([profile])] == ["ipcontroller-y-client.json"]
    assert set(left(tmp_path)) == alive | {"ipcontroller-z-client.json"}
    assert connection.load(connection.path(profile, "client", "x"), "client") == old
    running.stop_cluster_sync()
    (profile / "log").mkdir(exist_ok=True)
    (profile / "log" / "ipengine-x-0.log").write_text("")
    assert [p.name for p in clean([profile])] == ["ipengine-x-0.log"]
