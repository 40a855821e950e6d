from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ippmpi.traits import values


class LocalEngineSetLauncher:
    """As a class of ipyparallel is given."""


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("mpi", "mpi"),
        ("MPI", "MPI"),
        ("MPIEngineSetLauncher", "mpi"),
        ("ipyparallel.cluster.launcher.MPIEngineSetLauncher", "mpi"),
        ("ipyparallel.apps.launcher.MPIExecEngineSetLauncher", "mpi"),
        ("SlurmEngineSetLauncher", "slurm"),
        ("PBSControllerLauncher", "pbs"),
        (LocalEngineSetLauncher, "local"),
        ("my.module.Special", "my.module.Special"),
    ],
)
def test_a_launcher_of_ipyparallel_has_the_name_of_ours(given: object, name: str) -> None:
    assert values.launcher_name(given) == name


@pytest.mark.parametrize(
    ("given", "words"),
    [("['-a', 'b c']", ("-a", "b c")), ("-a b", ("-a", "b")), (["-a"], ("-a",)), ("", ()), ("3", ("3",))],
)
def test_words_are_lists_also_as_text(given: object, words: tuple[str, ...]) -> None:
    assert values.texts(given) == words


@pytest.mark.parametrize(
    ("convert", "given", "result"),
    [
        (values.truth, "True", True),
        (values.truth, False, False),
        (values.level, "DEBUG", "debug"),
        (values.level, 10, "debug"),
        (values.level, "30", "warning"),
        (values.program, ["mpirun"], "mpirun"),
        (values.scheme, "lru", "lru"),
        (values.store, "NoDB", "none"),
        (values.store, "ipyparallel.controller.sqlitedb.SQLiteDB", "disk"),
        (values.transport, "ipc", ""),
        (values.transport, "tcp", None),
    ],
)
def test_values_become_ours(convert: Callable[[Any], object], given: object, result: object) -> None:
    assert convert(given) == result


@pytest.mark.parametrize(
    ("convert", "given", "text"),
    [
        (values.truth, "maybe", "must be True or False, not 'maybe'"),
        (values.program, ["mpirun", "-v"], "must be one program.*its options are mpi_args"),
        (values.scheme, "pure", "'pure' is not among the policies"),
        (values.store, "MongoDB", "MongoDB is not supported"),
        (values.transport, "udp", "must be tcp or ipc"),
    ],
)
def test_what_cannot_be_is_said(convert: Callable[[Any], object], given: object, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        convert(given)
