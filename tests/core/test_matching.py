from __future__ import annotations

import fnmatch
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ippmpi.core.matching import OPERATORS, check, matches

KEYS = ("a", "b", "c")
SCALARS = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-5, 5) | st.sampled_from(["", "x", "xy", "y*"])
VALUES = SCALARS | st.lists(SCALARS, max_size=3)


def operand(operator: str, values: st.SearchStrategy[Any] = VALUES) -> st.SearchStrategy[Any]:
    """Return what an operator may be asked with, about *values*."""
    if operator in ("$in", "$nin", "$all"):
        return st.lists(SCALARS if values is VALUES else values, max_size=4)
    if operator == "$mod":
        return st.tuples(st.integers(1, 4) | st.integers(-4, -1), st.integers(-3, 3)).map(list)
    if operator == "$glob":
        return st.sampled_from(["*", "x*", "?", "", "[xy]", "y[*]"])
    return st.booleans() if operator == "$exists" else values


TESTS = st.lists(st.sampled_from(sorted(OPERATORS)), min_size=1, max_size=3, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: operand(name) for name in names})
)
QUERIES = st.dictionaries(st.sampled_from(KEYS), VALUES | TESTS, max_size=3)
RECORDS = st.fixed_dictionaries(dict.fromkeys(KEYS, VALUES))


def reference(query: dict[str, Any], record: dict[str, Any]) -> bool:
    """Decide the plain way, written without a look at the other."""
    for key, condition in query.items():
        tests = condition if isinstance(condition, dict) else {"$eq": condition}
        for operator, wanted in tests.items():
            if not _meets(record[key], operator, wanted):
                return False
    return True


def _meets(have: Any, operator: str, wanted: Any) -> bool:  # noqa: C901 - one by one, as plainly as possible
    if operator == "$eq":
        return bool(have == wanted)
    if operator == "$ne":
        return bool(have != wanted)
    if operator in ("$lt", "$lte", "$gt", "$gte"):
        if have is None or wanted is None:
            return False
        try:
            less, same = have < wanted, have == wanted
            more = have > wanted
        except TypeError:
            return False
        return bool({"$lt": less, "$lte": less or same, "$gt": more, "$gte": more or same}[operator])
    if operator == "$in":
        return have in wanted
    if operator == "$nin":
        return have not in wanted
    if operator == "$all":
        return isinstance(have, list) and not [one for one in wanted if one not in have]
    if operator == "$mod":
        return isinstance(have, (int, float)) and have % wanted[0] == wanted[1]
    if operator == "$exists":
        return (have is None) != wanted
    return isinstance(have, str) and fnmatch.fnmatchcase(have, wanted)


@settings(deadline=None, max_examples=500)
@given(QUERIES, st.lists(RECORDS, max_size=5))
def test_the_same_records_match_as_in_plain_python(query: dict[str, Any], records: list[dict[str, Any]]) -> None:
    check(query, KEYS)
    for record in records:
        assert matches(query, record.__getitem__) == reference(query, record)


def test_greater_is_greater_and_every_equality_counts() -> None:
    record = {"a": 3, "b": "x", "c": None}.__getitem__
    assert matches({"a": {"$gt": 2}}, record)
    assert not matches({"a": {"$gt": 3}}, record)
    assert matches({"a": 3, "b": "x"}, record)
    assert not matches({"a": 4, "b": "x"}, record)
    assert matches({"a": {"$gte": 3, "$lt": 4}}, record)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({"d": 1}, "no key 'd'; have a, b, c"),
        ({"a": {"$le": 1}}, r"a: no operator '\$le'; have \$eq, \$ne"),
        ({"a": {"$lt": 1, "x": 2}}, "a: no operator 'x'"),
        ({"a": {"$in": 1}}, "needs a list, not 1"),
        ({"a": {"$mod": [0, 1]}}, "divisor"),
        ({"a": {"$mod": [1]}}, "divisor"),
        ({"a": {"$mod": ["x", 1]}}, "divisor"),
        ({"a": {"$glob": 1}}, "pattern"),
    ],
)
def test_what_cannot_be_asked_is_named(query: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        check(query, KEYS)
