from __future__ import annotations

import itertools
import time
from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from ippmpi.client.folding import Folded, fold, fold_neighbours, spans

ITEMS = st.lists(st.tuples(st.integers(0, 5), st.sampled_from("abcd")), max_size=40)


def of_each(items: list[tuple[int, str]]) -> dict[int, list[str]]:
    found = defaultdict(list)
    for rank, what in items:
        found[rank].append(what)
    return dict(found)


def shown(folded: list[Folded[str]]) -> list[tuple[int, str]]:
    return [(rank, what) for ranks, what in folded for rank in ranks]


@given(ITEMS)
def test_nothing_is_lost_and_each_rank_keeps_its_order(items: list[tuple[int, str]]) -> None:
    assert of_each(shown(fold(items))) == of_each(items)
    assert of_each(shown(fold_neighbours(items))) == of_each(items)


@given(ITEMS)
def test_ranks_are_named_in_order_and_once(items: list[tuple[int, str]]) -> None:
    for ranks, _ in fold(items) + fold_neighbours(items):
        assert list(ranks) == sorted(set(ranks))


@given(ITEMS)
def test_equal_neighbours_have_a_rank_in_common(items: list[tuple[int, str]]) -> None:
    for folded in (fold(items), fold_neighbours(items)):
        for one, other in itertools.pairwise(folded):
            assert one.what != other.what or set(one.ranks) & set(other.ranks)


@given(st.lists(st.text("ab", max_size=2), max_size=8), st.sets(st.integers(0, 99), min_size=1))
def test_what_all_show_alike_is_shown_once(lines: list[str], ranks: set[int]) -> None:
    items = [(rank, line) for rank in ranks for line in lines]
    assert fold(items) == [Folded(tuple(sorted(ranks)), line) for line in lines]


@given(ITEMS, st.randoms(use_true_random=False))
def test_in_which_order_ranks_were_heard_does_not_matter(items: list[tuple[int, str]], random: object) -> None:
    ranks = sorted(of_each(items))
    random.shuffle(ranks)  # type: ignore[attr-defined]
    assert fold([(rank, what) for rank in ranks for what in of_each(items)[rank]]) == fold(items)


def test_different_things_are_in_the_order_of_the_ranks() -> None:
    items = [(rank, f"{rank}.{line}") for rank in (2, 0, 1) for line in range(3)]
    assert shown(fold(items)) == sorted(items)


def test_what_others_will_show_later_waits_for_them() -> None:
    items = [(0, "same"), (1, "own 1"), (1, "same"), (2, "own 2"), (2, "same"), (2, "end")]
    assert fold(items) == [
        Folded((1,), "own 1"),
        Folded((2,), "own 2"),
        Folded((0, 1, 2), "same"),
        Folded((2,), "end"),
    ]


def test_those_that_wait_for_each_other_do_not_wait_for_ever() -> None:
    items = [(0, "a"), (0, "b"), (1, "b"), (1, "a")]
    assert fold(items) == [Folded((0,), "a"), Folded((0, 1), "b"), Folded((1,), "a")]


def test_what_is_different_in_between_stays_visible() -> None:
    items = [(rank, "converged" if rank != 3 else "diverged") for rank in range(64)]
    (first, (odd, what)) = fold(items)
    assert (spans(first.ranks), first.what) == ("0-2,4-63", "converged")
    assert (odd, what) == ((3,), "diverged")


def test_only_neighbours_are_joined_where_order_counts() -> None:
    items = [(0, "a"), (1, "a"), (0, "a"), (2, "b"), (1, "b")]
    assert fold_neighbours(items) == [Folded((0, 1), "a"), Folded((0,), "a"), Folded((1, 2), "b")]


def test_ids_are_written_as_spans() -> None:
    assert spans([7, 0, 1, 2, 3, 3]) == "0-3,7"
    assert spans(range(64)) == "0-63"
    assert spans([5]) == "5"
    assert spans([2, 3]) == "2-3"
    assert spans([]) == ""


def test_a_thousand_lines_of_each_of_64_ranks_are_folded_in_a_moment() -> None:
    alike = [(rank, f"step {line}") for rank in range(64) for line in range(1000)]
    mixed = [(rank, f"step {line}" if line % 2 else f"{rank} at {line}") for rank in range(64) for line in range(1000)]
    crossed = [(rank, str((line * (rank + 1)) % 1009)) for rank in range(64) for line in range(1000)]
    for items in (alike, mixed, crossed):
        started = time.process_time()
        folded = fold(items)
        assert time.process_time() - started < 2.0
        assert len(shown(folded)) == len(items)
    assert len(fold(alike)) == 1000
    assert len(fold(mixed)) == 500 + 500 * 64
