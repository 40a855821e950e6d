"""A runner without a process around it, and the clean-up after a real IPython shell."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from ippmpi.engine.mpi import WorldFacts
from ippmpi.engine.namespace import Namespace
from ippmpi.engine.runner import Runner
from ippmpi.engine.shell import Shell
from ippmpi.wire.functions import set_home
from ippmpi.wire.messages import Reply
from ippmpi.wire.pickling import pack, unpack


class Bench:
    """Runs operations as an engine would; ``displays`` are the bundles that were displayed."""

    def __init__(self) -> None:
        self.displays: list[dict[str, Any]] = []
        self.namespace = Namespace()
        self.shell = Shell(self.namespace, self.displays.append)
        self.runner = Runner("w1", WorldFacts(3, 4, 2, "c1"), namespace=self.namespace, shell=self.shell)
        self.runner.engine = 3
        self.names = self.namespace.variables
        self._tasks = 0

    def reply(self, op: str, value: object, client: str = "aaa") -> Reply:
        """Return the reply to *op* with *value*, which is small."""
        self._tasks += 1
        outcome = self.runner.run(f"{client}-{self._tasks}", op, pack(value).join())
        assert outcome.memory is None
        return outcome.reply

    def do(self, op: str, value: object, client: str = "aaa") -> Any:
        """Return the value of a reply; fail if it has none."""
        reply = self.reply(op, value, client)
        assert reply.failure is None, reply.failure.traceback
        return unpack(reply.content.inline)

    def apply(self, function: object, *args: object, client: str = "aaa") -> Any:
        return self.do("apply", (function, args, {}), client)

    def execute(self, code: str, **options: object) -> dict[str, Any]:
        found: dict[str, Any] = self.do("execute", {"code": code, **options})
        return found


@pytest.fixture
def bench() -> Iterator[Bench]:
    main, display = sys.modules["__main__"], builtins.__dict__.get("display")
    bench = Bench()
    set_home(bench.namespace)
    yield bench
    set_home(None)
    if bench.shell.started:
        shell: Any = bench.shell.get_ipython()
        type(shell).clear_instance()
        shell.restore_sys_module_state()
    sys.modules["__main__"] = main
    builtins.__dict__.pop("display", None)
    if display is not None:
        builtins.__dict__["display"] = display


def client_main(code: str) -> dict[str, Any]:
    """Run *code* as the ``__main__`` of a client would."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(code, "<client>", "exec", dont_inherit=True), names)
    return names


@pytest.fixture
def main() -> Any:
    return client_main
