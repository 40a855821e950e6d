"""Values of ipyparallel's configuration traits as values of our settings; each raises ValueError for what is none."""

from __future__ import annotations

import ast
import logging
from collections.abc import Iterable


def same(value: object) -> object:
    """Return *value*."""
    return value


def launcher_name(value: object) -> str:
    """Return our name of a launcher: for ``MPIEngineSetLauncher``, with or without its module, ``mpi``."""
    name = value if isinstance(value, str) else getattr(value, "__name__", str(value))
    short = name.rpartition(".")[2]
    for ending in ("EngineSetLauncher", "ControllerLauncher", "EngineLauncher", "Launcher"):
        short = short.removesuffix(ending)
    if short != name.rpartition(".")[2]:
        short = short.lower().removesuffix("exec")
        return "pbs" if short == "torque" else short
    return name


def texts(value: object) -> tuple[str, ...]:
    """Return a list of words: of a list, of a text that is a list in Python, or of words with blanks in between."""
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            value = str(value).split()
    return tuple(str(each) for each in value) if isinstance(value, Iterable) else (str(value),)


def truth(value: object) -> bool:
    """Return what ``True``, ``"true"``, ``"1"`` and their opposites mean; raise ValueError for others."""
    if isinstance(value, bool):
        return value
    text = str(value).lower()
    if text in ("true", "1", "yes"):
        return True
    if text in ("false", "0", "no"):
        return False
    raise ValueError(f"must be True or False, not {value!r}")


def level(value: object) -> str:
    """Return the name of a log level, which may also be a number."""
    text = str(value).lower()
    return str(logging.getLevelName(int(text))).lower() if text.isdecimal() else text


def program(value: object) -> str:
    """Return the one program of a list of words."""
    words = texts(value)
    if len(words) != 1:
        raise ValueError(f"must be one program, not {value!r}; its options are mpi_args")
    return words[0]


def scheme(value: object) -> str:
    """Return the name of a policy."""
    if str(value) == "pure":
        raise ValueError("'pure' is not among the policies: it has no dependencies, retries or targets")
    return str(value)


def store(value: object) -> str:
    """Return whether records are kept (``disk``) or not (``none``), of a database class or its name."""
    name = (value if isinstance(value, str) else getattr(value, "__name__", str(value))).rpartition(".")[2].lower()
    if "mongo" in name:
        raise ValueError("MongoDB is not supported: records are in SQLite, in store_dir")
    return "none" if name in ("nodb", "none") else "disk"


def transport(value: object) -> str | None:
    """Return what a transport means for ``ip``: None for TCP, which changes nothing; "" for no TCP."""
    if str(value) == "ipc":
        return ""  # as ip: no TCP
    if str(value) == "tcp":
        return None
    raise ValueError(f"must be tcp or ipc, not {value!r}")
