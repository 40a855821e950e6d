"""What an engine runs before it joins: the user's startup files and commands, in the order that IPython has.

It is in MPI already and its main thread is free. Whatever fails is told and left behind: a name that is missing in a
file that was made for a prompt must not cost a thousand ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from ippmpi.config import EngineSettings
from ippmpi.engine.failures import describe
from ippmpi.engine.mpi import WorldFacts
from ippmpi.engine.namespace import Namespace
from ippmpi.engine.shell import Shell
from ippmpi.launching import STARTUP_ERROR

COMMAND = "startup_command"


class Startup:
    """Runs files and code of the user's in the engine's namespace."""

    def __init__(self, namespace: Namespace, shell: Shell, facts: WorldFacts, say: Callable[[str], None]) -> None:
        """Run on *namespace*, code that is more than Python in *shell*; tell failures with *say*."""
        self._namespace = namespace
        self._shell = shell
        self._facts = facts
        self._say = say

    def run(self, settings: EngineSettings, python_startup: str = "") -> None:
        """Run all that *settings* name; first *python_startup*, the file of the interpreter's own variable."""
        if python_startup:
            self._attempt(python_startup, lambda: self._run_file(Path(python_startup).expanduser()))
        for path in self._files(settings):
            self._attempt(str(path), lambda path=path: self._run_file(path))  # type: ignore[misc] # called at once
        if settings.startup_command:
            self._attempt(COMMAND, lambda: self._shell.execute(settings.startup_command))

    def _files(self, settings: EngineSettings) -> Iterator[Path]:
        if settings.startup_folder:
            folder = settings.folder / Path(settings.startup_folder).expanduser()
            yield from sorted(path for path in folder.glob("*") if path.suffix in (".py", ".ipy"))
        if settings.startup_script:
            yield Path(settings.startup_script).expanduser().absolute()

    def _run_file(self, path: Path) -> None:
        if path.suffix == ".ipy":
            self._shell.execute(path.read_text(), filename=str(path))
            return
        code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
        variables = self._namespace.variables
        variables["__file__"] = str(path)
        try:
            exec(code, variables)  # users may run anything here anyway
        finally:
            variables.pop("__file__", None)

    def _attempt(self, what: str, run: Callable[[], object]) -> None:
        try:
            run()
        except BaseException as error:  # sys.exit is the user's too
            failure = describe(error)
            where = f"rank {self._facts.rank} on {self._facts.host}"
            short = " ".join(f"{failure.ename}: {failure.evalue}".split())
            self._say(f"{STARTUP_ERROR} {where}: {what}: {short}\n{failure.traceback}\n")
