from __future__ import annotations

from ippmpi.controller.shelf import Shelf


def test_the_oldest_go_when_there_is_no_room() -> None:
    dropped: list[int] = []
    shelf = Shelf(10, dropped.append)
    for key in (1, 2, 3, 3):
        shelf.put(key, 4)
    assert dropped == [1]
    shelf.take(2)
    shelf.take(2)
    shelf.put(4, 6)
    assert dropped == [1]
    assert 3 in shelf
    shelf.make_room(lambda: len(dropped) == 2)
    assert dropped == [1, 3]


def test_what_is_put_on_a_crowded_shelf_drops_nothing_yet() -> None:
    dropped: list[int] = []
    shelf = Shelf(10, dropped.append)
    for key in (1, 2, 3):
        shelf.put(key, 6, crowded=True)
    assert dropped == []
    shelf.put(4, 6)
    assert dropped == [1, 2, 3]


def test_what_is_larger_than_the_shelf_goes_at_once() -> None:
    dropped: list[int] = []
    shelf = Shelf(10, dropped.append)
    shelf.put(1, 11)
    assert dropped == [1]
    assert 1 not in shelf
