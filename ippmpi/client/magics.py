"""``%px``, ``%%px``, ``%pxconfig`` and ``%pxresult``: IPython lines and cells that run on engines."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from queue import Empty
from typing import TYPE_CHECKING, Any, NoReturn

from ippmpi import config
from ippmpi.client.collector import News
from ippmpi.client.engines import Targets
from ippmpi.client.firsterror import FirstError
from ippmpi.client.notebook import running_shell
from ippmpi.client.progress import bar
from ippmpi.client.results import AsyncResult
from ippmpi.client.streaming import Printer, Queue, following
from ippmpi.errors import AlreadyDisplayedError, RemoteError

if TYPE_CHECKING:
    from ippmpi.client.views import DirectView

PROGRESS_AFTER_S = 2.0


def activate(view: DirectView, suffix: str = "") -> None:
    """Register the magics of *view* in the running IPython; outside IPython there is only a warning."""
    shell = running_shell()
    if shell is None:
        warnings.warn("there are magics only inside IPython; nothing was activated", stacklevel=3)
        return
    Magics(view, shell).register(suffix)


# --- options -------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        from IPython.core.error import UsageError

        raise UsageError(f"%{self.prog}: {message}")


def _targets(text: str) -> Targets:
    """Read ``all``, an id, ids with commas, or a slice ``start:stop:step``."""
    if text == "all":
        return "all"
    try:
        if ":" in text:
            return slice(*(int(p) if p else None for p in text.strip("[]").split(":")))
        if "," in text or text.startswith("["):
            return [int(p) for p in text.strip("[]").split(",") if p.strip()]
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not 'all', an id, ids with commas, or a slice") from None


def _signal(text: str) -> str | int:
    return int(text) if text.lstrip("-").isdigit() else text


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-b", "--block", dest="block", action="store_true", default=None, help="wait for the result")
    add("-a", "--noblock", dest="block", action="store_false", help="return an AsyncResult at once")
    add("--stream", dest="stream", action="store_true", default=None, help="show output while it comes (default)")
    add("--no-stream", dest="stream", action="store_false", help="show output at the end")
    add("-t", "--targets", type=_targets, default=None, help="engines: all, an id, ids with commas, a slice")
    add("--verbose", dest="verbose", action="store_true", default=None, help="say on which engines it runs")
    add("--no-verbose", dest="verbose", action="store_false")
    add("--progress-after", type=float, default=None, help="seconds until a progress bar is shown; -1: never")
    add("--fold", dest="fold", action="store_true", default=None, help="show equal lines of engines once (default)")
    add("--no-fold", dest="fold", action="store_false", help="show each line of each engine")
    add("--signal-on-interrupt", type=_signal, default=None, help="signal for engines at Ctrl-C (default SIGINT)")


def _add_grouping(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-r", dest="groupby", action="store_const", const="order", default="type", help="group by order of engines")
    add("-e", dest="groupby", action="store_const", const="engine", help="group output by engine")
    add("--group-outputs", dest="groupby", choices=("engine", "order", "type"))
    add("-o", "--out", dest="out", default=None, help="name of the variable that gets the AsyncResult")


def _cell_parser(name: str) -> _Parser:
    parser = _Parser(prog=name, add_help=False, description="Run a cell on engines.")
    _add_options(parser)
    _add_grouping(parser)
    parser.add_argument("--local", action="store_true", help="run the cell here as well")
    return parser


# --- the magics ----------------------------------------------------------------------------------


class Magics:
    """The magics of one view in one IPython."""

    def __init__(self, view: DirectView, shell: Any) -> None:
        """Run on *view*, show in *shell*."""
        self.view = view
        self.shell = shell
        self.last: AsyncResult | None = None
        self._defaults: dict[str, Any] = {
            "block": None,
            "stream": not config.quiet(),
            "fold": True,
            "targets": None,
            "verbose": False,
            "progress_after": -1.0 if config.quiet() else PROGRESS_AFTER_S,
            "signal_on_interrupt": "SIGINT",
        }

    def register(self, suffix: str) -> None:
        """Make the magics known, with *suffix* after their names."""
        from IPython.core.magic import no_var_expand

        @no_var_expand
        def px(line: str) -> AsyncResult | None:
            """Run a line of code on the engines."""
            return self.run(line, _cell_parser("px").parse_args([]))

        def px_cell(line: str, cell: str) -> AsyncResult | None:
            """Run a cell on the engines."""
            return self.run(cell, _cell_parser("%px").parse_args(line.split()))

        parser = _cell_parser("%px")
        px_cell.__doc__ = f"Run a cell on the engines.\n\n{parser.format_help()}"
        names: Sequence[tuple[Callable[..., Any], str, str]] = (
            (px, "line", "px"),
            (px_cell, "cell", "px"),
            (self.configure, "line", "pxconfig"),
            (self.show_last, "line", "pxresult"),
        )
        for function, kind, name in names:
            self.shell.register_magic_function(function, kind, name + suffix)

    def configure(self, line: str) -> None:
        """Set defaults of ``%px`` and ``%%px``; options as those of ``%%px``."""
        parser = _Parser(prog="pxconfig", add_help=False)
        _add_options(parser)
        for name, value in vars(parser.parse_args(line.split())).items():
            if value is not None:
                self._defaults[name] = value

    def show_last(self, line: str) -> None:
        """Wait for the last ``%px`` or ``%%px`` and show its output; ``-o name`` stores its result instead."""
        from IPython.core.error import UsageError

        parser = _Parser(prog="pxresult", add_help=False)
        _add_grouping(parser)
        options = parser.parse_args(line.split())
        if self.last is None:
            raise UsageError("%pxresult: no %px or %%px has run yet")
        if options.out:
            self.shell.user_ns[options.out] = self.last
            return
        self.last.display_outputs(options.groupby, fold=self._defaults["fold"])
        self.last.get()

    def run(self, code: str, given: argparse.Namespace) -> AsyncResult | None:
        """Run *code* on the engines; return the result only if it does not block."""
        options = argparse.Namespace(**vars(given))
        for name, value in self._defaults.items():
            if getattr(options, name) is None:
                setattr(options, name, value)
        targets = options.targets if options.targets is not None else self.view.targets
        result = self.view.execute(code, silent=False, targets=targets, block=False)
        self.last = result
        if options.verbose:
            print(f"Parallel execution on engine(s): {targets}")
        if options.out:
            self.shell.user_ns[options.out] = result
        if options.local:
            self.shell.run_cell(code)
        if not (self.view.block if options.block is None else options.block):
            return result
        _Watch(self.view, result, options).show()
        return None


class _Watch:
    """One blocking ``%px``: shows output, a bar after a while, and passes Ctrl-C on."""

    def __init__(self, view: DirectView, result: AsyncResult, options: argparse.Namespace) -> None:
        self._view = view
        self._result = result
        self._options = options
        self._interrupted = False
        self._bar: Any = None
        self._first = FirstError(result, shown=options.stream) if view.client.show_first_error else None
        after = options.progress_after
        self._bar_at = None if after < 0 else time.monotonic() + after

    def show(self) -> None:
        """Wait and show; raise what the code raised, unless it was interrupted from here."""
        collector = self._result.collector
        printer = Printer(collector, self._result.read_part, folded=self._options.fold)
        with following(collector) as news:
            left = len(collector.parts)
            batch: list[News | None] = []
            try:
                while left > 0:
                    try:
                        self._wait(printer, news, batch)
                        self._tick()
                        left -= sum(item is not None and item.kind == "end" for item in batch)
                        shown, batch = batch, []
                        self._show(printer, shown)
                    except KeyboardInterrupt:
                        self._interrupt()
            finally:
                if self._bar is not None:
                    self._bar.close()
        self._finish(printer)

    def _wait(self, printer: Printer, news: Queue, batch: list[News | None]) -> None:
        """Add news to *batch*, which keeps them if the user interrupts; nothing if it is time for something else."""
        waits = [0.2] if self._bar is not None else []
        if self._bar is None and self._bar_at is not None:
            waits.append(max(0.0, self._bar_at - time.monotonic()))
        if self._first is not None and (due := self._first.due_in()) is not None:
            waits.append(due)
        with contextlib.suppress(Empty):
            printer.gather(news, batch, min(waits, default=None))

    def _tick(self) -> None:
        """Do what is due: tell of a failure, move the bar."""
        if self._first is not None and self._first.due_in() == 0:
            self._tell(self._first.tell)
        if self._bar is None and self._bar_at is not None and time.monotonic() >= self._bar_at:
            self._bar = bar(len(self._result), "engine", "%px")
        if self._bar is not None:
            self._bar.update(self._result.progress - self._bar.n)

    def _tell(self, show: Callable[[], None]) -> None:
        """Have *show* print something above the bar."""
        if self._bar is not None:
            self._bar.clear()
        show()
        if self._bar is not None:
            self._bar.refresh()

    def _show(self, printer: Printer, batch: list[News | None]) -> None:
        if batch and self._options.stream:
            self._tell(lambda: printer.show(batch))

    def _interrupt(self) -> None:
        if self._interrupted:  # the second time: let the user go
            raise KeyboardInterrupt
        self._interrupted = True
        wanted = self._options.signal_on_interrupt
        if wanted in (0, "0"):
            raise KeyboardInterrupt
        print(f"Interrupting the engines ({wanted}); once more to stop waiting for them", file=sys.stderr)
        if wanted in ("SIGINT", int(signal.SIGINT)):
            self._result.cancel()
        else:
            self._view.client.send_signal(wanted, self._options.targets or self._view.targets, block=False)

    def _finish(self, printer: Printer) -> None:
        if self._first is not None:
            self._first.tell_end()
        if not self._options.stream:
            self._result.display_outputs(self._options.groupby, fold=self._options.fold)
        if self._interrupted:
            return
        if printer.errors_shown:
            count = printer.errors_shown
            shown = AlreadyDisplayedError("AlreadyDisplayedError", f"{count} error{'s' if count > 1 else ''}")
            original = self._result.exception()
            shown.original_error = original if isinstance(original, RemoteError) else None
            raise shown
        self._result.get()
