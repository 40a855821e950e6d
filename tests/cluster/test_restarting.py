"""How often, and how soon, a set is started again."""

from __future__ import annotations

from ippmpi.cluster.restarting import FIRST_PAUSE_S, MOST, WINDOW_S, Restarts


def test_the_first_restart_is_at_once_and_the_pauses_grow() -> None:
    restarts = Restarts()
    now, gaps = 100.0, []
    for _ in range(MOST):
        start = now
        while not restarts.due("0", now):
            now += 0.25
        gaps.append(now - start)
    assert gaps == [0.0, *(FIRST_PAUSE_S * 2**i for i in range(MOST - 1))]


def test_a_set_that_ends_too_often_is_given_up_for_a_while() -> None:
    restarts = Restarts()
    times = [100.0 + 50 * i for i in range(MOST)]
    assert all(restarts.due("0", now) for now in times)
    assert not restarts.due("0", times[-1] + 100)
    assert restarts.due("1", times[-1] + 100)
    assert restarts.due("0", times[0] + WINDOW_S + 1)
