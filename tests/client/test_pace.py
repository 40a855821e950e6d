from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ippmpi.client.pace import CHUNK_S, LEAST_S, Pace


def test_without_knowledge_a_task_is_one_item() -> None:
    assert Pace().size(1000, 4) == 1


def test_tasks_double_up_to_a_share_of_what_is_left() -> None:
    pace, seen = Pace(), []
    for _ in range(20):
        seen.append(pace.size(16_000, 4))
        pace.learn(seen[-1], seen[-1] * 3e-6)
    assert seen[:6] == [1, 2, 4, 8, 16, 32]
    assert seen[-1] == 1000


def test_few_short_items_are_not_cut_into_shares() -> None:
    pace = Pace()
    pace.learn(100, 100e-6)
    assert pace.size(150, 4) == 150  # less than LEAST_S of work
    pace.learn(1, LEAST_S)
    assert pace.size(16, 4) == 1


def test_one_long_item_makes_tasks_short_and_is_forgotten_by_and_by() -> None:
    pace = Pace()
    pace.learn(64, 64e-5)
    pace.learn(64, 1.0)
    after = []
    for _ in range(12):
        after.append(pace.size(10**6, 4))
        pace.learn(after[-1], after[-1] * 1e-5)
    assert after[0] == 1
    assert after == sorted(after)
    assert after[-1] > 64


def test_times_that_make_no_sense_are_long() -> None:
    pace = Pace()
    pace.learn(1, -5.0)
    assert pace.size(1000, 4) == 1


@given(st.lists(st.tuples(st.integers(1, 1000), st.floats(-1, 100))), st.integers(1, 10**6), st.integers(1, 20_000))
def test_a_task_is_at_least_one_item_and_never_believed_to_be_long(
    learned: list[tuple[int, float]], left: int, engines: int
) -> None:
    pace = Pace()
    for items, took_s in learned:
        pace.learn(items, took_s)
    size = pace.size(left, engines)
    assert 1 <= size <= left
    if learned and learned[-1][1] > 0 and size > 1:
        assert size * learned[-1][1] / learned[-1][0] <= CHUNK_S * 1.34
