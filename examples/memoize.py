"""A scan that is made finer, without computing again what is known: the results of calls are cached.

Ground states of a chain of spins in a transverse field, H = -sum(z z') - g sum(x), by diagonalizing 1024 x 1024
matrices; Pfeuty's formula (Annals of Physics 57, 79, 1970) has the energies for comparison. Results outlive the
cluster: run it twice with ``keep`` as an argument, and the second run computes nothing.
"""

from __future__ import annotations

import sys
import time

import numpy as np

import ippmpi as ipp

SPINS = 10  # what a function reads is part of its key: with another number everything is computed anew


def hamiltonian(g: float) -> np.ndarray:
    """Return the matrix for field *g* in the basis of z: bit i of a state's number is spin i."""
    states = np.arange(1 << SPINS)
    matrix = np.zeros((states.size, states.size))
    for spin in range(SPINS):
        neighbour = (spin + 1) % SPINS
        matrix[states, states] -= 1 - 2 * ((states >> spin ^ states >> neighbour) & 1)
        matrix[states, states ^ (1 << spin)] -= g
    return matrix


def ground_energy(g: float) -> float:
    """Return the lowest energy for field *g*."""
    return float(np.linalg.eigvalsh(hamiltonian(g))[0])


def pfeuty(g: float) -> float:
    """Return what it is known to be."""
    k = (2 * np.arange(SPINS) + 1) * np.pi / SPINS
    return -float(np.sqrt(1 + g * g - 2 * g * np.cos(k)).sum())


def scan(view: ipp.LoadBalancedView, fields: list[float]) -> int:
    """Compute, or find, the energies for all *fields*, and compare; return how many had to be computed."""
    began = time.perf_counter()
    result = view.map(ground_energy, fields, cache=True)
    energies = result.get()
    computed: int = result.cached.count(False)
    print(f"{len(fields):2d} fields in {time.perf_counter() - began:.2f} s: {computed} computed, the others were known")
    assert np.allclose(energies, [pfeuty(g) for g in fields]), "these are not the energies"
    return computed


def main(keep: bool) -> None:
    """Scan coarsely, then finely; the second time, only what is new is computed."""
    with ipp.Cluster(n=2) as rc:
        view = rc.load_balanced_view()
        if not keep:
            rc.cache.drop(ground_energy)
        coarse = [step / 4 for step in range(1, 9)]
        fine = [step / 8 for step in range(1, 17)]
        computed = [scan(view, coarse), scan(view, fine), scan(view, fine)]
        assert keep or computed == [8, 8, 0], computed
        print(f"at g = 1 the energy is {pfeuty(1.0):.4f}; -2 / sin(pi / 20) is {-2 / np.sin(np.pi / 20):.4f}")
        for entry in rc.cache.list(ground_energy, limit=2):
            print(f"  {entry.key[:10]}...  {entry.name}  {entry.size} bytes, used {entry.hits} times")
        if not keep:
            print(f"dropped {rc.cache.drop(ground_energy)} results")


if __name__ == "__main__":
    main(keep="keep" in sys.argv[1:])
