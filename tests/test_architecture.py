"""The rules of docs/architecture.md that can be read off the source: layers, purity, heavy imports, handlers."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ippmpi.wire import messages

ROOT = Path(__file__).parent.parent

LAYERS = [
    {"binding", "datapub", "errors", "ids", "identity", "clock", "collecting", "config", "plugins"},
    {"wire"},
    {"core", "connection", "handed", "launching", "templates", "native", "traits"},
    {"net", "store"},
    {"client", "engine", "agent", "controller", "policies", "launchers"},
    {"cluster"},
    {"ippmpi", "error", "util", "cli"},
]
"""From the bottom up; imports go down only, and not to a sibling. ``ippmpi`` is the public ``__init__.py``."""

IMPURE = {"zmq", "socket", "threading", "asyncio", "time", "os", "subprocess"}
"""What ``core`` and ``wire`` must do without."""

HEAVY = {
    "IPython": {
        "ippmpi/client/display.py",
        "ippmpi/client/magics.py",
        "ippmpi/engine/_ipython.py",  # itself imported late, by shell.py
        "ippmpi/engine/kernel.py",
        "ippmpi/engine/shell.py",
    },
    "cloudpickle": {"ippmpi/wire/picklers.py"},
    "dill": {"ippmpi/wire/picklers.py"},
    "jinja2": set(),
    "jupyter_client": {"ippmpi/net/jupyter.py"},
    "matplotlib": set(),
    "mpi4py": {"ippmpi/engine/mpi.py"},
    "numpy": {"ippmpi/client/mapresults.py", "ippmpi/client/partition.py"},
    "psutil": set(),
    "rich": {"ippmpi/cli/tables.py"},
    "tqdm": {"ippmpi/client/progress.py"},
}
"""Packages that may wait: imported inside functions only, and only in these files. Others must not need them."""

WHOLE_FILE = {"ippmpi/engine/_ipython.py"}
"""Files that are imported late themselves, so their heavy imports stand on top."""

LATE = {
    "ast": "2 ms of imports that only executed code needs",
    "asyncio": "50 ms of imports that only `await` needs",
    "ctypes": "3 ms of imports that only some machines need",
    "faulthandler": "not before there is a log to write to",
    "importlib.metadata": "20 ms that only --version needs",
    "traceback": "an engine needs it only when something failed",
    "dis": "only a function with globals needs it",
    "fcntl": "not on every system",
    "functools": "reached only with cloudpickle",
    "hashlib": "loads libcrypto, which no rank needs",
    "tempfile": "with shutil and the compressions, 5 ms of imports that no rank needs",
    "zmq": "27 ms of imports that nobody needs on the controller's own host",
    "tomllib": "only where there is a file to read",
    "traitlets.config.loader": "only where there is a configuration file of ipyparallel",
}
"""Other modules that may be imported inside functions, and why."""

READERS = {
    "ippmpi/config.py": "the reader",
    "ippmpi/engine/mpi.py": "tells which MPI started this process, which mpiexec says in variables only",
    "ippmpi/engine/output.py": "sets a variable for Fortran libraries that are loaded later",
    "ippmpi/engine/process.py": "its parent says in variables who it is",
    "ippmpi/engine/started.py": "mpiexec and srun say in variables whose ranks they start",
}
"""Files that may use ``os.environ``, and why."""

HOMES = {"hub": "core", "agent": "agent", "engine": "engine", "client": "client"}
"""In which package the handlers of a receiver live."""


# --- reading ---


@dataclass(frozen=True)
class Import:
    """One imported module, as a full dotted name."""

    module: str
    line: int
    late: bool
    for_types: bool


@dataclass(frozen=True)
class Source:
    """One file: its path in the tree, its dotted name when installed, its syntax tree."""

    path: str
    name: str
    tree: ast.Module

    @property
    def component(self) -> str:
        """``core`` for ``ippmpi.core.hub``; ``ippmpi`` for the package itself."""
        parts = self.name.split(".")
        return parts[1] if len(parts) > 1 else parts[0]

    @functools.cached_property
    def imports(self) -> list[Import]:
        return list(self._imports(self.tree, late=False, for_types=False))

    def _imports(self, node: ast.AST, late: bool, for_types: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom):
                for module in self._modules(child):
                    yield Import(module, child.lineno, late, for_types)
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                yield from self._imports(ast.Module(child.body, []), late, for_types=True)
                yield from self._imports(ast.Module(child.orelse, []), late, for_types)
            else:
                inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from self._imports(child, late or inside, for_types)

    def _modules(self, node: ast.Import | ast.ImportFrom) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
            return
        base = node.module or ""
        if node.level:
            package = self.name.split(".") if self.path.endswith("__init__.py") else self.name.split(".")[:-1]
            base = ".".join([*package[: len(package) - node.level + 1], *([base] if base else [])])
        for alias in node.names:
            full = f"{base}.{alias.name}"
            yield full if full in NAMES else base


def _files() -> Iterator[tuple[Path, str]]:
    for top, package in (("ippmpi", "ippmpi"), ("launchers", "ippmpi.launchers")):
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = [package, *path.relative_to(ROOT / top).with_suffix("").parts]
            yield path, ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name for _, name in _files()}
SOURCES = [Source(str(path.relative_to(ROOT)), name, ast.parse(path.read_text())) for path, name in _files()]
ALL = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.path)


def layer(component: str) -> int:
    for number, components in enumerate(LAYERS):
        if component in components:
            return number
    raise AssertionError(f"ippmpi.{component} has no layer; put it into LAYERS and into docs/architecture.md")


def component_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "ippmpi"


# --- layers ---


@ALL
def test_imports_go_down(source: Source) -> None:
    wrong = []
    for found in source.imports:
        if not (found.module == "ippmpi" or found.module.startswith("ippmpi.")):
            continue
        target = component_of(found.module)
        if target != source.component and layer(target) >= layer(source.component):
            wrong.append(f"line {found.line}: {found.module}")
    assert not wrong, f"{source.path} is in layer {layer(source.component)} and imports from its own or a higher one"


@ALL
def test_plug_ins_are_not_imported_by_name(source: Source) -> None:
    if source.component in ("launchers", "policies"):
        return
    wrong = [f for f in source.imports if f.module.startswith(("ippmpi.launchers", "ippmpi.policies", "launchers"))]
    assert not wrong, f"{source.path}: use plugins.load(package, name)"


@ALL
def test_relative_imports_reach_siblings_only(source: Source) -> None:
    levels = [node.lineno for node in ast.walk(source.tree) if isinstance(node, ast.ImportFrom) and node.level > 1]
    assert not levels, f"{source.path}: lines {levels}"


# --- purity, and who may use what ---


@ALL
def test_core_and_wire_are_pure(source: Source) -> None:
    if source.component not in ("core", "wire"):
        return
    wrong = [f"line {f.line}: {f.module}" for f in source.imports if f.module.split(".")[0] in IMPURE]
    assert not wrong, f"{source.path} must not touch the outside world"


@ALL
def test_only_net_touches_zeromq(source: Source) -> None:
    if source.component != "net":
        assert not [f for f in source.imports if f.module.split(".")[0] == "zmq"], source.path


@ALL
def test_heavy_packages_wait_in_functions_of_known_files(source: Source) -> None:
    wrong = []
    for found in source.imports:
        package = found.module.split(".")[0]
        if package not in HEAVY or found.for_types:
            continue
        if source.path not in HEAVY[package]:
            wrong.append(f"line {found.line}: {package} is not for this file (the table HEAVY)")
        elif not found.late and source.path not in WHOLE_FILE:
            wrong.append(f"line {found.line}: {package} must be imported inside a function")
    assert not wrong, source.path


def test_the_table_of_heavy_packages_is_no_longer_than_needed() -> None:
    used = {(f.module.split(".")[0], source.path) for source in SOURCES for f in source.imports if not f.for_types}
    assert {(package, path) for package, paths in HEAVY.items() for path in paths} <= used


@ALL
def test_other_imports_stand_on_top(source: Source) -> None:
    wrong = []
    for found in source.imports:
        known = found.module in LATE or found.module.split(".")[0] in HEAVY
        if found.late and not known and found.module not in NAMES:
            wrong.append(f"line {found.line}: {found.module}")
    assert not wrong, f"{source.path}: move to the top, or give the reason in LATE"


def test_the_table_of_late_imports_is_no_longer_than_needed() -> None:
    assert set(LATE) - {f.module for source in SOURCES for f in source.imports if f.late} == set()


@ALL
def test_only_config_reads_the_environment(source: Source) -> None:
    uses = [
        node.lineno
        for node in ast.walk(source.tree)
        if (isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv", "putenv"))
        or (
            isinstance(node, ast.ImportFrom)
            and node.module == "os"
            and {a.name for a in node.names} & {"environ", "getenv"}
        )
    ]
    assert not uses or source.path in READERS, (
        f"{source.path}: lines {uses}; ask config.py, or give the reason in READERS"
    )


def test_the_table_of_readers_is_no_longer_than_needed() -> None:
    assert {path for path in READERS if "environ" not in (ROOT / path).read_text()} == set()


# --- one handler per message ---


def routes() -> Iterator[tuple[str, str]]:
    for kind in vars(messages).values():
        if isinstance(kind, type) and issubclass(kind, messages.Message) and kind is not messages.Message:
            for route in kind.ROUTE.split(","):
                yield str(kind.__struct_config__.tag), route.split("->")[1].strip()


def methods(component: str) -> set[str]:
    """Names of all methods of all classes of a package."""
    return {
        statement.name
        for source in SOURCES
        if source.component == component
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ClassDef)
        for statement in node.body
        if isinstance(statement, ast.FunctionDef)
    }


@pytest.mark.parametrize(("tag", "receiver"), sorted(set(routes())))
def test_every_message_has_a_handler_at_its_receiver(tag: str, receiver: str) -> None:
    assert f"on_{tag}" in methods(HOMES[receiver]), f"no class in ippmpi/{HOMES[receiver]}/ has a method on_{tag}"


@pytest.mark.parametrize("receiver", sorted(HOMES))
def test_every_handler_has_a_message(receiver: str) -> None:
    tags = {tag for tag, _ in routes()}
    mine = {tag for tag, to in routes() if to == receiver}
    found = {name.removeprefix("on_") for name in methods(HOMES[receiver]) if name.startswith("on_")}
    assert found & tags - mine == set(), f"ippmpi/{HOMES[receiver]}/ handles what nobody sends to it"


# --- every file says what it is for ---


@ALL
def test_every_module_begins_with_a_sentence(source: Source) -> None:
    text = ast.get_docstring(source.tree)
    assert text, f"{source.path}: one sentence on top says what lives here"
    assert text.splitlines()[0].endswith((".", ":")), source.path


@ALL
def test_annotations_are_not_evaluated(source: Source) -> None:
    annotated = any(
        isinstance(node, ast.AnnAssign) or (isinstance(node, ast.FunctionDef) and (node.returns or node.args.args))
        for node in ast.walk(source.tree)
    )
    assert not annotated or any(f.module == "__future__" for f in source.imports), source.path
