"""This engine as a Jupyter kernel: what its frontends ask for, answered from the engine's own shell.

The threads of the channels answer what needs no user code. All else is queued with the requests of clients and run by
the main thread, so there is never more than one at a time, and MPI is called by one thread only.
"""

from __future__ import annotations

import builtins
import itertools
import platform
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple, cast

import msgspec

from ippmpi.connection import write_private
from ippmpi.engine.diverted import Diverted
from ippmpi.engine.failures import describe
from ippmpi.engine.output import Output
from ippmpi.engine.shell import Shell
from ippmpi.net.jupyter import Channels, Request

PROTOCOL = "5.3"

LOOK_S = 0.05
"""Between two looks at what a cell prints."""

NAME = "kernel"
"""What the names of cells of frontends begin with; no task of a client does."""


class Host(NamedTuple):
    """What a kernel needs of its engine.

    ``queue`` has the main thread make a named call, which never raises, when its turn comes (from any thread).
    ``guarded`` makes a call to user code, which ``interrupt`` (from any thread) can end by its name.
    """

    shell: Shell
    output: Output
    queue: Callable[[str, Callable[[], None]], None]
    guarded: Callable[[str, Callable[[], Any]], Any]
    interrupt: Callable[[str], None]


class Kernel:
    """Serves frontends until it is closed.

    Attributes:
        file: the connection file.
        ip: where it listens, "": on Unix sockets.
    """

    def __init__(self, host: Host, folder: Path, prefix: str, rank: int, ip: str) -> None:
        """Listen, and write the connection file into *folder*. Main thread; raises OSError, ModuleNotFoundError."""
        self._host = host
        self._numbers = itertools.count(1)
        self._now: Request | None = None  # the cell that runs
        self._name = ""
        self._diverted: Diverted | None = None
        self._answers: SimpleQueue[str] = SimpleQueue()
        name = f"{prefix}.{NAME}-{rank}"
        self.ip = ip
        self.file = folder / f"{name}.json"
        self._shell: Any = host.shell.get_ipython()
        self._quick: dict[str, Callable[[Request], dict[str, Any]]] = {
            "kernel_info_request": self._about,
            "connect_request": self._connect,
            "comm_info_request": lambda _: {"comms": {}},
            "is_complete_request": self._is_complete,
            "history_request": self._history,
            "interrupt_request": self._interrupt,
            "shutdown_request": lambda request: {"restart": bool(request.content.get("restart"))},
        }
        self._in_turn: dict[str, Callable[[Request], dict[str, Any]]] = {
            "execute_request": self._execute,
            "complete_request": self._complete,
            "inspect_request": self._inspect,
        }
        self._channels = Channels(f"rank{rank}", ip, folder, name, self._on_request)
        write_private(self.file, msgspec.json.format(msgspec.json.encode(self._channels.connection), indent=2) + b"\n")
        self._shell.register_magic_function(cast("Any", self._tell_how), "line", "connect_info")
        self._channels.start()

    def _tell_how(self, _: str) -> None:
        """Say how to attach to this kernel."""
        print(f"jupyter console --existing {self.file}")

    def close(self) -> None:
        """Tell frontends that it ends, and leave nothing behind. Main thread."""
        self.file.unlink(missing_ok=True)
        self._channels.close()

    @property
    def busy(self) -> bool:
        """Whether what is displayed now is a frontend's."""
        return self._now is not None

    def display(self, bundle: dict[str, object]) -> None:
        """Show a display of the cell that runs."""
        self._look()
        more = dict(bundle)
        kind = str(more.pop("kind"))
        if kind == "clear_output":
            more = {"wait": bool(dict(more.get("metadata") or {}).get("wait"))}  # type: ignore[call-overload]
        else:
            more.setdefault("transient", {})
        self._channels.publish(kind, _plain(more), self._now)

    # --- the thread of the channels ------------------------------------------------------------

    def _on_request(self, request: Request) -> None:
        if request.kind in self._quick:
            self._status("busy", request)
            self._reply(request, self._quick[request.kind](request))
            self._status("idle", request)
        elif request.kind in self._in_turn:
            name = f"{NAME}-{next(self._numbers)}"
            self._host.queue(name, lambda: self._serve(name, request))
        elif request.channel == "stdin":
            self._answers.put(str(request.content.get("value", "")))

    def _status(self, state: str, request: Request) -> None:
        self._channels.publish("status", {"execution_state": state}, request)

    def _reply(self, request: Request, content: dict[str, Any]) -> None:
        kind = request.kind.removesuffix("_request") + "_reply"
        self._channels.answer(request, kind, {"status": "ok", **content})

    def _about(self, _: Request) -> dict[str, Any]:
        version = platform.python_version()
        return {
            "protocol_version": PROTOCOL,
            "implementation": "ippmpi",
            "implementation_version": "",
            "language_info": {
                "name": "python",
                "version": version,
                "mimetype": "text/x-python",
                "codemirror_mode": {"name": "ipython", "version": sys.version_info[0]},
                "pygments_lexer": "ipython3",
                "nbconvert_exporter": "python",
                "file_extension": ".py",
            },
            "banner": f"Python {version}, an engine of ippmpi; what clients of the cluster run comes in between",
            "help_links": [],
        }

    def _connect(self, _: Request) -> dict[str, Any]:
        return {name: port for name, port in self._channels.connection.items() if name.endswith("_port")}

    def _is_complete(self, request: Request) -> dict[str, Any]:
        from IPython.core.inputtransformer2 import TransformerManager

        manager: Any = TransformerManager  # it has no types
        status, indent = manager().check_complete(str(request.content["code"]))
        return {"status": status, "indent": " " * (indent or 0)}

    def _history(self, request: Request) -> dict[str, Any]:
        wanted = max(0, int(request.content.get("n") or 1000))
        cells = list(enumerate(self._shell.history_manager.input_hist_raw))[1:]
        return {"history": [(0, number, code) for number, code in cells[-wanted:]]}

    def _interrupt(self, _: Request) -> dict[str, Any]:
        if self._name:
            self._host.interrupt(self._name)
        return {}

    # --- the main thread -------------------------------------------------------------------------

    def _serve(self, name: str, request: Request) -> None:
        self._status("busy", request)
        try:
            self._name = name
            content = self._in_turn[request.kind](request)
        except BaseException as error:  # of the user's objects, while they are looked at
            content = _failed(error)
        finally:
            self._name = ""
        self._reply(request, content)
        self._status("idle", request)

    def _execute(self, request: Request) -> dict[str, Any]:
        content, shell = request.content, self._shell
        silent = bool(content.get("silent"))
        kept = not silent and bool(content.get("store_history", True))
        count = shell.execution_count
        if not silent:
            self._channels.publish("execute_input", {"code": content["code"], "execution_count": count}, request)
        shell.asked_to_exit = False
        with self._showing(request):
            try:
                reply = self._run(request, silent=silent, kept=kept)
            except BaseException as error:  # sys.exit is the user's too
                if shell.asked_to_exit:  # leaves the frontend, not the engine
                    return {"execution_count": count, "payload": [{"source": "ask_exit", "keepkernel": True}]}
                self._look()
                failed = {"execution_count": count, **_failed(error)}
                self._channels.publish("error", failed, request)
                return failed
        return {"execution_count": count, "payload": [], "user_expressions": {}, **reply}

    def _run(self, request: Request, *, silent: bool, kept: bool) -> dict[str, Any]:
        content = request.content
        found = self._host.guarded(
            self._name, lambda: self._host.shell.execute(str(content["code"]), silent=silent, kept=kept)
        )
        self._look()
        if found["result"] and not silent:
            data = {"data": found["result"], "metadata": found["metadata"], "execution_count": found["execution_count"]}
            self._channels.publish("execute_result", _plain(data), request)
        expressions = content.get("user_expressions") or {}
        values = self._host.guarded(self._name, lambda: self._shell.user_expressions(expressions))
        return {"user_expressions": _plain(values)}

    @contextmanager
    def _showing(self, request: Request) -> Iterator[None]:
        """Show what is printed and displayed inside to the frontends; let *request*'s be asked for input."""

        def take(stream: str, text: str) -> None:
            self._channels.publish("stream", {"name": stream, "text": text}, request)

        diverted = Diverted(self._host.output, take)
        asked = builtins.input
        self._now, self._diverted = request, diverted
        if request.content.get("allow_stdin"):
            builtins.input = self._input
        self._channels.pulse(LOOK_S, diverted.look)
        try:
            with diverted:
                yield
        finally:
            builtins.input = asked
            self._channels.pulse(LOOK_S, None)
            self._channels.post(diverted.finish)
            self._now = self._diverted = None

    def _look(self) -> None:
        """Have what was printed so far sent before what is said next."""
        if self._diverted is not None:
            self._channels.post(partial(self._diverted.look, self._diverted.now()))

    def _input(self, prompt: object = "", /) -> str:
        """Ask the frontend; other threads than the main one cannot."""
        request = self._now
        if request is None or threading.current_thread() is not threading.main_thread():
            raise EOFError("input() is for the cell of a frontend")
        while not self._answers.empty():  # to what was asked before an interrupt
            self._answers.get()
        self._look()
        self._channels.answer(request, "input_request", {"prompt": str(prompt), "password": False}, "stdin")
        return self._answers.get()

    def _complete(self, request: Request) -> dict[str, Any]:
        from IPython.core.completer import provisionalcompleter, rectify_completions

        code, cursor = str(request.content["code"]), request.content.get("cursor_pos")
        cursor = len(code) if cursor is None else int(cursor)

        def find() -> list[Any]:
            with provisionalcompleter():
                return list(rectify_completions(code, self._shell.Completer.completions(code, cursor)))

        found = self._host.guarded(self._name, find)
        return {
            "matches": [each.text for each in found],
            "cursor_start": found[0].start if found else cursor,
            "cursor_end": found[0].end if found else cursor,
            "metadata": {},
        }

    def _inspect(self, request: Request) -> dict[str, Any]:
        from IPython.utils.tokenutil import token_at_cursor

        content = request.content
        name = token_at_cursor(str(content["code"]), int(content["cursor_pos"]))
        level = int(content.get("detail_level") or 0)
        try:
            data = self._host.guarded(self._name, lambda: self._shell.object_inspect_mime(name, detail_level=level))
        except KeyError:
            return {"found": False, "data": {}, "metadata": {}}
        return {"found": True, "data": _plain(data), "metadata": {}}


def _failed(error: BaseException) -> dict[str, Any]:
    shown = describe(error)
    return {
        "status": "error",
        "ename": shown.ename,
        "evalue": shown.evalue,
        "traceback": shown.traceback.split("\n"),
        "user_expressions": {},
        "payload": [],
    }


def _plain(content: Any) -> Any:
    """Return *content* as JSON has it: bytes of pictures as base64, what else is not JSON as its repr."""
    return msgspec.json.decode(msgspec.json.encode(content, enc_hook=repr))
