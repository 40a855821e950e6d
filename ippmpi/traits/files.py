"""Configuration files of ipyparallel (``ipcluster_config.py`` and others): what they set of ours."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ippmpi.config import ClusterSettings, ControllerSettings, EngineSettings, Settings

from .table import meaning

log = logging.getLogger(__name__)

FILES: dict[type[Settings], str] = {
    ClusterSettings: "ipcluster_config",
    ControllerSettings: "ipcontroller_config",
    EngineSettings: "ipengine_config",
}
"""The configuration files of ipyparallel in a profile folder; without ``.py`` or ``.json``."""


def of_profile(folder: Path, role: type[Settings]) -> dict[str, Any]:
    """Return what the configuration files of ipyparallel in a profile *folder* set for *role*, by our names."""
    found: dict[str, Any] = {}
    for file in _files(folder, role):
        found |= of_file(file, role)
    return found


def has_file(folder: Path, role: type[Settings]) -> bool:
    """Say whether there is a configuration file of ipyparallel for *role*."""
    return bool(_files(folder, role))


def _files(folder: Path, role: type[Settings]) -> list[Path]:
    if role not in FILES:
        return []
    files = [folder / (FILES[role] + ending) for ending in (".py", ".json")]
    return [file for file in files if file.is_file()]


def of_file(file: Path, role: type[Settings]) -> dict[str, Any]:
    """Return what a configuration file of ipyparallel sets for *role*, by our names; log what cannot be had.

    Raises:
        ValueError: the file does not exist, or cannot be read or run.
    """
    from traitlets.config.loader import JSONFileConfigLoader, PyFileConfigLoader

    loader = JSONFileConfigLoader if file.suffix == ".json" else PyFileConfigLoader
    try:
        loaded = loader(file.name, path=str(file.parent)).load_config()
    except Exception as error:  # it is the user's program: anything may come
        raise ValueError(f"{file}: {type(error).__name__}: {error}") from error
    return of_config(loaded, role, str(file))


def of_config(config: Mapping[str, Any], role: type[Settings], where: str) -> dict[str, Any]:
    """Return what a configuration (classes, each with traits) sets for *role*; log what cannot be had."""
    found: dict[str, Any] = {}
    for name, value in _flat(config):
        means = meaning(role, name)
        if means is None:
            log.warning("%s: %s has no meaning here", where, name)
        elif means.refused:
            log.warning("%s: %s is not possible: %s", where, name, means.refused)
        elif means.setting:
            try:
                converted = means.convert(value)
            except ValueError as error:
                raise ValueError(f"{where}: {name} {error}") from None
            if converted is not None:
                found[means.setting] = converted
    return found


def _flat(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for owner, traits in config.items():
        if isinstance(traits, Mapping):
            yield from ((f"{owner}.{trait}", value) for trait, value in traits.items())
