"""The arguments of ``Cluster(...)``: settings, under the names that people know, and what is said only there."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ippmpi import config
from ippmpi.config import ClusterSettings
from ippmpi.traits.files import of_config, of_profile
from ippmpi.traits.values import launcher_name, level

log = logging.getLogger(__name__)

_NAMES = {"engine_launcher_class": "engines", "controller_launcher_class": "controller"}

UNNEEDED = ("delay", "send_engines_connection_env", "log", "parent")
"""Accepted. Engines start once the controller has said that it is ready, keys are never in the environment, the log is
that of the ``logging`` module, and there is no tree of configurable objects."""


class Extra(NamedTuple):
    """What is no setting. ``cluster_file``: None for the usual one, "" for none."""

    environment: Mapping[str, str]
    cluster_file: str | Path | None = None


def full_names(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return *options* by their full names (``engine_timeout`` is ``engine_timeout_s``).

    Raises:
        TypeError: there is no such option, or one is said twice.
    """
    names = ClusterSettings.FIELDS.keys()
    full: dict[str, Any] = {}
    for key, value in options.items():
        known = _NAMES.get(key, key)
        name = known if known in names else f"{known}_s"
        if name not in names:
            have = ", ".join(sorted({*names, *_NAMES, *UNNEEDED, "cluster_file", "config", "load_profile"}))
            raise TypeError(f"Cluster has no option {key!r}; have {have}")
        if value is None:
            continue
        if name in full:
            raise TypeError(f"Cluster got {key!r} twice: under two names")
        full[name] = _converted(name, value)
    return full


def _converted(name: str, value: Any) -> Any:
    if name in ("engines", "controller"):
        return launcher_name(value) if isinstance(value, str) else import_string(value)
    if name == "log_level":
        return level(value)
    return value


def import_string(launcher: type) -> str:
    """Return the text by which a class of launchers is found again, also in another process."""
    return f"{launcher.__module__}.{launcher.__qualname__}"


def settings_and_more(
    options: Mapping[str, Any], environment: Mapping[str, str] | None
) -> tuple[ClusterSettings, Extra]:
    """Return the settings that *options* ask for, and the rest.

    Under them are the configuration (``config``), then the files of the profile, unless ``load_profile`` is False.

    Raises:
        TypeError: there is no such option.
        ValueError: a value is wrong.
    """
    given = dict(options)
    for name in UNNEEDED:
        given.pop(name, None)
    load_profile = bool(given.pop("load_profile", True))
    configured = of_config(given.pop("config", None) or {}, ClusterSettings, "the argument 'config'")
    file = given.pop("cluster_file", None)
    full = {**_settings_of(configured), **full_names(given)}
    below: dict[str, Any] = {}

    def read(folder: Path) -> Mapping[str, object]:
        below.update(of_profile(folder, ClusterSettings) if load_profile else {})
        return below

    settings = config.load(ClusterSettings, full, below=read, file=load_profile)
    if settings.controller.lower() not in ("local", "mpi"):
        raise ValueError(
            f"controller={settings.controller!r}: the controller is a process of this machine ('local'); to have it "
            "elsewhere, start 'ipcontroller' there"
        )
    variables = {**below.get("environment", {}), **configured.get("environment", {}), **(environment or {})}
    return settings, Extra(variables, file)


def _settings_of(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name in ClusterSettings.FIELDS}
