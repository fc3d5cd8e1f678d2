"""Wide pictures become 8 bits by one pair of bounds, which outliers do not move."""

import numpy as np
import pytest

from components.shared.core.document import ValueRange
from components.shared.core.errors import UserError
from components.shared.data.pictures.value_range import (
    MAX_PICTURES,
    Unscaled,
    ValueSample,
    little_used,
    mixed,
    scale,
    spread,
)
from components.shared.data.pictures.wide import Numbers

RNG = np.random.default_rng(0)


def sample(*pictures: np.ndarray) -> ValueSample:
    found = ValueSample()
    for number, pixels in enumerate(pictures):
        found.add(number, Unscaled(Numbers(pixels), "uint16"))
    return found


def measure(*pictures: np.ndarray) -> tuple[float, float]:
    found = sample(*pictures).measure(np.ones(len(pictures), bool))
    return found.low, found.high


def test_bounds_are_percentiles_of_all_pixels() -> None:
    pictures = [RNG.normal(1000 + 50 * i, 100, (80, 90)) for i in range(20)]
    expected = np.percentile(np.stack(pictures), (0.1, 99.9))
    np.testing.assert_allclose(measure(*pictures), expected, atol=20)  # 0.05 % of the pixels lie that far apart


def test_a_hot_pixel_does_not_move_the_bounds() -> None:
    pictures = [RNG.integers(1000, 1100, (64, 64), dtype=np.uint16) for _ in range(5)]
    before = measure(*pictures)
    for picture in pictures:
        picture[3, 3], picture[5, 5] = 65_535, 0
    assert measure(*pictures) == before


def test_each_picture_counts_the_same_whatever_its_size() -> None:
    small, large = np.full((4, 4), 900.0), np.full((400, 400), 100.0)
    assert measure(small, large) == (100, 900)


def test_only_pictures_that_count_are_measured() -> None:
    found = sample(np.array([[1, 5]]), np.array([[0, 9]])).measure(np.array([True, False]))
    assert (found.low, found.high) == (1, 5)


def test_nearly_black_pictures_have_bounds() -> None:
    pixels = np.zeros((100, 100), np.uint16)
    pixels[0, 0] = 40
    assert measure(pixels) == (0, 40)
    assert measure(np.full((3, 3), 7)) == (7, 8)


def test_transparent_and_missing_numbers_are_not_measured() -> None:
    assert measure(np.array([[np.nan, np.inf, 2.0, 3.0]])) == (2, 3)
    found = ValueSample()
    found.add(0, Unscaled(Numbers(np.array([[1, 900, 2]]), np.array([[255, 0, 255]], np.uint8)), "uint16"))
    measured = found.measure(np.ones(1, bool))
    assert (measured.low, measured.high) == (1, 2)


def test_pictures_without_any_number_are_refused() -> None:
    with pytest.raises(UserError, match="1 measured pictures have more than 8 bits, but none outside the test split"):
        measure(np.full((2, 2), np.nan))


def test_of_very_many_pictures_some_are_measured_evenly() -> None:
    count = 3 * MAX_PICTURES
    found = ValueSample(spread(count))
    picture = Unscaled(Numbers(np.array([[0.0]])), "float")
    for number in range(count):
        picture.levels = np.array([number, number, number], float)  # one level instead of many: it is quicker
        found.add(number, picture)
    measured = found.measure(np.ones(count, bool))
    assert found.count == count
    assert len(found._levels) <= MAX_PICTURES
    np.testing.assert_allclose([measured.low, measured.high], [0.001 * count, 0.999 * count], rtol=0.02)


def test_pictures_to_measure_are_chosen_among_all_of_the_source() -> None:
    found = ValueSample(every=2)
    for number in (1, 3, 4):
        found.add(number, Unscaled(Numbers(np.full((2, 2), 10 * number)), "uint16"))
    measured = found.measure(np.ones(5, bool))
    assert (measured.low, measured.high) == (40, 41)


def test_numbers_are_scaled_rounded_and_clipped() -> None:
    numbers = Numbers(np.array([[-50, 100, 149, 150, 151, 200, 9999]], np.int32))
    assert scale(numbers, ValueRange(low=100, high=200)).tolist() == [[0, 0, 125, 128, 130, 255, 255]]


def test_the_whole_range_scales_as_division_does() -> None:
    every = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    expected = (every.astype(np.uint32) * 255 + 32767) // 65535
    np.testing.assert_array_equal(scale(Numbers(every), ValueRange(low=0, high=65535)), expected)


def test_no_number_is_black_and_infinity_white() -> None:
    numbers = Numbers(np.array([[np.nan, -np.inf, np.inf, 0.5]], np.float32))
    assert scale(numbers, ValueRange(low=0, high=1)).tolist() == [[0, 0, 255, 128]]


def test_alpha_is_kept_beside_scaled_numbers() -> None:
    alpha = np.array([[255, 9]], np.uint8)
    gray, colour = np.array([[0, 20]]), np.array([[[0, 20, 10], [20, 0, 0]]])
    bounds = ValueRange(low=0, high=20)
    assert scale(Numbers(gray, alpha), bounds).tolist() == [[[0, 0, 0, 255], [255, 255, 255, 9]]]
    assert scale(Numbers(colour, alpha), bounds).tolist() == [[[0, 255, 128, 255], [255, 0, 0, 9]]]


@pytest.mark.parametrize(
    ("high", "types", "warns"),
    [
        (6553, {"uint16": 3}, True),
        (6554, {"uint16": 3}, False),
        (65_535, {"int32": 3}, True),
        (1, {"float": 3}, False),
    ],
)
def test_a_type_of_which_little_is_used_is_warned_of(high: int, types: dict[str, int], *, warns: bool) -> None:
    warning = little_used(ValueRange(low=0, high=high), types)
    assert bool(warning) == warns
    assert not warns or "value_range=LOW,HIGH" in warning


def test_a_mix_of_types_is_warned_of() -> None:
    assert mixed({"uint16": 3}) == mixed({}) == ""
    assert "(3 uint16, 1,200 uint8)" in mixed({"uint8": 1200, "uint16": 3})
