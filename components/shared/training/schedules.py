"""The learning rate over a training, as a share of its peak."""

import math

WARM_UP = 0.05  # share of the steps in which the rate rises


def one_cycle(step: int, steps: int) -> float:
    """Return the share at a step (from 0): a short linear rise, then a linear fall to almost 0."""
    rise = max(1, round(WARM_UP * steps))
    return min((step + 1) / rise, (steps - step) / (steps - rise + 1))


def cosine(step: int, steps: int) -> float:
    """Return the same with a fall along half a cosine (Loshchilov and Hutter, "SGDR", 2017)."""
    rise = max(1, round(WARM_UP * steps))
    fallen = max(0, step + 1 - rise) / (steps - rise + 1)
    return min((step + 1) / rise, (1 + math.cos(math.pi * fallen)) / 2)


SCHEDULES = {"one_cycle": one_cycle, "cosine": cosine}
