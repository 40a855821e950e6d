"""A real IPython shell on the engine's namespace, made when the first code needs it.

What a terminal would print besides the code's own output is data here: the result and what is
displayed are mime bundles, a traceback is text.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ippmpi.engine.namespace import Namespace

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from ippmpi.engine._ipython import EngineShell

Publish = Callable[[dict[str, object]], None]

_log = logging.getLogger(__name__)


class CodeFailed(Exception):  # noqa: N818 - an outcome, not a defect
    """Executed code raised ``error``; ``traceback`` is IPython's text."""

    def __init__(self, error: BaseException, traceback: str) -> None:
        """Carry both."""
        super().__init__(str(error))
        self.error = error
        self.traceback = traceback


class Shell:
    """Executes code. *publish* gets every display as ``{"kind", "data", "metadata"}``."""

    publish: Publish
    """Takes every display from now on."""

    engine_id: Callable[[], int]
    """Says which engine this is."""

    def __init__(self, namespace: Namespace, publish: Publish) -> None:
        """Put what starts the shell into *namespace*; it is not started."""
        self._namespace = namespace
        self.publish = publish
        self.engine_id = _unknown
        self._shell: EngineShell | None = None
        self._broken = False
        namespace.define("get_ipython", self.get_ipython)

    @property
    def started(self) -> bool:
        """Whether the shell exists."""
        return self._shell is not None

    def get_ipython(self) -> InteractiveShell:
        """Return the running shell."""
        return self._started()

    def display(self, *values: object, **options: object) -> object:
        """Display values richly (the builtin of that name until IPython brings its own)."""
        self._started()
        from IPython.display import display

        return display(*values, **options)  # type: ignore[no-untyped-call] # IPython's

    def start_if_imported(self) -> None:
        """Start the shell if IPython is there: what arrived may display, which would print without a shell."""
        if self._shell is None and not self._broken and "IPython" in sys.modules:
            try:
                self._started()
            except Exception:  # a function that may not need IPython runs all the same
                self._broken = True
                _log.exception("IPython cannot start")

    def _started(self) -> EngineShell:
        if self._shell is None:
            from ippmpi.engine._ipython import start

            self._shell = start(self._namespace, lambda bundle: self.publish(bundle), lambda: self.engine_id())
        return self._shell

    def execute(
        self, code: str, *, silent: bool = True, filename: str | None = None, kept: bool | None = None
    ) -> dict[str, Any]:
        """Run *code* as a cell; *filename* is what its tracebacks say it came from.

        Returns ``execution_count``, ``source``, ``result`` (a mime bundle or None) and ``metadata``.
        A silent cell has no result and, unless it is to be *kept*, no place in the history.

        Raises:
            CodeFailed: it raised, or is no Python.
        """
        shell: Any = self._started()
        shell.begin(filename)
        outcome = shell.run_cell(code, store_history=not silent if kept is None else kept, silent=silent)
        self._namespace.claim(_bound(shell.transform_cell(code)))
        error = outcome.error_before_exec or outcome.error_in_exec
        if error is not None:
            raise CodeFailed(error, shell.traceback_text)
        return {
            "execution_count": outcome.execution_count or shell.execution_count,
            "source": code,
            "result": shell.result,
            "metadata": shell.result_metadata,
        }

    def reset(self) -> None:
        """Clear the namespace as ``%reset`` does; the shell must have been started."""
        shell: Any = self._started()
        shell.reset(new_session=False)


def _unknown() -> int:
    return -1


def _bound(code: str) -> Iterator[str]:
    """Yield the names that running *code* binds at its top level."""
    import ast

    try:
        waiting: list[ast.AST] = [ast.parse(code)]
    except (SyntaxError, ValueError):
        return
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.alias):
            yield node.asname or node.name.split(".")[0]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif not isinstance(node, ast.Lambda):
            waiting += ast.iter_child_nodes(node)
