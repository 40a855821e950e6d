"""Monte Carlo pricing of options: a grid of strikes and volatilities, one task per pair.

A European call has a price in closed form (Black and Scholes, 1973), so the simulated prices can be checked. The
Asian call, which depends on the average of the path, has none; it must be worth less than the European one.
"""

from __future__ import annotations

from math import erf, exp, log, sqrt

import numpy as np

import ippmpi as ipp

SPOT, RATE, DAYS = 100.0, 0.05, 260
PATHS = 10_000
STRIKES = [90.0, 95.0, 100.0, 105.0, 110.0]
VOLATILITIES = [0.1, 0.2, 0.3, 0.4]


def simulate(strike: float, volatility: float, seed: int) -> tuple[float, float, float]:
    """Return the prices of a European and an Asian call of one year, and the standard error of the first."""
    random = np.random.default_rng(seed)
    step = 1.0 / DAYS
    drift = (RATE - volatility**2 / 2) * step
    log_price = np.full(PATHS, np.log(SPOT))
    average = np.zeros(PATHS)
    for _ in range(DAYS):
        log_price += drift + volatility * np.sqrt(step) * random.standard_normal(PATHS)
        average += np.exp(log_price) / DAYS
    discount = np.exp(-RATE)
    european = discount * np.maximum(np.exp(log_price) - strike, 0)
    asian = discount * np.maximum(average - strike, 0)
    return float(european.mean()), float(asian.mean()), float(european.std() / np.sqrt(PATHS))


def black_scholes(strike: float, volatility: float) -> float:
    """Return the price of the European call in closed form."""

    def normal(x: float) -> float:
        return (1 + erf(x / sqrt(2))) / 2

    d = (log(SPOT / strike) + RATE + volatility**2 / 2) / volatility
    return SPOT * normal(d) - strike * exp(-RATE) * normal(d - volatility)


def main() -> None:
    """Price the grid on all ranks; compare with the closed form."""
    grid = [(strike, volatility) for volatility in VOLATILITIES for strike in STRIKES]
    strikes, volatilities = zip(*grid, strict=True)
    with ipp.Cluster(n=4) as rc:
        prices = rc.load_balanced_view().map_sync(simulate, strikes, volatilities, range(len(grid)))

    print("strike  volatility  european  closed form   asian")
    for (strike, volatility), (european, asian, error) in zip(grid, prices, strict=True):
        exact = black_scholes(strike, volatility)
        print(f"{strike:6.0f}  {volatility:10.1f}  {european:8.3f}  {exact:11.3f}  {asian:6.3f}")
        assert abs(european - exact) < 4 * error, "more than four standard errors away"
        assert 0 < asian < european
    print(f"{len(grid)} prices agree with the closed form, from {PATHS:,} paths each")


if __name__ == "__main__":
    main()
