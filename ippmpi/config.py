"""Settings: one frozen record per role, made once and passed down whole.

Defaults < ``<profile folder>/ippmpi.toml`` (a table per role) < environment (``IPPMPI_<ROLE>_<FIELD>``, and some
names of ipyparallel's) < command line. This module is the only reader of the environment and of our configuration
files. Each field documents itself; command line options and the table of the manual are generated from it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar, get_args, get_type_hints

FILE_NAME = "ippmpi.toml"


class _Field(NamedTuple):
    default: object
    text: str
    flags: tuple[str, ...]
    metavar: str


def _setting(default: object, text: str, *, flags: tuple[str, ...] = (), metavar: str = "") -> Any:
    return _Field(default, text, flags, metavar)


class _Record:
    """A frozen record of keyword arguments. (Dataclasses cost every rank 9 ms: imports, and code that is compiled.)"""

    FIELDS: ClassVar[Mapping[str, _Field]] = {}

    def __init_subclass__(cls) -> None:
        cls.FIELDS = {**cls.FIELDS, **{name: value for name, value in vars(cls).items() if isinstance(value, _Field)}}

    def __init__(self, **values: object) -> None:
        if unknown := values.keys() - self.FIELDS.keys():
            raise TypeError(f"{type(self).__name__} has no {min(unknown)!r}; have {', '.join(self.FIELDS)}")
        self.__dict__.update({name: field.default for name, field in self.FIELDS.items()} | values)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name} cannot be set: {type(self).__name__} is frozen; replace() makes another one")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(tuple(vars(self).values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


# --- the roles -----------------------------------------------------------------------------------


class Settings(_Record):
    """What every role has: which cluster it is about."""

    ROLE: ClassVar[str]

    profile: str = _setting("default", "IPython profile whose folder holds the cluster's files")
    profile_dir: str = _setting("", "profile folder, instead of a profile's name", metavar="FOLDER")
    cluster_id: str = _setting("", "name of the cluster, where a profile has several", metavar="ID")

    @property
    def folder(self) -> Path:
        """The profile folder."""
        return profile_folder(self.profile, self.profile_dir)


class ControllerSettings(Settings):
    """Settings of the controller."""

    ROLE: ClassVar[str] = "controller"

    ip: str = _setting(
        "127.0.0.1", "address or interface to listen on; '*': all; '': no TCP, only the Unix socket", metavar="ADDRESS"
    )
    port: int = _setting(0, "TCP port; 0: any free one")
    location: str = _setting("", "name or address by which others reach this host (default: found out)")
    policy: str = _setting(
        "leastload", "which engine gets the next balanced task: leastload, lru, plainrandom, twobin, weighted, or any "
        "file of ippmpi.policies", metavar="NAME",
    )  # fmt: skip
    store: str = _setting(
        "disk", "disk: requests and results are recorded, so a killed controller can go on; none: nothing is. A little "
        "faster, but a kill of the controller then costs all unfinished tasks and all results not yet fetched",
        metavar="WHERE",
    )  # fmt: skip
    store_dir: str = _setting(
        "", "folder on a local disk for records and large contents; records there outlive the controller "
        "(default: a private folder in /tmp, removed at the end)", metavar="FOLDER",
    )  # fmt: skip
    store_requests: int = _setting(100_000, "requests of which records are kept; what finished first goes first")
    store_bytes: int = _setting(1 << 30, "bytes of records (labels, small values, failures) that are kept")
    store_age_s: float = _setting(30 * 86400.0, "seconds for which records are kept", metavar="SECONDS")
    cache_dir: str = _setting(
        "", "folder on a local disk for results of calls with cache=; they outlive the controller, and all of this "
        "user's controllers on this host share them (default: store_dir, or /var/tmp/ippmpi-<uid>-cache)",
        metavar="FOLDER",
    )  # fmt: skip
    cache_entries: int = _setting(100_000, "results that are cached; beyond, what was used longest ago goes first")
    cache_bytes: int = _setting(1 << 30, "bytes of cached results; one that is larger than a quarter is not cached")
    cache_age_s: float = _setting(
        30 * 86400.0, "seconds for which a cached result is kept after its last use", metavar="SECONDS"
    )
    spool_bytes: int = _setting(16 << 30, "bytes of large contents that may be on their way through the controller")
    away_bytes: int = _setting(
        16 << 20, "bytes of results and output that wait in memory for one client; more are read from the store later"
    )
    client_gone_s: float = _setting(
        7 * 86400.0, "seconds a client may be away before its work is dropped", metavar="SECONDS"
    )
    upload_gone_s: float = _setting(
        30.0, "seconds a client may be away in the middle of an upload before that task fails", metavar="SECONDS"
    )
    agent_gone_s: float = _setting(12.0, "seconds a node may be silent before its engines are lost", metavar="SECONDS")
    stop_timeout_s: float = _setting(8.0, "seconds engines may take to end at a normal stop", metavar="SECONDS")
    log_level: str = _setting("info", "least severe messages that are logged: debug, info, warning, error")


class AgentSettings(Settings):
    """Settings of the agents."""

    ROLE: ClassVar[str] = "agent"

    transport: str = _setting("auto", "auto: the controller's Unix socket on its own host, else TCP; tcp: always TCP")
    controller_wait_s: float = _setting(
        900.0, "seconds without a controller after which the engines are stopped", metavar="SECONDS"
    )
    log_level: str = _setting("info", "least severe messages that are logged: debug, info, warning, error")


class EngineSettings(Settings):
    """Settings of the engines."""

    ROLE: ClassVar[str] = "engine"

    startup_folder: str = _setting(
        "startup", "folder of files (*.py, *.ipy) that every engine runs at its start, in the order of their names; "
        "in the profile folder unless absolute; '': none", metavar="FOLDER",
    )  # fmt: skip
    startup_script: str = _setting("", "one more such file", flags=("-s",), metavar="FILE")
    startup_command: str = _setting(
        "", "code that every engine runs at its start, after the files", flags=("-c",), metavar="CODE"
    )
    file_wait_s: float = _setting(
        10.0, "seconds for which 'ipengine' waits for the controller's connection file", metavar="SECONDS"
    )
    log_level: str = _setting("info", "least severe messages that are logged: debug, info, warning, error")


class ClientSettings(Settings):
    """Settings of clients."""

    ROLE: ClassVar[str] = "client"

    timeout_s: float = _setting(10.0, "seconds to wait for the controller when connecting", metavar="SECONDS")


class ClusterSettings(Settings):
    """Settings of the one who starts and stops a cluster."""

    ROLE: ClassVar[str] = "cluster"

    n: int = _setting(0, "number of engines; 0: one per core of this machine", flags=("-n",))
    engines: str = _setting("mpi", "launcher of the engines, a file of ippmpi.launchers (any case)", metavar="LAUNCHER")
    controller: str = _setting(
        "local", "launcher of the controller: local, a process of this machine", metavar="LAUNCHER"
    )
    mpiexec: str = _setting("", "the mpiexec to use (default: this Python's own, then PATH)", metavar="PROGRAM")
    mpi_args: tuple[str, ...] = _setting((), "more options for mpiexec", metavar="OPTION,...")
    hosts: tuple[str, ...] = _setting((), "hosts with their numbers of ranks, as c1:2,c2:2", metavar="HOST[:N],...")
    controller_ip: str = _setting(
        "", "address or interface the controller listens on (default: loopback, or routable if engines are remote)",
        flags=("--ip",), metavar="ADDRESS",
    )  # fmt: skip
    controller_location: str = _setting("", "name or address of this host for others", flags=("--location",))
    controller_args: tuple[str, ...] = _setting((), "more options for 'ipcontroller'", metavar="OPTION,...")
    work_dir: str = _setting("", "folder in which engines start (default: the current one)", metavar="FOLDER")
    restart: str = _setting("never", "always: a set of engines that ends by itself is started again, see the manual")
    start_timeout_s: float = _setting(30.0, "seconds a controller may take to start", metavar="SECONDS")
    engine_timeout_s: float = _setting(60.0, "seconds engines may take to join", metavar="SECONDS")
    stop_timeout_s: float = _setting(
        5.0, "seconds a normal stop may take before processes are killed", metavar="SECONDS"
    )
    log_level: str = _setting("info", "least severe messages that the controller logs: debug, info, warning, error")


ROLES: tuple[type[Settings], ...] = (
    ControllerSettings,
    AgentSettings,
    EngineSettings,
    ClientSettings,
    ClusterSettings,
)

S = TypeVar("S", bound=Settings)

# --- loading -------------------------------------------------------------------------------------


def load(
    settings: type[S],
    overrides: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    below: Callable[[Path], Mapping[str, object]] | None = None,
    file: bool = True,
) -> S:
    """Make the settings of a role; *overrides* (command line or keyword arguments; None: not given) win.

    *below* is asked for the values under all others, given the profile folder. ``file=False`` reads no file.

    Raises:
        ValueError: a value has the wrong type, or the file has a setting that does not exist.
    """
    given = {k: v for k, v in (overrides or {}).items() if v is not None}
    values = _from_environment(settings, os.environ if environ is None else environ)
    if given.get("profile") and "profile_dir" not in given:
        values.pop("profile_dir", None)
    values |= _typed(settings, given, "argument")
    where = settings(**{k: v for k, v in values.items() if k in _LOCATION})
    if file:
        values = _from_file(settings, where.folder / FILE_NAME) | values
    if below is not None:
        lowest = {k: v for k, v in below(where.folder).items() if k in settings.FIELDS and k not in _LOCATION}
        values = _typed(settings, lowest, "configuration file:") | values
    return settings(**values)


_LOCATION = ("profile", "profile_dir", "cluster_id")


def variable(settings: type[Settings], name: str) -> str:
    """Return the name of the environment variable of a setting."""
    return f"IPPMPI_{settings.ROLE}_{name}".upper()


KNOWN_VARIABLES: Mapping[str, Mapping[str, str]] = {
    "controller": {"IPP_PROFILE_DIR": "profile_dir", "IPP_CLUSTER_ID": "cluster_id", "IPP_CONTROLLER_IP": "ip"},
    "engine": {"IPP_PROFILE_DIR": "profile_dir", "IPP_CLUSTER_ID": "cluster_id"},
    "cluster": {"IPP_CONTROLLER_IP": "controller_ip"},
}
"""Variables of ipyparallel that are settings, by role; our own come first."""

CONNECTION_VARIABLE = "IPP_CONNECTION_INFO"
"""May hold the fields of an engines' connection file, for ``ipengine``. It is read, and never written: it has a key."""


def _from_environment(settings: type[Settings], environ: Mapping[str, str]) -> dict[str, Any]:
    names = {**KNOWN_VARIABLES.get(settings.ROLE, {}), **{variable(settings, n): n for n in settings.FIELDS}}
    values: dict[str, Any] = {}
    for key in [name for name in names if name in environ]:  # the later wins
        values |= _typed(settings, {names[key]: environ[key]}, f"environment variable {key}:")
    return values


def _from_file(settings: type[Settings], file: Path) -> dict[str, Any]:
    try:
        text = file.read_text()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    import tomllib

    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{file}: {error}") from None
    unknown = tables.keys() - {role.ROLE for role in ROLES}
    if unknown:
        raise ValueError(f"{file}: no table [{min(unknown)}]; have {', '.join(f'[{r.ROLE}]' for r in ROLES)}")
    return _typed(settings, tables.get(settings.ROLE, {}), f"{file}, [{settings.ROLE}]:")


def _typed(settings: type[Settings], values: Mapping[str, object], where: str) -> dict[str, Any]:
    if not values:
        return {}
    hints = get_type_hints(settings)
    for name in values:
        if name not in settings.FIELDS:
            raise ValueError(f"{where} no setting {name!r} of the {settings.ROLE}; have {', '.join(settings.FIELDS)}")
    return {name: _convert(value, hints[name], f"{where} {name}") for name, value in values.items()}


def _convert(value: object, kind: Any, where: str) -> object:
    if get_args(kind):
        parts = value.split(",") if isinstance(value, str) else value
        if isinstance(parts, list | tuple) and all(isinstance(p, str) for p in parts):
            return tuple(p.strip() for p in parts if p.strip())
        raise ValueError(f"{where} must be a list of texts, not {value!r}")
    if kind is str and isinstance(value, str | Path):
        return str(value)
    if kind in (int, float) and isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            number = float(value) if kind is float else int(value)
        except ValueError:
            number = None
        if number is not None and (isinstance(value, str) or number == value):
            return number
    raise ValueError(f"{where} must be {kind.__name__}, not {value!r}")


# --- for the command line and the manual ---------------------------------------------------------


class Option(NamedTuple):
    """One setting as a command line option."""

    name: str
    flags: tuple[str, ...]
    kind: Any
    default: object
    text: str
    metavar: str


def options(settings: type[Settings]) -> list[Option]:
    """Return the settings of a role as options, in order."""
    hints = get_type_hints(settings)
    return [
        Option(
            name=name,
            flags=(*field.flags, "--" + name.removesuffix("_s").replace("_", "-")),
            kind=hints[name],
            default=field.default,
            text=field.text,
            metavar=field.metavar,
        )
        for name, field in settings.FIELDS.items()
    ]


def table() -> str:
    """Return all settings as a Markdown table, for the manual."""
    lines = ["| setting | option | environment | default | meaning |", "|---|---|---|---|---|"]
    for role in ROLES:
        for o in options(role):
            default = repr(o.default) if o.default != () else "none"
            option = ", ".join(f"`{flag}`" for flag in o.flags)
            lines.append(
                f"| `[{role.ROLE}] {o.name}` | {option} | `{variable(role, o.name)}` | `{default}` | {o.text} |"
            )
    return "\n".join(lines) + "\n"


# --- folders and environments --------------------------------------------------------------------


def ipython_folder() -> Path:
    """Return the folder of the IPython profiles: ``$IPYTHONDIR`` or ``~/.ipython``."""
    return Path(os.environ.get("IPYTHONDIR") or "~/.ipython").expanduser()


def use_ipython_folder(folder: str | Path) -> None:
    """Let *folder* be that of the IPython profiles for this process, and for those that it starts."""
    os.environ["IPYTHONDIR"] = str(Path(folder).expanduser().absolute())


def take_connection_variable() -> str:
    """Return what ``IPP_CONNECTION_INFO`` holds, "" without it; programs that are started from now on do not get it."""
    return os.environ.pop(CONNECTION_VARIABLE, "")


def quiet() -> bool:
    """Say whether ``IPP_NONINTERACTIVE`` asks for no progress bars, also in IPython."""
    return os.environ.get("IPP_NONINTERACTIVE", "") not in ("", "0")


def profile_folder(profile: str | None = None, profile_dir: str | Path | None = None) -> Path:
    """Return the absolute profile folder: *profile_dir* if given, else that of *profile* (default: ``default``)."""
    if profile_dir:
        return Path(profile_dir).expanduser().absolute()
    return (ipython_folder() / f"profile_{profile or 'default'}").absolute()


def profile_folders() -> list[Path]:
    """Return the folders of all profiles that exist."""
    return sorted(p.absolute() for p in ipython_folder().glob("profile_*") if p.is_dir())


def python_startup() -> str:
    """Return the file that interactive interpreters run at their start, as ``$PYTHONSTARTUP`` says, or ""."""
    return os.environ.get("PYTHONSTARTUP", "")


# What tells a process that it is a rank of somebody's MPI job. A program that starts with these
# believes to be that rank, so a new mpiexec or agent must not inherit them; the user's own tuning
# (OMPI_MCA_*, PMIX_MCA_*, *_ALLOW_RUN_AS_ROOT) stays.
_RANK_VARIABLES = re.compile(
    r"PMI_|PMI2_|PMIX_(?!MCA_)|OMPI_(?!MCA_|ALLOW_)|OMPI_MCA_(ess|orte)_|PRTE_(?!MCA_|ALLOW_)|HYDI_|HYDRA_CONTROL_FD$|MPI_LOCAL|MPIR_PROCDESC"
)


def child_environment(
    extra: Mapping[str, str] | None = None, environ: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the environment for a process to start: this one, not as an MPI rank, with *extra* added."""
    here = os.environ if environ is None else environ
    return {k: v for k, v in here.items() if not _RANK_VARIABLES.match(k)} | dict(extra or {})


def replace(settings: S, **changes: object) -> S:
    """Return a copy of *settings* with some values changed, checked as in ``load``."""
    return type(settings)(**vars(settings) | _typed(type(settings), changes, "argument"))
