"""The learning rate over a training, as a share of its peak."""

import math

WARM_UP = 0.05  # share of the steps in which it rises


def one_cycle(step: int, steps: int) -> float:
    """The share at a step (from 0): a short rise, then a fall to almost 0, both straight."""
    rise = max(1, round(WARM_UP * steps))
    return min((step + 1) / rise, (steps - step) / (steps - rise + 1))


def cosine(step: int, steps: int) -> float:
    """The same with the fall of half a cosine (Loshchilov and Hutter, "SGDR", 2017)."""
    rise = max(1, round(WARM_UP * steps))
    fallen = max(0, step + 1 - rise) / (steps - rise + 1)
    return min((step + 1) / rise, (1 + math.cos(math.pi * fallen)) / 2)


SCHEDULES = {"one_cycle": one_cycle, "cosine": cosine}
