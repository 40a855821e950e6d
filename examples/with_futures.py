"""What is written for ``concurrent.futures`` runs on ranks too: an executor, futures, ``wait``, ``as_completed``."""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Executor, ThreadPoolExecutor, as_completed, wait

import ippmpi as ipp


def collatz_steps(n: int) -> int:
    """Return how many steps it takes from *n* to 1: halve even numbers, triple odd ones and add 1."""
    if n < 1:
        raise ValueError(f"{n} is not positive")
    steps = 0
    while n != 1:
        n, steps = (n // 2 if n % 2 == 0 else 3 * n + 1), steps + 1
    return steps


def longest(executor: Executor, numbers: range) -> tuple[int, int]:
    """Return the most steps, and the number that takes them. Any executor will do."""
    return max(zip(executor.map(collatz_steps, numbers, chunksize=250), numbers, strict=True))


def main() -> None:
    """Do the same with threads and with ranks, then look at single futures."""
    numbers = range(1, 5000)
    with ThreadPoolExecutor() as threads:
        expected = longest(threads, numbers)

    with ipp.Cluster(n=4) as rc, rc.executor() as ranks:
        steps, number = longest(ranks, numbers)
        print(f"below {numbers.stop:,}, {number} takes the most steps: {steps}")
        assert (steps, number) == expected

        starts = {ranks.submit(collatz_steps, n): n for n in (27, 97, 871, 6171)}
        for future in as_completed(starts, timeout=30):
            print(f"  {starts[future]:5d} takes {future.result()}")
        assert [future.result() for future in starts] == [111, 118, 178, 261]

        wrong = ranks.submit(collatz_steps, -1)
        done, waiting = wait([wrong], timeout=30, return_when=FIRST_COMPLETED)
        assert (done, waiting) == ({wrong}, set())
        print(f"an error is the future's: {wrong.exception()}")
        assert "-1 is not positive" in str(wrong.exception())


if __name__ == "__main__":
    main()
