"""Our kind of IPython shell; importing this imports IPython, so only ``shell.py`` does, and late."""

from __future__ import annotations

import builtins
import sys
import warnings
from collections.abc import Callable
from typing import Any, cast

from IPython import version_info
from IPython.core import page
from IPython.core.compilerop import CachingCompiler
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from traitlets import Type
from traitlets.config import Config

from ippmpi.engine.namespace import Namespace

Publish = Callable[[dict[str, object]], None]

_NO_COLORS = "nocolor" if version_info[0] >= 9 else "NoColor"


class _Hook(DisplayHook):
    """Keeps the result instead of printing it."""

    def write_output_prompt(self) -> None:
        """Write nothing."""

    def write_format_data(self, format_dict: dict[str, object], md_dict: dict[str, object] | None = None) -> None:
        """Keep the bundle."""
        shell: Any = self.shell
        shell.result, shell.result_metadata = dict(format_dict), dict(md_dict or {})


class _Publisher(DisplayPublisher):
    """Passes displays on instead of printing them."""

    def publish(
        self,
        data: dict[str, object],
        metadata: dict[str, object] | None = None,
        *_ignored: object,
        transient: dict[str, object] | None = None,
        update: bool = False,
        **_more: object,
    ) -> None:
        """Pass a bundle on."""
        shell: Any = self.shell
        bundle: dict[str, object] = {
            "kind": "update_display_data" if update else "display_data",
            "data": data,
            "metadata": metadata or {},
        }
        if transient:
            bundle["transient"] = transient
        shell.send_display(bundle)

    def clear_output(self, wait: bool = False) -> None:
        """Pass the wish on."""
        shell: Any = self.shell
        shell.send_display({"kind": "clear_output", "data": {}, "metadata": {"wait": wait}})


class _Compiler(CachingCompiler):
    """Lets tracebacks name the file that a cell came from."""

    filename: str | None = None

    def __init__(self) -> None:
        """Know no files yet."""
        super().__init__()  # type: ignore[no-untyped-call] # IPython's
        self._files: set[str] = set()

    def get_code_name(self, raw_code: str, transformed_code: str, number: int) -> str:
        """Return the name under which the code's lines are found."""
        name: str = super().get_code_name(raw_code, transformed_code, number)
        if self.filename:
            self._files.add(self.filename)
        return self.filename or name

    def format_code_name(self, name: str) -> tuple[str, str] | None:
        """Return what tracebacks call a cell; None for files, which they call by their names."""
        found: tuple[str, str] | None = None if name in self._files else super().format_code_name(name)
        return found


class EngineIdentity:
    """What ``get_ipython().kernel`` says of the engine, as users of ipyparallel know it."""

    def __init__(self, engine_id: Callable[[], int]) -> None:
        """Ask *engine_id* for the id: it may come late, and be another one after a restart."""
        self._engine_id = engine_id

    @property
    def engine_id(self) -> int:
        """The engine's id, -1 before it has joined."""
        return self._engine_id()

    int_id = engine_id


class EngineShell(InteractiveShell):
    """A shell whose results, displays and tracebacks are data.

    Attributes:
        result: mime bundle of the last cell's result, or None.
        result_metadata: its metadata, by mime type.
        traceback_text: traceback of the last cell that failed.
        send_display: takes every display.
        asked_to_exit: ``exit`` was called.
        kernel: which engine this is.
    """

    displayhook_class = Type(_Hook)
    display_pub_class = Type(_Publisher)
    compiler_class = Type(_Compiler)

    result: dict[str, object] | None = None
    result_metadata: dict[str, object] = {}  # noqa: RUF012 - replaced, never changed
    traceback_text = ""
    send_display: Publish
    asked_to_exit = False
    kernel: EngineIdentity

    def begin(self, filename: str | None) -> None:
        """Forget the last cell; the next one comes from *filename*."""
        self.result, self.result_metadata, self.traceback_text = None, {}, ""
        compiler: Any = self.compile
        compiler.filename = filename

    def _showtraceback(self, etype: type, evalue: BaseException, stb: list[str]) -> None:  # noqa: ARG002 - IPython's
        self.traceback_text = self.InteractiveTB.stb2text(stb)

    def showtraceback(self, exc_tuple: Any = None, *args: Any, **kwargs: Any) -> None:
        """Keep the traceback. Ours is used for exits and for exception groups, which IPython would print."""
        error = exc_tuple[1] if exc_tuple else sys.exc_info()[1]
        if not isinstance(error, BaseExceptionGroup | SystemExit):
            super().showtraceback(exc_tuple, *args, **kwargs)

    def show_usage_error(self, exc: BaseException) -> None:
        """Keep the text of a misused magic."""
        self.traceback_text = f"UsageError: {exc}"

    def init_profile_dir(self, profile_dir: Any) -> None:
        """Do without files: a thousand ranks would make them on one network file system."""
        self.profile_dir = profile_dir

    def enable_gui(self, gui: str | None = None) -> None:
        """Take note that figures are displays (``%matplotlib inline``); there is nobody to look at a window."""
        if gui not in (None, "inline"):
            raise UsageError(f"an engine has no windows, so no {gui!r}: use %matplotlib inline")

    def ask_exit(self) -> None:
        """Answer ``exit`` and ``quit``: an engine ends when its cluster does."""
        self.asked_to_exit = True
        raise SystemExit("an engine ends with its cluster: use client.shutdown()")

    system = InteractiveShell.system_raw  # the command writes to the captured descriptors itself; no terminal, no fork


def start(namespace: Namespace, publish: Publish, engine_id: Callable[[], int]) -> EngineShell:
    """Make the one shell of this process, on *namespace*."""
    # the interpreter's advice for people at a terminal
    warnings.filterwarnings("ignore", message="To exit: use 'exit', 'quit', or Ctrl-D.")
    config = Config()
    config.HistoryManager.enabled = False  # no database per rank
    config.HistoryManager.hist_file = ":memory:"
    config.InteractiveShell.colors = _NO_COLORS
    display = builtins.__dict__.pop("display", None)
    try:
        shell: EngineShell = EngineShell.instance(config=config, user_module=namespace.module)
    except BaseException:
        builtins.__dict__["display"] = display
        raise
    shell.send_display = publish
    shell.db = {}  # where %cd and bookmarks look; with no profile there is no other
    shell.kernel = EngineIdentity(engine_id)
    pager: Any = page  # no types in there
    cast("Any", shell).set_hook("show_in_pager", pager.as_hook(pager.display_page), 99)
    return shell
