"""Conditions on records, as users of ipyparallel and MongoDB write them: ``{"label": "x", "submitted": {"$gt": t}}``.

A record matches if it meets all conditions. A value that is None, and values that cannot be compared, meet no
comparison, but ``$ne`` and ``$nin``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from fnmatch import fnmatchcase
from operator import ge, gt, le, lt
from typing import Any, cast

Test = Callable[[Any, Any], bool]


def _compared(compare: Callable[[Any, Any], object]) -> Test:
    def test(value: Any, wanted: Any) -> bool:
        if value is None or wanted is None:
            return False
        try:
            return bool(compare(value, wanted))
        except TypeError:
            return False

    return test


def _in(value: Any, wanted: Any) -> bool:
    return any(value == each for each in wanted)


def _all(value: Any, wanted: Any) -> bool:
    return isinstance(value, list | tuple) and all(_in(each, value) for each in wanted)


def _mod(value: Any, wanted: Any) -> bool:
    divisor, rest = wanted
    return isinstance(value, int | float) and bool(value % divisor == rest)


def _glob(value: Any, wanted: Any) -> bool:
    return isinstance(value, str) and fnmatchcase(value, wanted)


OPERATORS: dict[str, Test] = {
    "$eq": lambda value, wanted: bool(value == wanted),
    "$ne": lambda value, wanted: bool(value != wanted),
    "$lt": _compared(lt),
    "$lte": _compared(le),
    "$gt": _compared(gt),
    "$gte": _compared(ge),
    "$in": _in,
    "$nin": lambda value, wanted: not _in(value, wanted),
    "$all": _all,
    "$mod": _mod,
    "$exists": lambda value, wanted: (value is not None) == bool(wanted),
    "$glob": _glob,
}
"""``$all``: a list that has all of these. ``$mod``: ``[divisor, rest]``. ``$exists``: is not None, or (False) is."""


def check(query: Mapping[str, object], keys: Collection[str]) -> None:
    """Raise ValueError, with what would be right, if *query* cannot be asked of records that have *keys*."""
    for key, condition in query.items():
        if key not in keys:
            raise ValueError(f"no key {key!r}; have {', '.join(keys)}")
        for operator, wanted in _tests(condition):
            _check(key, operator, wanted)


def _check(key: str, operator: str, wanted: object) -> None:
    if operator not in OPERATORS:
        raise ValueError(f"{key}: no operator {operator!r}; have {', '.join(OPERATORS)}")
    if operator in ("$in", "$nin", "$all") and not isinstance(wanted, list | tuple):
        raise ValueError(f"{key}: {operator} needs a list, not {wanted!r}")
    if operator == "$mod":
        numbers = list(wanted) if isinstance(wanted, list | tuple) else []
        if len(numbers) != 2 or not all(isinstance(number, int | float) for number in numbers) or not numbers[0]:
            raise ValueError(f"{key}: $mod needs [divisor, rest], not {wanted!r}")
    if operator == "$glob" and not isinstance(wanted, str):
        raise ValueError(f"{key}: $glob needs a pattern, not {wanted!r}")


def _tests(condition: object) -> list[tuple[str, object]]:
    """Return the operators and operands of one condition; a plain value means equality."""
    if isinstance(condition, Mapping) and any(str(name).startswith("$") for name in condition):
        return list(cast("Mapping[str, object]", condition).items())
    return [("$eq", condition)]


def matches(query: Mapping[str, object], value_of: Callable[[str], object]) -> bool:
    """Say whether a record, of which *value_of* gives the value of a key, meets *query*, which was checked."""
    return all(
        OPERATORS[operator](value_of(key), wanted)
        for key, condition in query.items()
        for operator, wanted in _tests(condition)
    )
