from __future__ import annotations

import gc
import json
import signal
import subprocess
import sys
import weakref
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

import ippmpi as ipp
from client.conftest import Pair
from client.fakes import FakeHub, connected
from helpers import eventually
from ippmpi.client.client import Client
from ippmpi.client.transport import Receiver
from ippmpi.wire.messages import Abort, Awaited, EnginesChanged, Failure, Farewell, SendSignal, Shutdown, StillWaiting


class Silent:
    """A hub that never answers, or refuses."""

    def __init__(self, problem: Exception | None = None) -> None:
        self.problem = problem
        self.closed = False

    def connect(self, client_id: str, receiver: Receiver) -> Silent:  # noqa: ARG002 - nothing is sent
        if self.problem is not None:
            receiver.broken(self.problem)
        return self

    def call_soon(self, call: object) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def test_a_hub_that_does_not_answer_is_a_timeout() -> None:
    hub = Silent()
    with pytest.raises(TimeoutError, match="did not answer"):
        Client(timeout=0.01, _connect=hub.connect)
    assert hub.closed


def test_a_hub_that_refuses_says_why() -> None:
    hub = Silent(ipp.Refused("your key is not known"))
    with pytest.raises(ipp.Refused, match="your key is not known"):
        Client(_connect=hub.connect)
    assert hub.closed


def test_a_client_is_a_context_manager() -> None:
    hub = FakeHub()
    with Client(_connect=hub.connect) as rc:
        assert repr(rc) == f"<Client {rc.id}: 4 engines>"
    assert "closed" in repr(rc)


def test_a_forgotten_client_is_closed() -> None:
    hub = FakeHub()
    rc = Client(_connect=hub.connect)
    gone = weakref.ref(rc)
    assert rc[0].apply_sync(abs, -1) == 1
    del rc
    gc.collect()
    assert gone() is None
    eventually(lambda: type(hub.messages[-1]).__name__ == "Farewell")
    hub.close()


def test_a_result_keeps_its_client() -> None:
    hub = FakeHub(automatic=False)
    rc = Client(_connect=hub.connect)
    result = rc[0].apply_async(abs, 1)
    del rc
    gc.collect()
    hub.reply(eventually(lambda: hub.submits)[0].task, 0, 5)
    assert result.get(5) == 5
    del result
    gc.collect()
    eventually(lambda: type(hub.messages[-1]).__name__ == "Farewell")
    hub.close()


def test_a_client_without_engines_is_true() -> None:
    with connected(0) as (rc, _):
        assert rc


# --- the connection file ---


def test_a_missing_profile_file_is_waited_for_then_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile = tmp_path / "profile_p"
    with pytest.raises(ipp.ConnectionFileError, match=r"ipcontroller-x-client\.json"):
        ipp.Client(profile_dir=profile, cluster_id="x", timeout=0.2)
    assert not profile.exists()
    assert "Waiting up to 0.2 s" in capsys.readouterr().out


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no connection file"):
        ipp.Client(tmp_path / "nothing.json")
    with pytest.raises(ipp.ConnectionFileError):
        ipp.Client(url_file=str(tmp_path / "nothing.json"))


def test_an_address_is_not_a_connection_file() -> None:
    with pytest.raises(ValueError, match="needs the connection file"):
        ipp.Client("tcp://127.0.0.1:5555")


def test_a_file_of_ipyparallel_gets_a_clear_error(tmp_path: Path) -> None:
    file = tmp_path / "ipcontroller-client.json"
    file.write_text(json.dumps({"key": "x", "registration": 1, "interface": "tcp://*"}))
    file.chmod(0o600)
    with pytest.raises(ipp.ConnectionFileError, match="belongs to ipyparallel"):
        ipp.Client(file)


def test_a_dict_must_be_the_record_of_a_connection() -> None:
    with pytest.raises(ipp.ConnectionFileError, match="not that of a client"):
        ipp.Client({"url": "x"})


# --- control ---


def test_signals_go_by_number_or_name(rc: ipp.Client, hub: FakeHub) -> None:
    rc.send_signal("SIGINT", block=True)
    rc.send_signal(signal.SIGTERM, targets=[1, 2], block=True)
    future = rc.send_signal(10, targets=0)
    assert isinstance(future, Future)
    future.result(5)
    sent = [(s.signal, s.targets) for s in hub.messages if isinstance(s, SendSignal)]
    assert sent == [(2, None), (15, [1, 2]), (10, [0])]
    with pytest.raises(ValueError, match="no signal 'SIGNOTHING'"):
        rc.send_signal("SIGNOTHING")


def test_queue_status_is_by_engine(rc: ipp.Client) -> None:
    assert set(rc.queue_status()) == {0, 1, 2, 3, "unassigned"}
    assert rc.queue_status(1) == {"queue": 0, "tasks": 0, "completed": 1}


def test_a_question_that_is_not_answered_ends(rc: ipp.Client, hub: FakeHub) -> None:
    hub.call_soon(lambda: setattr(hub, "send", lambda *args: None))
    with pytest.raises(TimeoutError, match=r"did not answer 'queue_status' within 0\.02 s"):
        rc.queue_status(timeout=0.02)


def test_abort_takes_ids_results_and_lists(manual: Pair) -> None:
    rc, hub = manual
    results = [rc[:].apply_async(abs, 1) for _ in range(3)]
    rc.abort(results[0], block=True)
    rc.abort([results[1], results[2].msg_ids[0]], targets=[1], block=True)
    rc.abort(block=True)
    aborts = [(a.tasks, a.targets) for a in hub.messages if isinstance(a, Abort)]
    ids = [result.msg_ids[0] for result in results]
    assert aborts == [([ids[0]], None), (ids[1:], [1]), (None, None)]
    with pytest.raises(TypeError, match="not 5"):
        rc.abort(5)  # type: ignore[arg-type]


def test_waiting_for_jobs_takes_ids_results_and_other_futures(manual: Pair) -> None:
    rc, hub = manual
    assert rc.wait() is True
    one, two = rc[0].apply_async(abs, 1), rc[1].apply_async(abs, 2)
    eventually(lambda: len(hub.submits) == 2)
    assert rc.wait(timeout=0.01) is False
    hub.reply(one.msg_ids[0], 0, 1)
    assert rc.wait(one, timeout=5) is True
    assert rc.wait([one.msg_ids[0], "unknown"], timeout=5) is True
    assert rc.wait(0, timeout=5) is True
    assert rc.wait([one, -1], timeout=0.01) is False
    with pytest.raises(IndexError, match="2 tasks, none at 2"):
        rc.wait([2])
    other: Future[int] = Future()
    assert rc.wait([one, other], timeout=0.01) is False
    other.set_result(1)
    hub.fail(two.msg_ids[0], 1, Failure("E", "x", engine=1))
    assert rc.wait([one, other, two], timeout=5) is True
    with pytest.raises(TypeError, match="needs task ids"):
        rc.wait(5.0)


def test_shutdown_of_the_hub_closes_the_client() -> None:
    with connected() as (rc, hub):
        rc.shutdown([1], block=True)
        rc.shutdown(hub=True)
        shutdowns = [(s.targets, s.controller) for s in hub.messages if isinstance(s, Shutdown)]
        assert shutdowns == [([1], False), (None, True)]
        with pytest.raises(ConnectionError):
            rc[:].apply(abs, 1)


@pytest.mark.parametrize(
    "use",
    [
        lambda rc: rc[0].apply_async(abs, 1),
        lambda rc: rc[:].execute("1"),
        lambda rc: rc[:].push({"a": 1}),
        lambda rc: rc.direct_view().map_sync(abs, [1]),
        lambda rc: rc.load_balanced_view().map_async(abs, [1]),
        lambda rc: rc.executor().submit(abs, 1),
        lambda rc: rc.queue_status(),
        lambda rc: rc.get_result("x-1"),
        lambda rc: rc.hub_history(),
        lambda rc: rc.resubmit("x-1"),
        lambda rc: rc.abort(block=True),
        lambda rc: rc.shutdown(block=True),
    ],
)
def test_a_closed_client_says_so_whatever_it_is_asked(use: Any) -> None:
    with connected() as (rc, _):
        rc.close()
        with pytest.raises(OSError, match="was closed"):
            use(rc)


def test_a_client_is_no_view(rc: ipp.Client) -> None:
    for name in ("push", "pull", "execute", "apply", "scatter"):
        assert not hasattr(rc, name), name


# --- importing ---


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, ippmpi; print([m for m in sys.modules if m.split('.')[0] in %r])"
    heavy = ("numpy", "IPython", "cloudpickle", "zmq", "msgspec", "tqdm", "concurrent", "asyncio")
    run = [sys.executable, "-c", code % (heavy,)]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_importing_the_client_loads_neither_numpy_nor_ipython() -> None:
    code = "import sys, ippmpi; ippmpi.Client; print([m for m in sys.modules if m in %r])"
    run = [sys.executable, "-c", code % (("numpy", "IPython", "cloudpickle", "tqdm", "zmq", "argparse"),)]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_every_public_name_exists_and_others_are_attribute_errors() -> None:
    for name in ipp.__all__:
        assert getattr(ipp, name) is not None
    assert set(ipp.__all__) <= set(dir(ipp))
    assert ipp.TimeoutError is TimeoutError
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = ipp.Nothing  # type: ignore[attr-defined]


# --- a hub that was restarted ---


def come_back(hub: FakeHub) -> None:
    """Let the hub be another process, which knows no session of this client."""
    hub.call_soon(lambda: hub.receiver.connected(fresh=True))
    hub.tell(EnginesChanged([hub.record(i) for i in hub.names], [], []))


def test_a_hub_that_was_restarted_is_told_what_is_waited_for(manual: Pair) -> None:
    rc, hub = manual
    direct, balanced = rc[:].apply_async(int), rc.load_balanced_view().apply_async(int)
    done = rc[0].apply_async(int)
    eventually(lambda: len(hub.submits) == 3)
    hub.reply(hub.submits[0].task, 1, 0)
    hub.reply(hub.submits[2].task, 0, 0)
    done.get(timeout=5)
    come_back(hub)
    (waiting,) = eventually(lambda: [m for m in hub.messages if isinstance(m, StillWaiting)])
    assert waiting.tasks == [Awaited(hub.submits[0].task, [0, 2, 3]), Awaited(hub.submits[1].task, [])]
    for engine in (1, 0, 0, 2, 3):  # some come again
        hub.reply(hub.submits[0].task, engine, engine)
    hub.reply(hub.submits[1].task, 2, "b")
    hub.reply(hub.submits[1].task, 2, "again")
    assert direct.get(timeout=5) == [0, 0, 2, 3]
    assert balanced.get(timeout=5) == "b"


def test_a_question_that_was_heard_and_not_answered_must_be_asked_again(manual: Pair) -> None:
    rc, hub = manual
    future = rc.requests.ask(lambda _: Farewell())  # the fake does not answer it
    eventually(lambda: hub.messages)
    come_back(hub)
    with pytest.raises(ipp.IppmpiError, match="ask again"):
        future.result(timeout=5)


@pytest.mark.parametrize(
    "ask",
    [
        lambda rc: rc.hub_history(timeout=0.01),
        lambda rc: rc.db_query({}, timeout=0.01),
        lambda rc: rc.purge_everything(timeout=0.01),
        lambda rc: rc.resubmit("x-1", timeout=0.01),
        lambda rc: rc.result_status("x-1", timeout=0.01),
        lambda rc: rc.get_result("x-1", timeout=0.01),
        lambda rc: rc.results(timeout=0.01),
        lambda rc: rc.queue_status(timeout=0.01),
        lambda rc: rc.abort(block=True, timeout=0.01),
        lambda rc: rc.send_signal(2, block=True, timeout=0.01),
        lambda rc: rc.shutdown(hub=True, timeout=0.01),
    ],
)
def test_no_question_waits_for_ever(ask: Any) -> None:
    with connected() as (rc, hub):
        hub.deaf = True
        with pytest.raises(TimeoutError, match=r"the controller did not answer .* within 0\.01 s"):
            ask(rc)


def test_an_abort_of_a_result_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ippmpi.client.futures.ANSWER_S", 0.01)
    with connected(automatic=False) as (rc, hub):
        result = rc[0].apply_async(abs, 1)
        hub.deaf = True
        with pytest.raises(TimeoutError, match=r"the controller did not answer 'abort' within 0\.01 s"):
            result.abort()
