"""A live rank as a Jupyter kernel: real frontends and clients of the cluster at the same time."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from jupyter_client.blocking.client import BlockingKernelClient

import ippmpi as ipp
from clusters import defined, running
from helpers import PROC, eventually

TIMEOUT_S = 20.0

MAIN = defined("""
    def hold(path):
        import os, time
        open(path + ".begun", "w").close()
        while not os.path.exists(path):
            time.sleep(0.01)
        return "held"

    def without_jupyter():
        import sys
        import ippmpi as ipp
        for name in [name for name in sys.modules if name.split(".")[0] == "jupyter_client"]:
            del sys.modules[name]
        sys.modules["jupyter_client"] = None
        try:
            return ipp.bind_kernel()
        finally:
            del sys.modules["jupyter_client"]
""")


class Frontend:
    """What a person at ``jupyter console --existing`` sees."""

    def __init__(self, file: str) -> None:
        self.client: Any = BlockingKernelClient(connection_file=file)
        self.client.load_connection_file()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=TIMEOUT_S)
        self.seen: list[tuple[str, dict[str, Any]]] = []

    def run(self, code: str, answer: str = "", **options: Any) -> dict[str, Any]:
        """Run a cell, keep what it shows in ``seen``, and return the reply."""
        self.seen = []
        found: dict[str, Any] = self.client.execute_interactive(
            code,
            timeout=TIMEOUT_S,
            output_hook=lambda message: self.seen.append((message["msg_type"], message["content"])),
            stdin_hook=lambda _: self.client.input(answer),
            **options,
        )["content"]
        return found

    def value(self, code: str) -> str:
        """Return the text of what a cell gives."""
        reply = self.run(code)
        assert reply["status"] == "ok", reply
        return str(self.of("execute_result")[0]["data"]["text/plain"])

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [content for seen, content in self.seen if seen == kind]

    def printed(self, stream: str = "stdout") -> str:
        return "".join(content["text"] for content in self.of("stream") if content["name"] == stream)

    def close(self) -> None:
        self.client.stop_channels()
        self.client.context.term()


@pytest.fixture(scope="module")
def rc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ipp.Client]:
    with running(tmp_path_factory.mktemp("profile"), 2, "local") as (_, rc):
        yield rc


@pytest.fixture(scope="module")
def file(rc: ipp.Client) -> str:
    found: str = rc[1].apply_sync(ipp.bind_kernel)
    return found


@pytest.fixture
def frontend(file: str) -> Iterator[Frontend]:
    with contextlib.closing(Frontend(file)) as frontend:
        yield frontend


# --- one namespace -------------------------------------------------------------------------------


def test_a_frontend_and_clients_see_one_namespace(rc: ipp.Client, frontend: Frontend) -> None:
    rc[1].push({"a": 5}).get(10)
    assert frontend.value("a + 1") == "6"
    frontend.run("b = [a] * 2")
    assert rc[1].pull("b").get(10) == [5, 5]
    assert frontend.value("get_ipython().kernel.engine_id") == "1"
    rc[1].execute("c = Out", block=True)  # also the numbers of the cells
    assert frontend.value("6 in c.values()") == "True"


def test_both_run_at_the_same_time_and_take_turns(rc: ipp.Client, frontend: Frontend) -> None:
    rc[1].push({"log": []}).get(10)
    results = []

    def calls() -> None:
        for number in range(200):
            results.append(rc[1].execute(f"log.append({number})"))

    thread = threading.Thread(target=calls)
    thread.start()
    for number in range(20):
        assert frontend.run(f"log.append('cell {number}')")["status"] == "ok"
    thread.join()
    ipp.AsyncResult.join(*results).get(TIMEOUT_S)
    log = rc[1].pull("log").get(10)
    assert [each for each in log if isinstance(each, int)] == list(range(200))
    assert [each for each in log if isinstance(each, str)] == [f"cell {number}" for number in range(20)]


def test_cells_run_in_the_thread_that_calls_mpi(frontend: Frontend) -> None:
    code = "import threading; threading.current_thread() is threading.main_thread()"
    assert frontend.value(code) == "True"


def test_a_cell_waits_for_the_task_that_runs_and_the_kernel_answers_meanwhile(
    rc: ipp.Client, frontend: Frontend, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    task = rc[1].apply_async(MAIN.hold, str(go))
    eventually(Path(f"{go}.begun").exists)
    request = frontend.client.execute("d = 'after'")
    assert frontend.client.kernel_info(reply=True, timeout=TIMEOUT_S)["content"]["status"] == "ok"
    assert frontend.client.is_alive()
    assert not task.ready()
    go.touch()
    assert task.get(10) == "held"
    replies = iter(lambda: frontend.client.get_shell_msg(timeout=TIMEOUT_S), None)
    reply = next(each for each in replies if each["parent_header"]["msg_id"] == request)
    assert reply["content"]["status"] == "ok"
    assert rc[1].pull("d").get(10) == "after"


# --- what is shown -------------------------------------------------------------------------------


def test_a_frontend_sees_what_its_cells_print_and_nobody_else_does(rc: ipp.Client, frontend: Frontend) -> None:
    before = rc[1].execute("print('of a client')")
    frontend.run(
        "import os, sys, time\nprint('python')\n!echo child\n_ = os.write(2, b'descriptor\\n')\nprint('\\u00e9')"
    )
    after = rc[1].execute("print('of a client again')")
    assert frontend.printed() == "python\nchild\n\u00e9\n"
    assert frontend.printed("stderr") == "descriptor\n"
    assert [before.get(10).stdout, after.get(10).stdout] == ["of a client\n", "of a client again\n"]
    assert after.stderr == ""


def test_output_comes_while_the_cell_runs(frontend: Frontend, tmp_path: Path) -> None:
    go = tmp_path / "go"

    def look(message: dict[str, Any]) -> None:
        if message["content"].get("text") == "first\n":
            go.touch()

    code = f"import os, time\nprint('first')\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)"
    reply = frontend.client.execute_interactive(code, timeout=TIMEOUT_S, output_hook=look)
    assert reply["content"]["status"] == "ok"


def test_much_output_with_the_gil_held_blocks_nothing(frontend: Frontend) -> None:
    # puts() through PyDLL keeps the GIL
    code = "import ctypes\nputs = ctypes.PyDLL(None).puts\nfor _ in range(30_000): _ = puts(b'x' * 30)"
    assert frontend.run(code)["status"] == "ok"
    assert frontend.printed() == ("x" * 30 + "\n") * 30_000


def test_errors_displays_and_results_are_shown_in_order(frontend: Frontend) -> None:
    code = "from IPython.display import HTML, display\nprint(1)\ndisplay(HTML('<b>'))\nprint(2)\n3"
    frontend.run(code)
    kinds = [kind for kind, _ in frontend.seen if kind != "status"]
    assert kinds == ["execute_input", "stream", "display_data", "stream", "execute_result"]
    assert frontend.of("display_data")[0]["data"]["text/html"] == "<b>"
    reply = frontend.run("print('before')\n1 / 0")
    assert (reply["status"], reply["ename"]) == ("error", "ZeroDivisionError")
    assert [kind for kind, _ in frontend.seen if kind != "status"] == ["execute_input", "stream", "error"]
    assert any("----> 2 1 / 0" in line for line in reply["traceback"])
    assert frontend.seen[-1] == ("status", {"execution_state": "idle"})


def test_a_silent_cell_leaves_no_trace(frontend: Frontend) -> None:
    before = frontend.run("1")["execution_count"]
    frontend.run("2", silent=True)
    assert not frontend.of("execute_result")
    assert frontend.run("3")["execution_count"] == before + 1
    assert frontend.run("4", user_expressions={"five": "2 + 3"})["user_expressions"]["five"]["data"] == {
        "text/plain": "5"
    }


def test_a_cell_may_ask_for_input(frontend: Frontend) -> None:
    assert frontend.run("said = input('who? ')\nprint(said)", answer="me", allow_stdin=True)["status"] == "ok"
    assert frontend.printed() == "me\n"
    assert frontend.run("input()", allow_stdin=False)["ename"] == "EOFError"


def test_names_are_completed_explained_and_remembered(frontend: Frontend) -> None:
    frontend.run("number = 12")
    client = frontend.client
    found = client.complete("number.bit_le", reply=True, timeout=TIMEOUT_S)["content"]
    assert (found["matches"], found["cursor_start"], found["cursor_end"]) == (["bit_length"], 7, 13)
    found = client.inspect("number", 3, reply=True, timeout=TIMEOUT_S)["content"]
    assert "int" in found["data"]["text/plain"]
    assert not client.inspect("nobody", 3, reply=True, timeout=TIMEOUT_S)["content"]["found"]
    assert client.history(n=3, reply=True, timeout=TIMEOUT_S)["content"]["history"][-1][2] == "number = 12"
    client.is_complete("def f():")
    assert client.get_shell_msg(timeout=TIMEOUT_S)["content"] == {
        "status": "incomplete",
        "indent": "    ",
    }
    assert client.comm_info(reply=True, timeout=TIMEOUT_S)["content"]["comms"] == {}


# --- interrupts and ends ---------------------------------------------------------------------------


def test_an_interrupt_from_a_frontend_ends_its_cell(rc: ipp.Client, frontend: Frontend, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    client = frontend.client
    request = client.execute(f"open({str(begun)!r}, 'w')\nwhile True: pass")
    waiting = rc[1].apply_async(abs, -3)
    eventually(begun.exists)
    client.control_channel.send(client.session.msg("interrupt_request", {}))
    replies = iter(lambda: client.get_shell_msg(timeout=TIMEOUT_S), None)
    reply = next(each for each in replies if each["parent_header"]["msg_id"] == request)
    assert reply["content"]["ename"] == "KeyboardInterrupt"
    assert waiting.get(10) == 3


def test_an_interrupt_from_a_frontend_does_not_end_the_task_of_a_client(
    rc: ipp.Client, frontend: Frontend, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    task = rc[1].apply_async(MAIN.hold, str(go))
    eventually(Path(f"{go}.begun").exists)
    client = frontend.client
    client.control_channel.send(client.session.msg("interrupt_request", {}))
    assert client.get_control_msg(timeout=TIMEOUT_S)["content"]["status"] == "ok"
    go.touch()
    assert task.get(10) == "held"


@pytest.mark.parametrize("code", ["exit", "import sys; sys.exit(3)", "quit()"])
def test_nothing_that_is_typed_ends_the_engine(rc: ipp.Client, frontend: Frontend, code: str) -> None:
    reply = frontend.run(code)
    if "sys" in code:
        assert reply["ename"] == "SystemExit"
    else:
        assert reply["payload"] == [{"source": "ask_exit", "keepkernel": True}]
    assert rc[1].apply_sync(abs, -3) == 3


def test_a_frontend_cannot_shut_the_engine_down(rc: ipp.Client, frontend: Frontend) -> None:
    assert frontend.client.shutdown(reply=True, timeout=TIMEOUT_S)["content"]["status"] == "ok"
    assert frontend.run("1")["status"] == "ok"
    assert rc[:].apply_sync(abs, -3) == [3, 3]


def test_the_command_of_jupyter_attaches(rc: ipp.Client, file: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("from_command = 6 * 7\nprint('ran on engine', get_ipython().kernel.engine_id)\n")
    environment = {**os.environ, "JUPYTER_RUNTIME_DIR": str(tmp_path), "JUPYTER_PLATFORM_DIRS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "jupyter", "run", f"--existing={file}", str(script)],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        check=False,
    )
    assert "ran on engine 1" in done.stdout, done.stdout + done.stderr
    assert rc[1].pull("from_command").get(10) == 42


# --- closed by default -----------------------------------------------------------------------------


def listening(pid: int) -> set[str]:
    """Return the local addresses of the TCP sockets on which a process listens."""
    inodes = set()
    for path in (PROC / str(pid) / "fd").iterdir():
        with contextlib.suppress(OSError):
            inodes.add(os.readlink(path).removeprefix("socket:[").rstrip("]"))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in (PROC / "net" / table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                found.add(fields[1].partition(":")[0])
    return found


def test_it_listens_in_the_private_folder_only(rc: ipp.Client, file: str) -> None:
    mode = stat.S_IMODE(os.stat(file).st_mode)
    folder = Path(file).parent
    assert (mode, stat.S_IMODE(folder.stat().st_mode)) == (0o600, 0o700)
    assert json.loads(Path(file).read_text())["transport"] == "ipc"
    assert listening(rc[1].apply_sync(os.getpid)) == set()
    assert rc[1].apply_sync(ipp.bind_kernel) == file  # the second time it is the same
    with pytest.raises(RuntimeError, match="kernel already, at Unix sockets"):
        rc[1].apply_sync(ipp.bind_kernel, "127.0.0.1")


def test_on_tcp_it_listens_where_it_is_told(rc: ipp.Client) -> None:
    file = rc[0].apply_sync(ipp.bind_kernel, "127.0.0.1")
    assert listening(rc[0].apply_sync(os.getpid)) == {"0100007F"}
    with contextlib.closing(Frontend(file)) as frontend:
        assert frontend.value("get_ipython().kernel.engine_id") == "0"
        assert frontend.run("%connect_info")["status"] == "ok"
        assert frontend.printed() == f"jupyter console --existing {file}\n"


def test_who_has_not_the_key_is_not_heard(rc: ipp.Client, file: str, frontend: Frontend) -> None:
    rc[1].push({"secret": 1}).get(10)
    stranger: Any = BlockingKernelClient(connection_file=file)
    stranger.load_connection_file()
    stranger.session.key = b"a guess"
    stranger.start_channels()
    stranger.execute("secret = 2")
    assert frontend.value("secret") == "1"
    stranger.stop_channels()
    stranger.context.term()
    assert rc[1].pull("secret").get(10) == 1


def test_junk_is_dropped(file: str, frontend: Frontend) -> None:
    info = json.loads(Path(file).read_text())
    context = zmq.Context()
    for port in ("shell_port", "control_port", "stdin_port", "hb_port"):
        socket = context.socket(zmq.DEALER)
        socket.connect(f"ipc://{info['ip']}-{info[port]}")
        for frames in (
            [b""],
            [b"x" * 100],
            [b"<IDS|MSG>"],
            [b"<IDS|MSG>", *[b"{}"] * 5],
            [b"a", b"<IDS|MSG>", b"\xff"],
        ):
            socket.send_multipart(frames)
        socket.close(1000)
    context.term()
    unsigned = frontend.client.session.msg("execute_request", {"code": 5})  # signed, but not what the protocol has
    frontend.client.shell_channel.send(unsigned)
    assert frontend.run("1")["status"] == "ok"


def test_where_jupyter_is_missing_an_error_says_what_to_do(tmp_path: Path) -> None:
    with running(tmp_path, 1, "local") as (_, rc):
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'ippmpi\[kernel\]'"):
            rc[0].apply_sync(MAIN.without_jupyter)
        assert Path(rc[0].apply_sync(ipp.bind_kernel)).exists()


def test_only_an_engine_can_be_bound() -> None:
    with pytest.raises(RuntimeError, match="code that runs on an engine"):
        ipp.bind_kernel()


# --- nothing stays -----------------------------------------------------------------------------------


@pytest.mark.parametrize("killed", [False, True])
def test_nothing_stays_behind(tmp_path: Path, killed: bool) -> None:
    with running(tmp_path, 2, "local") as (_, rc):
        file = Path(rc[0].apply_sync(ipp.bind_kernel))
        pid = rc[0].apply_sync(os.getpid)
        with contextlib.closing(Frontend(str(file))) as frontend:
            assert frontend.value("1") == "1"
            if killed:
                os.kill(pid, signal.SIGKILL)
                eventually(lambda: len(rc.ids) < 2)
    assert not file.exists()
    assert not file.parent.exists()


@pytest.mark.mpi
def test_a_rank_of_mpi_is_a_kernel_among_the_others(tmp_path: Path) -> None:
    with running(tmp_path, 2) as (_, rc):
        rc[:].execute("from mpi4py import MPI; world = MPI.COMM_WORLD", block=True)
        with contextlib.closing(Frontend(rc[1].apply_sync(ipp.bind_kernel))) as frontend:
            other = rc[0].execute("got = world.recv(source=1)")
            assert frontend.run("world.send({'from': world.rank}, dest=0)")["status"] == "ok"
            other.get(10)
            total = rc[:].execute("total = world.allreduce(world.rank + 1)")
            total.get(10)
        assert rc[0].pull("got").get(10) == {"from": 1}
        assert rc[:].pull("total").get(10) == [3, 3]
