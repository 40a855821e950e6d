"""Fit a polynomial to e^x through data that never leave the ranks: a tall-skinny QR factorization, as a tree of tasks.

Least squares on [-1, 1] with so many samples is the truncated Legendre series, whose coefficients are known: sinh(1),
3/e, 5/2 (e - 7/e), 7/2 (37/e - 5e). Each block of samples stays where it was made (``keep=True``), is factorized there,
and pairs of the small factors are merged until one is left: communication-avoiding QR (Demmel, Grigori, Hoemmen,
Langou, SIAM J. Sci. Comput. 34, 2012). Of 160 MB one triangle of 200 bytes comes here.
"""

from __future__ import annotations

import math
import time

import numpy as np

import ippmpi as ipp

BLOCKS = 8
ROWS = 500_000
E = math.e
REFERENCE = (math.sinh(1), 3 / E, 5 / 2 * (E - 7 / E), 7 / 2 * (37 / E - 5 * E))


def samples(block: int) -> np.ndarray:
    """Return one block of the system: Legendre polynomials of degree 0 to 3 at the midpoints of cells, and e^x."""
    x = -1 + (2 * np.arange(block * ROWS, (block + 1) * ROWS) + 1) / (BLOCKS * ROWS)
    return np.column_stack([np.ones_like(x), x, (3 * x**2 - 1) / 2, (5 * x**3 - 3 * x) / 2, np.exp(x)])


def factor(block: np.ndarray) -> np.ndarray:
    """Return the triangle of a block."""
    return np.asarray(np.linalg.qr(block, mode="r"))


def merge(upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Return the triangle of two blocks, from theirs."""
    return np.asarray(np.linalg.qr(np.vstack([upper, lower]), mode="r"))


def main() -> None:
    """Make the data on the ranks, factorize, merge, and compare."""
    with ipp.Cluster(n=4) as rc:
        tasks = rc.load_balanced_view()
        blocks = tasks.map_sync(samples, range(BLOCKS), keep=True)
        print(blocks[0])

        began = time.perf_counter()
        first = tasks.map_async(factor, blocks, keep=True)
        factors = first.get()
        at_home = sum(factor.engine == block.engine for factor, block in zip(factors, blocks, strict=True))
        while len(factors) > 1:
            factors = tasks.map_sync(merge, factors[::2], factors[1::2], keep=True)
        triangle = factors[0].get()
        took = time.perf_counter() - began

        there = sum(block.size for block in blocks)
        print(f"{there / 1e6:.0f} MB on the ranks, {triangle.nbytes} bytes came here, in {took * 1e3:.0f} ms")
        print(f"{at_home} of {BLOCKS} blocks were factorized where they are")
        del blocks, factors, first  # and with the handles the values on the ranks

    found = np.linalg.solve(triangle[:4, :4], triangle[:4, 4])
    for degree, (value, reference) in enumerate(zip(found, REFERENCE, strict=True)):
        print(f"  c{degree} = {value:.12f}   exactly {reference:.12f}")
    assert np.allclose(found, REFERENCE, rtol=0, atol=1e-11), "the fit is not the Legendre series"
    assert there == BLOCKS * ROWS * 5 * 8, "the blocks are not what was asked for"


if __name__ == "__main__":
    main()
