"""What the configuration traits of ipyparallel (``--Class.trait=value``) mean here: a table.

A trait is a setting of ours, or not needed, or cannot be had; the table says why, and what to do instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ippmpi.config import ClusterSettings, ControllerSettings, EngineSettings, Settings

from .values import launcher_name, level, program, same, scheme, store, texts, transport, truth


class Meaning(NamedTuple):
    """What becomes of a trait: ``setting`` (the name of ours), or ``unneeded`` (why), or ``refused`` (what instead)."""

    setting: str = ""
    unneeded: str = ""
    refused: str = ""
    convert: Callable[[Any], object] = same


LIVENESS = (
    "how processes are watched is not set by periods of a heartbeat ([controller] agent_gone_s is for lost hosts)"
)
_ONE_PORT = "one port is enough: --port"
KEYS = "keys are in the connection files, made anew at each start"
NO_LOGGER = "no log is sent anywhere; what is logged is in the profile's log folder (--log-to-file)"
ALWAYS = "it is always so"

_APPLICATION = {
    "log_level": Meaning("log_level", convert=level),
    "profile": Meaning("profile"),
    "work_dir": Meaning("work_dir"),
    "cluster_id": Meaning("cluster_id"),
    "log_to_file": Meaning("log_to_file", convert=truth),
    "clean_logs": Meaning(unneeded="logs of what has ended well are removed"),
    "auto_create": Meaning(unneeded="the profile folder is made when it is missing"),
    "log_url": Meaning(refused=NO_LOGGER),
}

_CLUSTER = {
    "n": Meaning("n"),
    "engines": Meaning("engines", convert=launcher_name),
    "engine_launcher_class": Meaning("engines", convert=launcher_name),
    "controller": Meaning("controller", convert=launcher_name),
    "controller_launcher_class": Meaning("controller", convert=launcher_name),
    "controller_ip": Meaning("controller_ip"),
    "controller_location": Meaning("controller_location"),
    "controller_args": Meaning("controller_args", convert=texts),
    "engine_timeout": Meaning("engine_timeout_s"),
    "profile_dir": Meaning("profile_dir"),
    "daemonize": Meaning("daemonize", convert=truth),
    "delay": Meaning(unneeded="engines start as soon as the controller is ready, which it says"),
    "early_shutdown": Meaning(unneeded="engines that cannot start are reported at once"),
    "send_engines_connection_env": Meaning(unneeded="keys are never in the environment, but in files of their owner"),
    "shutdown_atexit": Meaning(unneeded="a cluster of this command ends with it, unless --daemonize"),
    "reset": Meaning(unneeded="nothing of ipyparallel's is kept"),
}

_LAUNCHER = {
    "mpi_cmd": Meaning("mpiexec", convert=program),
    "mpi_args": Meaning("mpi_args", convert=texts),
    "environment": Meaning("environment"),
    "stop_timeout": Meaning("stop_timeout_s"),
    "output_limit": Meaning(unneeded="an error shows the last 50 lines, the log file has all"),
    "delay": Meaning(unneeded="engines start together"),
    "engine_args": Meaning(refused="options of engines are in ippmpi.toml, [engine]"),
    "controller_args": Meaning("controller_args", convert=texts),
    "engine_cmd": Meaning(refused="engines run with this Python; options of mpiexec are mpi_args"),
    "controller_cmd": Meaning(refused="the controller runs with this Python"),
}

_CONTROLLER = {
    "ip": Meaning("ip"),
    "engine_ip": Meaning("ip"),
    "client_ip": Meaning("ip"),
    "monitor_ip": Meaning("ip"),
    "transport": Meaning("ip", convert=transport),
    "engine_transport": Meaning("ip", convert=transport),
    "client_transport": Meaning("ip", convert=transport),
    "monitor_transport": Meaning("ip", convert=transport),
    "location": Meaning("location"),
    "ports": Meaning("ports"),
    "engine_ports": Meaning("ports"),
    "client_ports": Meaning("ports"),
    "regport": Meaning("port"),
    **dict.fromkeys(("hb", "mux", "task", "control", "iopub"), Meaning(refused=_ONE_PORT)),
    **dict.fromkeys(("mon_port", "notifier_port"), Meaning(refused=_ONE_PORT)),
    "reuse_files": Meaning(
        unneeded="keys are new at each start, so copied files must be copied again; after a kill --restore goes on "
        "with the same files, keys and port"
    ),
    "restore_engines": Meaning("restore", convert=truth),
    "use_threads": Meaning(unneeded="the controller is one process"),
    "ssh_server": Meaning(refused="say it where the client is: Client(sshserver=...)"),
    "engine_ssh_server": Meaning(refused="engines connect to the controller's address: --ip, --location"),
    "db_class": Meaning("store", convert=store),
    "scheme_name": Meaning("policy", convert=scheme),
    "hwm": Meaning(unneeded="how much is handed ahead follows the time that tasks take"),
    "enable_curve": Meaning(unneeded=f"{ALWAYS} between hosts"),
    "curve_secretkey": Meaning(refused=KEYS),
    "curve_publickey": Meaning(refused=KEYS),
    "broadcast_scheduler_depth": Meaning(unneeded="a request travels once per node"),
    "registration_timeout": Meaning(unneeded=LIVENESS),
    "period": Meaning(unneeded=LIVENESS),
    "max_heartmonitor_misses": Meaning(unneeded=LIVENESS),
    "engine_json_file": Meaning(refused="the files are in the profile's security folder: --profile-dir, --cluster-id"),
    "client_json_file": Meaning(refused="the files are in the profile's security folder: --profile-dir, --cluster-id"),
}

_ENGINE = {
    "url_file": Meaning("file"),
    "use_mpi": Meaning("mpi", convert=truth),
    "use": Meaning("mpi", convert=bool),
    "wait_for_url_file": Meaning("file_wait_s"),
    "timeout": Meaning(unneeded="an engine has a minute to join"),
    "url": Meaning(refused="an address is not enough, the file holds the keys: --file"),
    "registration_url": Meaning(refused="an address is not enough, the file holds the keys: --file"),
    "location": Meaning(unneeded="engines connect, nobody connects to them"),
    "ssh": Meaning(refused="engines connect to the controller's address: ipcontroller --ip, --location"),
    "sshkey": Meaning(refused="engines connect to the controller's address: ipcontroller --ip, --location"),
    "paramiko": Meaning(unneeded="engines use no ssh"),
    "mpi_registration_delay": Meaning(unneeded="all ranks of a node register in one message"),
    "id": Meaning(refused="the ids of a world are its ranks, in order"),
    "enable_nanny": Meaning(unneeded="one agent per node watches its engines"),
    "max_heartbeat_misses": Meaning(unneeded="engines wait for a lost controller: [agent] controller_wait_s"),
    "out_stream_factory": Meaning(refused="output is taken from the process itself"),
    "display_hook_factory": Meaning(refused="displays are IPython's"),
}

_SESSION = {
    "key": Meaning(refused=KEYS),
    "keyfile": Meaning(refused=KEYS),
    "session": Meaning(unneeded="it names nothing here"),
    "username": Meaning(unneeded="it names nothing here"),
}

_CLASSES: dict[type[Settings], dict[tuple[str, ...], dict[str, Meaning]]] = {
    ClusterSettings: {
        ("Cluster", "IPCluster", "IPClusterApp", "IPClusterStart", "IPClusterEngines"): _APPLICATION | _CLUSTER,
        ("IPClusterStop", "IPClusterList", "IPClusterClean"): _APPLICATION,
        (
            "BaseLauncher", "EngineLauncher", "ControllerLauncher", "LocalEngineSetLauncher", "LocalControllerLauncher",
            "LocalEngineLauncher", "MPILauncher", "MPIEngineSetLauncher", "MPIControllerLauncher", "MPIExecLauncher",
            "MPIExecEngineSetLauncher", "MPIExecControllerLauncher",
        ): _LAUNCHER,
    },
    ControllerSettings: {
        ("IPController", "IPControllerApp", "HubFactory", "Hub", "HeartMonitor", "TaskScheduler"): (
            _APPLICATION | _CONTROLLER
        ),
        ("Session",): _SESSION,
    },
    EngineSettings: {
        ("IPEngine", "IPEngineApp", "EngineFactory", "MPI"): _APPLICATION | _ENGINE,
        ("Session",): _SESSION,
    },
}  # fmt: skip

_EVERYWHERE = {"ProfileDir.location": Meaning("profile_dir"), "BaseIPythonApplication.profile": Meaning("profile")}


def meaning(role: type[Settings], name: str) -> Meaning | None:
    """Return what trait *name* (``Class.trait``) means for *role*; None if it is not known there."""
    if name in _EVERYWHERE:
        return _EVERYWHERE[name]
    owner, _, trait = name.partition(".")
    for owners, traits in _CLASSES.get(role, {}).items():
        if owner in owners and trait in traits:
            return traits[trait]
    return None


def role_of(name: str) -> type[Settings] | None:
    """Return the role that trait *name* is of, the controller's first; None if it is nobody's."""
    return next((role for role in (ControllerSettings, EngineSettings, ClusterSettings) if meaning(role, name)), None)
