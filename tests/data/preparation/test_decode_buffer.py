"""Images are read from the buffer as they were written, unit by unit, grayscale ones in a third of the space."""

from pathlib import Path

import numpy as np
import pytest

from components.shared.data.dataset import Images
from components.shared.data.preparation.decode_buffer import DecodeBuffer
from components.shared.data.preparation.rows import ROW, Rows, describe

RNG = np.random.default_rng(0)


def images(count: int, channels: int) -> Images:
    return RNG.integers(0, 256, (count, channels, 4, 4), dtype=np.uint8)


def filled(folder: Path, *parts: Images) -> DecodeBuffer:
    buffer = DecodeBuffer(folder, 4)
    for split, part in enumerate(parts):
        buffer.append(part, np.arange(len(part)), split)
    return buffer


def read(buffer: DecodeBuffer, size: int) -> tuple[Images, Rows]:
    """Read all as one unit, in blocks of `size`."""
    (unit,) = [(np.concatenate(list(blocks)), rows) for rows, blocks in buffer.units(buffer.count, size)]
    return unit


def test_grayscale_has_one_channel(tmp_path: Path) -> None:
    gray = images(7, 1)
    pixels, rows = read(filled(tmp_path, gray), 3)
    np.testing.assert_array_equal(pixels, gray)
    assert rows["label"].tolist() == list(range(7))


def test_colour_with_equal_channels_is_grayscale(tmp_path: Path) -> None:
    gray = images(5, 1)
    buffer = filled(tmp_path, gray.repeat(3, axis=1))
    assert (tmp_path / "pixels").stat().st_size == 5 * 16
    np.testing.assert_array_equal(read(buffer, 5)[0], gray)


def test_grayscale_among_colour_images_gets_three_channels(tmp_path: Path) -> None:
    gray, colour = images(3, 1), images(4, 3)
    mixed = np.concatenate([gray.repeat(3, axis=1), colour])[[0, 3, 1, 4, 5, 2, 6]]
    np.testing.assert_array_equal(read(filled(tmp_path, gray, mixed), 2)[0], [*gray.repeat(3, axis=1), *mixed])
    assert (tmp_path / "pixels").stat().st_size == (3 + 3 + 4 * 3) * 16


def test_digest_does_not_depend_on_equal_channels(tmp_path: Path) -> None:
    gray = images(1, 1)
    _, rows = read(filled(tmp_path, gray, gray.repeat(3, axis=1), images(1, 1)), 9)
    assert rows["digest"][0] == rows["digest"][1] != rows["digest"][2]


def test_a_unit_has_the_channels_of_its_own_images(tmp_path: Path) -> None:
    gray, colour = images(3, 1), images(3, 3)
    units = [np.concatenate(list(blocks)) for _, blocks in filled(tmp_path, gray, colour).units(3, 2)]
    for found, expected in zip(units, (gray, colour), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_bad_picture_has_a_row_and_no_image(tmp_path: Path) -> None:
    good = images(2, 1)
    buffer = DecodeBuffer(tmp_path, 4)
    buffer.append(good, np.array([7, 8, 9]), 0, np.array([True, False, True]))
    found, rows = read(buffer, 3)
    np.testing.assert_array_equal(found, good)
    assert rows["channels"].tolist() == [1, 0, 1]
    assert rows["label"].tolist() == [7, 8, 9]


def test_sums_are_exact(tmp_path: Path) -> None:
    pixels = images(5, 3)
    _, rows = read(filled(tmp_path, pixels), 2)
    np.testing.assert_array_equal(rows["sums"], pixels.sum(axis=(2, 3)))
    np.testing.assert_array_equal(rows["squares"], (pixels.astype(np.int64) ** 2).sum(axis=(2, 3)))


@pytest.mark.parametrize("size", [1, 16, 33, 300])
def test_sums_of_the_brightest_pixels_are_exact(size: int) -> None:
    white = np.full((2, 3, size, size), 255, np.uint8)
    rows = np.zeros(2, ROW)
    describe(rows, white)
    assert rows["channels"].tolist() == [1, 1]
    assert (rows["sums"] == 255 * size**2).all()
    assert (rows["squares"] == 255**2 * size**2).all()


def test_an_image_that_differs_in_one_pixel_is_colour() -> None:
    rows, almost = np.zeros(9, ROW), np.zeros((9, 3, 3, 3), np.uint8)
    almost[range(9), 2, np.arange(9) // 3, np.arange(9) % 3] = 1
    describe(rows, almost)
    assert rows["channels"].tolist() == [3] * 9


def test_counts_are_by_split_and_class(tmp_path: Path) -> None:
    assert filled(tmp_path, images(3, 1), images(0, 1), images(2, 3)).counts(3).tolist() == [
        [1, 1, 1],
        [0, 0, 0],
        [1, 1, 0],
    ]
