"""Learning rate schedules: the share of the peak at each step."""

import math

import pytest

from components.shared.training.schedules import SCHEDULES, cosine, one_cycle

STEPS = 200  # of which the rate rises in ten


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_rate_rises_by_equal_shares_to_its_peak(name: str) -> None:
    shares = [SCHEDULES[name](step, STEPS) for step in range(10)]
    assert shares == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_rate_then_falls_at_every_step(name: str) -> None:
    shares = [SCHEDULES[name](step, STEPS) for step in range(9, STEPS)]
    assert shares == sorted(shares, reverse=True) and len(set(shares)) == len(shares)
    assert 0 < shares[-1] < 0.01


def test_one_cycle_falls_in_a_line() -> None:
    assert one_cycle(104, STEPS) == pytest.approx(96 / 191)


def test_cosine_falls_along_half_a_cosine() -> None:
    assert cosine(104, STEPS) == pytest.approx((1 + math.cos(math.pi * 95 / 191)) / 2)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_training_of_one_step_is_at_the_peak(name: str) -> None:
    assert SCHEDULES[name](0, 1) == pytest.approx(1)
