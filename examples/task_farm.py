"""A task farm: the Mandelbrot set row by row, on whichever rank is free.

Rows near the middle take much longer than those at the rim. So they are not dealt out beforehand: each rank gets its
next row when it has done one, and rows arrive in the order in which they are finished.
"""

from __future__ import annotations

import ippmpi as ipp

COLUMNS, ROWS = 78, 31
LEFT, RIGHT, TOP = -2.05, 0.55, 1.2
STEPS = 2000

AREA = 1.5065918849
"""Of the set, to ten digits (Förstemann, 2012); pixels are coarse, so we only come near."""


def escape_times(row: int) -> tuple[int, list[int]]:
    """Return for each point of a row how many steps it takes to leave the circle of radius 2 (at most ``STEPS``)."""
    times = []
    for column in range(COLUMNS):
        point = complex(
            LEFT + (RIGHT - LEFT) * (column + 0.5) / COLUMNS,
            TOP - 2 * TOP * (row + 0.5) / ROWS,
        )
        z, steps = 0j, 0
        while abs(z) <= 2 and steps < STEPS:
            z, steps = z * z + point, steps + 1
        times.append(steps)
    return row, times


def main() -> None:
    """Farm the rows out, draw them, and compare the area with the known one."""
    picture: dict[int, list[int]] = {}
    with ipp.Cluster(n=4) as rc:
        farm = rc.load_balanced_view()
        for row, times in farm.imap(escape_times, range(ROWS), ordered=False):
            picture[row] = times

    for row in range(ROWS):
        print("".join(" .:-=+*%@#"[min(9, steps.bit_length() - 1)] for steps in picture[row]))
    inside = sum(steps == STEPS for times in picture.values() for steps in times)
    area = inside * (RIGHT - LEFT) / COLUMNS * (2 * TOP) / ROWS
    print(f"area of the set: {area:.2f} by {COLUMNS} x {ROWS} points, {AREA:.2f} in truth")
    assert abs(area - AREA) < 0.1


if __name__ == "__main__":
    main()
