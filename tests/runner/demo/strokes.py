"""The strokes of a digit: the lines in the middle of its ink, as a pen would follow them."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SCALE = 4  # by which a picture is enlarged before it is thinned
EVERY = 4  # points of a line, of which one is kept
AROUND = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))  # clockwise, from above
Point = tuple[int, int]


def strokes_of(digit: NDArray[np.uint8]) -> list[list[tuple[float, float]]]:
    """Return lines of points (x, y) from 0 to 1 that follow the ink of a picture (uint8, 28 x 28)."""
    size = len(digit) * SCALE
    large = Image.fromarray(digit).resize((size, size), Image.Resampling.BICUBIC)
    lines = _lines(_thinned(np.pad(np.asarray(large) > 127, 1)))
    kept = [[*line[:-1:EVERY], line[-1]] for line in lines]
    return [[((x - 0.5) / size, (y - 0.5) / size) for y, x in line] for line in kept]


def _thinned(ink: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Thin ink to lines of one pixel (Zhang and Suen 1984)."""
    ink = ink.copy()
    while True:
        before = ink.sum()
        for first, second in (((0, 2, 4), (2, 4, 6)), ((0, 2, 6), (0, 4, 6))):
            near = np.array([np.roll(ink, (-down, -right), (0, 1)) for down, right in AROUND])
            changes = (~near & np.roll(near, -1, 0)).sum(0)
            count = near.sum(0)
            ends = ~near[list(first)].all(0) & ~near[list(second)].all(0)
            ink &= ~((count >= 2) & (count <= 6) & (changes == 1) & ends)
        if ink.sum() == before:
            return ink


def _lines(ink: NDArray[np.bool_]) -> list[list[Point]]:
    """Return lines of neighbouring pixels that cover all of the ink, each from an end of what is left if it has one."""
    points = {(int(y), int(x)) for y, x in np.argwhere(ink)}
    left, lines = set(points), []
    while left:
        point: Point | None = min(left, key=lambda one: (len(_near(one, left)), one))
        assert point
        line = _near(point, points - left)[:1]  # joins a line before
        while point:
            line.append(point)
            left.remove(point)
            point = next(iter(_near(point, left)), None)
        lines.append(line)
    return lines


def _near(point: Point, points: set[Point]) -> list[Point]:
    """Return the neighbours of a pixel among others, those beside and above or below it first."""
    return [
        near for down, right in (*AROUND[::2], *AROUND[1::2]) if (near := (point[0] + down, point[1] + right)) in points
    ]
