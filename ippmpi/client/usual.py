"""Which pickler clients use that were not told another one: ``ipp.use_dill()`` and its relatives."""

from __future__ import annotations

from ippmpi.wire.picklers import check

_usual = ["auto"]


def usual() -> str:
    """Return the pickler of clients that were not told another one."""
    return _usual[0]


def use_dill() -> None:
    """Have dill pickle the calls of all clients of this process, and their results, unless a view said otherwise.

    Raises:
        ModuleNotFoundError: dill is missing here. (If it is missing on an engine, calls fail there with that.)
    """
    _use("dill")


def use_cloudpickle() -> None:
    """Have cloudpickle do all the work, as ``use_dill``: functions get the client's globals, not the engines'."""
    _use("cloudpickle")


def use_pickle() -> None:
    """Pickle as at the beginning: pickle where that will do, else cloudpickle, with our own functions."""
    _use("auto")


def _use(pickler: str) -> None:
    check(pickler)
    _usual[0] = pickler
