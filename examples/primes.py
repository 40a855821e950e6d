"""Count primes in parallel: each rank sieves its part of the numbers, called like an ordinary function."""

from __future__ import annotations

import numpy as np

import ippmpi as ipp

LIMIT = 5_000_000
COUNT = 348_513
"""Primes below ``LIMIT``, as tables say."""


def small_primes(limit: int) -> np.ndarray:
    """Return the primes below *limit*: the sieve of Eratosthenes."""
    sieve = np.ones(limit, dtype=bool)
    sieve[:2] = False
    for n in range(2, int(limit**0.5) + 1):
        if sieve[n]:
            sieve[n * n :: n] = False
    return np.flatnonzero(sieve)


def primes_among(numbers: range) -> np.ndarray:
    """Return the primes among *numbers*, which are consecutive: strike out the multiples of the small ones."""
    first, end = numbers.start, numbers.stop
    sieve = np.ones(end - first, dtype=bool)
    sieve[: max(0, 2 - first)] = False
    for p in small_primes(int(end**0.5) + 1):
        sieve[max(p * p, -(-first // p) * p) - first :: p] = False
    return np.flatnonzero(sieve) + first


def main() -> None:
    """Find them on all ranks."""
    with ipp.Cluster(n=4) as rc:
        ranks = rc[:]
        primes = ranks.parallel(block=True)(primes_among)
        found = primes(range(LIMIT))  # cut into one part per rank; the arrays that come back are joined
        largest = ranks.remote(block=True)(lambda numbers: int(numbers.max()))
        assert largest(found) == [int(found[-1])] * len(ranks)

    print(f"{len(found):,} primes below {LIMIT:,}, the last ones {', '.join(map(str, found[-3:]))}")
    assert len(found) == COUNT
    assert (np.diff(found) > 0).all()


if __name__ == "__main__":
    main()
