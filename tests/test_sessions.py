"""What outlives a client that is stopped, cut off or killed, and a controller that does not answer."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import ippmpi as ipp
from clusters import defined, running, script
from helpers import eventually
from ippmpi import connection
from ippmpi.client.client import Client
from net.wires import Forwarder

WORK = defined("""
    def say_until(file):
        import os, time
        print("begin", flush=True)
        while not os.path.exists(file):
            time.sleep(0.01)
        print("end", flush=True)
        return 7

    def count(n):
        globals().setdefault("counted", []).append(n)
        return n

    def large(file):
        import os, time, numpy
        while not os.path.exists(file):
            time.sleep(0.01)
        return numpy.arange(300_000)
""")

LARGE = """
def large(file):
    import os, time, numpy
    while not os.path.exists(file):
        time.sleep(0.01)
    return numpy.arange(300_000)

def submit(rc, file):
    return [rc[0].apply_async(large, file), rc[0].apply_async(large, file)]
"""

USER = """
    import sys
    import ippmpi as ipp

    names = {"__name__": "__main__"}
    exec(sys.argv[3], names)
    rc = ipp.Client(profile_dir=sys.argv[1])
    results = names["submit"](rc, sys.argv[2])
    print(*[task for result in results for task in result.msg_ids], flush=True)
    for result in results:
        print(result.get(30), repr("".join(result.stdout)), flush=True)
"""
"""A user's program: it submits, says the ids of its tasks, then waits for the results."""

SUBMIT = """
def say_until(file):
    import os, time
    print("begin", flush=True)
    while not os.path.exists(file):
        time.sleep(0.01)
    print("end", flush=True)
    return 7

def large(file):
    import numpy
    say_until(file)
    return numpy.arange(300_000)

def fail(file):
    say_until(file)
    raise ValueError("no luck")

def submit(rc, file):
    view = rc.load_balanced_view(targets=[1])
    view.label = "mine"
    return [rc[:].apply_async(say_until, file), rc[0].apply_async(large, file), rc[1].apply_async(fail, file),
            view.apply_async(say_until, file)]
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ipp.Cluster]:
    folder = tmp_path_factory.mktemp("profile")
    with running(folder, 2, "local", controller_ip="127.0.0.1") as (cluster, _):
        yield cluster


@pytest.fixture
def rc(cluster: ipp.Cluster) -> Iterator[Client]:
    with cluster.connect_client_sync() as client:
        client.wait_for_engines(2, timeout=10)
        yield client


@pytest.fixture
def go(tmp_path: Path) -> Path:
    """The file that work waits for."""
    return tmp_path / "go"


def profile(cluster: ipp.Cluster) -> Path:
    return cluster.settings.folder


def record(cluster: ipp.Cluster) -> connection.Connection:
    return connection.load(connection.path(profile(cluster), "client", cluster.cluster_id), "client")


def forwarded(cluster: ipp.Cluster) -> tuple[Forwarder, dict[str, Any]]:
    """Return a TCP connection that can be cut, and the connection info that leads through it."""
    found = record(cluster)
    forwarder = Forwarder(int(found.address.rpartition(":")[2]))
    fields = msgspec.structs.replace(found, address=f"tcp://127.0.0.1:{forwarder.port}", socket="/nowhere")
    return forwarder, msgspec.to_builtins(fields)


def controller_log(cluster: ipp.Cluster) -> str:
    return Path(cluster.to_record().controller_log).read_text()


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def ended(rc: Client, *tasks: str) -> bool:
    states = {result.task: result.state for result in rc.results()}
    return all(states[task] in ("ok", "failed") for task in tasks)


def submitted(rc: Client, *tasks: str) -> bool:
    return {*tasks} <= {result.task for result in rc.results()}


# --- a client that comes back ---


def test_a_client_that_was_stopped_gets_its_result_and_its_output_once(
    cluster: ipp.Cluster, rc: Client, go: Path
) -> None:
    submit = (
        SUBMIT[: SUBMIT.index("def large")] + "def submit(rc, file):\n    return [rc[0].apply_async(say_until, file)]"
    )
    with script(USER, str(profile(cluster)), str(go), submit) as user:
        assert user.stdout is not None
        task = user.stdout.readline().strip()
        eventually(lambda: submitted(rc, task))
        with stopped(user.pid):
            go.touch()
            eventually(lambda: ended(rc, task))
        back = time.monotonic()
        assert user.stdout.readline() == "7 'begin\\nend\\n'\n"
        assert time.monotonic() - back < 5


def test_a_client_that_was_cut_off_gets_its_results_and_its_output_once(
    cluster: ipp.Cluster, rc: Client, go: Path
) -> None:
    forwarder, address = forwarded(cluster)
    try:
        with Client(address) as remote:
            small = remote[:].apply_async(WORK.say_until, str(go))
            large = remote[0].apply_async(WORK.large, str(go))
            eventually(lambda: small.stdout == ["begin\n", "begin\n"])
            assert forwarder.passed
            forwarder.down = True
            forwarder.cut()
            go.touch()
            eventually(lambda: ended(rc, *small.msg_ids, *large.msg_ids))
            late = remote[1].apply_async(os.getpid)
            with pytest.raises(TimeoutError):
                small.get(0.2)
            forwarder.down = False
            back = time.monotonic()
            assert small.get(10) == [7, 7]
            assert np.array_equal(large.get(10), np.arange(300_000))
            assert late.get(10) > 0
            assert time.monotonic() - back < 5
            assert small.stdout == ["begin\nend\n", "begin\nend\n"]
    finally:
        forwarder.close()


MANY = """
def note(n):
    print(n)
    return bytes(1000) + str(n).encode()

def large(n):
    import numpy
    return numpy.full(100_000, n)

def block(file):
    import os, time
    while not os.path.exists(file):
        time.sleep(0.01)

def submit(rc, file):
    view = rc.load_balanced_view()
    rc[:].apply_async(block, file)
    results = [view.apply_async(note, n) for n in range(1500)] + [view.apply_async(large, n) for n in range(5)]
    return results

def check(results):
    for n, result in enumerate(results[:1500]):
        assert result.get(30) == bytes(1000) + str(n).encode(), n
        assert result.stdout == f"{n}\\n", (n, result.stdout)
    for n, result in enumerate(results[1500:]):
        assert (result.get(30) == n).all(), n
"""

CHECKED = """
    import sys
    import ippmpi as ipp

    names = {"__name__": "__main__", "ipp": ipp}
    exec(sys.argv[3], names)
    rc = ipp.Client(profile_dir=sys.argv[1])
    results = names["submit"](rc, sys.argv[2])
    print("submitted", flush=True)
    names["check"](results)
    print("all", flush=True)
"""


def test_what_waits_for_a_stopped_client_is_in_the_store_not_in_memory(
    tmp_path: Path, go: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPPMPI_CONTROLLER_AWAY_BYTES", "50000")
    with running(tmp_path / "profile", 2, "local") as (cluster, rc):
        with script(CHECKED, str(profile(cluster)), str(go), MANY) as user:
            assert user.stdout is not None
            user.stdout.readline()
            eventually(lambda: len(rc.results(own=False, limit=5000)) == 1506, 20)
            with stopped(user.pid):
                go.touch()
                eventually(lambda: all(r.state == "ok" for r in rc.results(limit=5000)), 30)
            back = time.monotonic()
            assert user.stdout.readline() == "all\n"
            assert time.monotonic() - back < 5
        assert "what comes for it now is left in the store" in controller_log(cluster)


PRUNED = (
    MANY[: MANY.index("def check")]
    + """
def check(results):
    kept = 0
    for n, result in enumerate(results):
        error = result.exception(30)
        if error is None:
            kept += 1
        else:
            assert isinstance(error, ipp.ResultNotKept), error
    assert 0 < kept < len(results), kept
"""
)


def test_a_client_that_was_away_hears_which_results_the_store_has_dropped(
    tmp_path: Path, go: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPPMPI_CONTROLLER_AWAY_BYTES", "50000")
    monkeypatch.setenv("IPPMPI_CONTROLLER_STORE_REQUESTS", "200")
    with (
        running(tmp_path / "profile", 2, "local") as (cluster, rc),
        script(CHECKED, str(profile(cluster)), str(go), PRUNED) as user,
    ):
        assert user.stdout is not None
        user.stdout.readline()
        eventually(lambda: len(rc.results(own=False, limit=5000)) == 1506, 20)
        with stopped(user.pid):
            go.touch()
            eventually(lambda: all(r.state == "ok" for r in rc.results(limit=5000)), 30)
            eventually(lambda: "oldest finished requests from the store" in controller_log(cluster), 30)
        assert user.stdout.read() == "all\n"


def test_a_connection_that_is_cut_again_and_again_loses_nothing_and_repeats_nothing(
    cluster: ipp.Cluster, rc: Client
) -> None:
    forwarder, address = forwarded(cluster)
    tasks, cuts = 3000, 10
    try:
        with Client(address) as remote:
            values: Counter[int] = Counter()
            worst, done = 0.0, 0
            view = remote.load_balanced_view()
            for value in view.imap(WORK.count, range(tasks), ordered=False, max_outstanding=200):
                values[value] += 1
                if values.total() >= (done + 1) * tasks // (cuts + 1):
                    done += 1
                    forwarder.cut()
                    began = time.monotonic()
                    assert remote[0].apply_async(len, "abc").get(10) == 3
                    worst = max(worst, time.monotonic() - began)
        assert done >= cuts
        assert worst < 5
        ran: Counter[int] = sum(map(Counter, rc[:].pull("counted").get(10)), Counter())
        assert values == ran == dict.fromkeys(range(tasks), 1)
    finally:
        forwarder.close()


# --- a client that does not ---


def test_the_work_of_a_killed_client_goes_on_and_another_process_gets_all_of_it(
    cluster: ipp.Cluster, rc: Client, go: Path
) -> None:
    with script(USER, str(profile(cluster)), str(go), SUBMIT) as user:
        assert user.stdout is not None
        direct, _, failing, balanced = tasks = user.stdout.readline().split()
        eventually(lambda: submitted(rc, *tasks))
        user.kill()
        user.wait()
    listed = {result.task: result for result in rc.results(own=False)}
    assert [listed[task].state for task in tasks] == ["pending"] * 4
    assert [listed[task].op for task in tasks] == ["apply"] * 4
    assert listed[direct].engines == [0, 1]
    assert [result.task for result in rc.results(label="mine", state="pending")] == [balanced]
    live = rc.get_result(direct)
    eventually(lambda: live.stdout == ["begin\n", "begin\n"])
    go.touch()
    assert live.get(10) == [7, 7]
    assert live.stdout == ["begin\nend\n", "begin\nend\n"]
    eventually(lambda: ended(rc, *tasks))
    assert [r.state for r in rc.results(own=False) if r.task in tasks] == ["ok", "ok", "failed", "ok"]
    assert rc.results(label="mine", state="ok")[-1].engines == [1]

    with cluster.connect_client_sync() as later:
        both = later.get_result([direct, balanced])
        assert both.get(10) == [7, 7, 7]
        assert both.stdout == ["begin\nend\n"] * 3
        assert later.get_result(balanced, block=True) == 7
        with pytest.raises(ipp.RemoteError, match="no luck"):
            later.get_result(failing).get(10)
        again = later.get_result(live)
        assert again.get(10) == [7, 7]
        assert again.stdout == ["begin\nend\n", "begin\nend\n"]


def test_a_value_that_its_client_has_taken_is_said_to_be_gone_if_it_was_large(rc: Client, go: Path) -> None:
    go.touch()
    result = rc[0].apply_async(WORK.large, str(go))
    assert len(result.get(10)) == 300_000
    eventually(lambda: ended(rc, *result.msg_ids))

    def gone() -> bool:
        again = rc.get_result(result)
        return isinstance(again.exception(10), ipp.ResultNotKept)

    eventually(gone)


def test_a_client_has_its_own_results_by_their_ids_too(rc: Client, go: Path) -> None:
    result = rc[0].apply_async(WORK.say_until, str(go))
    pending = rc.get_result()
    assert pending.msg_ids == result.msg_ids
    go.touch()
    assert pending.get(10) == result.get(10) == 7
    assert rc.get_result(result.msg_ids).get(10) == [7]
    assert [r.task for r in rc.results(own=True)] == result.msg_ids
    cell = rc[0].execute("6 * 7", silent=False)
    cell.get(10)
    assert rc.get_result(cell).get(10).data == {"text/plain": "42"}
    with pytest.raises(LookupError, match="knows no task 'x-1'"):
        rc.get_result("x-1")


def test_another_client_gets_a_large_value_that_a_killed_controller_had(tmp_path: Path, go: Path) -> None:
    with running(tmp_path / "profile", 1, "local") as (cluster, rc):
        with script(USER, str(profile(cluster)), str(go), LARGE) as user:
            assert user.stdout is not None
            kept, dropped = user.stdout.readline().split()
            eventually(lambda: submitted(rc, kept, dropped))
            user.kill()
            user.wait()
        go.touch()
        eventually(lambda: ended(rc, kept, dropped))
        assert cluster.controller is not None
        process = cluster.controller
        os.kill(process.identity.pid, signal.SIGKILL)
        eventually(lambda: process.poll() is not None)
        files = [Path(each) for folder in cluster.to_record().folders for each in Path(folder).rglob("content-*")]
        assert len(files) == 2
        max(files, key=lambda file: int(file.name.rpartition("-")[2])).unlink()
        cluster.restore_controller_sync()
        assert np.array_equal(rc.get_result(kept).get(10), np.arange(300_000))
        assert np.array_equal(rc.get_result(kept).get(10), np.arange(300_000))
        with pytest.raises(ipp.ResultNotKept, match="its value of"):
            rc.get_result(dropped).get(10)


# --- a controller that does not answer ---


def test_calls_with_a_timeout_honour_it_while_the_controller_is_silent(
    cluster: ipp.Cluster, rc: Client, go: Path
) -> None:
    result = rc[0].apply_async(WORK.say_until, str(go))
    eventually(lambda: result.stdout)
    calls: list[Callable[[], Any]] = [
        lambda: result.get(timeout=0.3),
        lambda: rc.queue_status(timeout=0.3),
        lambda: rc.results(timeout=0.3),
        lambda: rc.get_result("x-1", timeout=0.3),
        lambda: rc[1].apply_async(len, "abc").get(timeout=0.3),
        lambda: rc.abort(result, block=True, timeout=0.3),
        lambda: rc.wait_for_engines(3, timeout=0.3),
    ]
    with stopped(record(cluster).controller.pid):
        for call in calls:
            start = time.monotonic()
            with pytest.raises(TimeoutError):
                call()
            assert time.monotonic() - start < 1
        assert rc.wait(result, timeout=0.3) is False
    go.touch()
    assert isinstance(result.exception(10), ipp.TaskAborted | None)
    assert rc[1].apply_async(len, "abc").get(10) == 3


# --- several clients ---


def test_two_clients_do_not_see_each_others_output(cluster: ipp.Cluster, rc: Client, go: Path) -> None:
    with cluster.connect_client_sync() as other:
        seen: dict[str, list[Any]] = {}
        for name, client in (("rc", rc), ("other", other)):
            seen[name] = heard = []
            on_output = client.requests.on_output

            def listen(message: Any, incoming: Any, heard: Any = heard, on_output: Any = on_output) -> None:
                heard.append(message.task)
                on_output(message, incoming)

            handlers = client.requests._handlers
            handlers.update({kind: listen for kind, call in handlers.items() if call == on_output})
        go.touch()
        mine, theirs = rc[:].apply_async(WORK.say_until, str(go)), other[:].apply_async(WORK.say_until, str(go))
        assert mine.get(10) == theirs.get(10) == [7, 7]
        assert set(seen["rc"]) == set(mine.msg_ids)
        assert set(seen["other"]) == set(theirs.msg_ids)
