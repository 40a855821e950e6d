from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ippmpi.client.partition import block_bounds, columns, join, split

dists = st.sampled_from(["b", "r"])


@given(st.lists(st.integers()), st.integers(1, 9), dists)
def test_joining_what_was_split_gives_the_list_back(items: list[int], pieces: int, dist: str) -> None:
    parts = split(items, pieces, dist)
    assert len(parts) == pieces
    assert join(parts, dist) == items


@given(st.integers(0, 40), st.integers(1, 3), st.integers(1, 9), dists)
def test_joining_what_was_split_gives_the_array_back(rows: int, width: int, pieces: int, dist: str) -> None:
    array = np.arange(rows * width, dtype=float).reshape(rows, width)
    joined = join(split(array, pieces, dist), dist)
    assert joined.dtype == array.dtype
    np.testing.assert_array_equal(joined, array)


@given(st.integers(0, 40), st.integers(1, 9), dists)
def test_pieces_of_a_range_join_to_a_flat_list(length: int, pieces: int, dist: str) -> None:
    assert join(split(range(length), pieces, dist), dist) == list(range(length))


@given(st.integers(0, 1000), st.integers(1, 50))
def test_blocks_are_contiguous_and_the_first_ones_are_one_longer(length: int, pieces: int) -> None:
    bounds = block_bounds(length, pieces)
    sizes = [stop - start for start, stop in bounds]
    assert [start for start, _ in bounds] == [0, *(stop for _, stop in bounds[:-1])]
    assert bounds[-1][1] == length
    assert sizes == sorted(sizes, reverse=True)
    assert max(sizes) - min(sizes) <= 1


def test_pieces_of_an_array_are_views_of_it() -> None:
    array = np.zeros(10)
    assert all(piece.base is array for piece in split(array, 3))


def test_pieces_of_another_kind_come_back_as_a_list_of_pieces() -> None:
    assert join(["ab", "cd"]) == ["ab", "cd"]
    assert join([1, 2]) == [1, 2]
    assert join([[1], "cd"]) == [[1], "cd"]


def test_an_unknown_distribution_is_named() -> None:
    with pytest.raises(ValueError, match="distribution 'x'; have 'b'"):
        split([1], 1, "x")


def test_the_shortest_sequence_of_a_map_counts_and_an_endless_one_is_fine() -> None:
    ready, length = columns([itertools.count(), "abc", [1, 2, 3, 4]])
    assert length == 3
    assert ready[0] == [0, 1, 2]


def test_a_map_without_sequences_is_refused() -> None:
    with pytest.raises(TypeError, match="at least one sequence"):
        columns([])
