"""A graph of tasks: each starts when those it needs have succeeded, and not at all if one of them failed.

``after`` says when a task may start, ``follow`` also where: on the rank that has what it needs.
"""

from __future__ import annotations

import os

import ippmpi as ipp

NEEDS = {
    "fetch": [],
    "configure": ["fetch"],
    "core": ["configure"],
    "plots": ["configure"],
    "docs": ["fetch"],
    "link": ["core", "plots"],
    "test": ["link"],
    "package": ["test", "docs"],
}
"""What must be done before what; tasks are named after those they need."""


def work(name: str) -> str:
    """Do one thing, which takes a moment."""
    import time

    time.sleep(0.05)
    return name


def fail() -> None:
    """Do it wrong."""
    raise RuntimeError("the disk is full")


def in_order(farm: ipp.LoadBalancedView) -> None:
    """Submit the whole graph at once; look at the times when each began and ended."""
    results: dict[str, ipp.AsyncResult] = {}
    for name, needs in NEEDS.items():
        with farm.temp_flags(after=[results[need] for need in needs]):
            results[name] = farm.apply_async(work, name)
    for name, needs in NEEDS.items():
        assert results[name].get(timeout=30) == name
        for need in needs:
            assert results[need].completed <= results[name].started, f"{name} did not wait for {need}"
    first = min(result.started for result in results.values())
    for name, result in sorted(results.items(), key=lambda item: item[1].started):
        print(f"  {(result.started - first).total_seconds():5.2f} s  {name:9s} on rank {result.engine_id}")


def in_one_place(farm: ipp.LoadBalancedView) -> None:
    """Let tasks go where the first one went."""
    first = farm.apply_async(os.getpid)
    with farm.temp_flags(follow=first):
        others = [farm.apply_async(os.getpid) for _ in range(10)]
    assert {other.get(timeout=30) for other in others} == {first.get()}


def not_at_all(farm: ipp.LoadBalancedView) -> str:
    """Need something that fails."""
    failing = farm.apply_async(fail)
    with farm.temp_flags(after=failing):
        never = farm.apply_async(work, "never")
    with farm.temp_flags(after=ipp.Dependency(failing, success=False, failure=True)):
        rescue = farm.apply_async(work, "rescue")
    assert rescue.get(timeout=30) == "rescue"
    try:
        never.get(timeout=30)
    except ipp.ImpossibleDependency as error:
        return str(error)
    raise AssertionError("it ran although what it needs failed")


def main() -> None:
    """Show the three."""
    with ipp.Cluster(n=4) as rc:
        farm = rc.load_balanced_view()
        print("a build, step by step:")
        in_order(farm)
        in_one_place(farm)
        print("ten tasks followed the first one to its rank")
        print(f"a task that cannot run says why:\n  {not_at_all(farm)}")


if __name__ == "__main__":
    main()
