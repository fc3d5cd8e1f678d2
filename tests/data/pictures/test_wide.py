"""The numbers of wide pictures are read whole, in every format that has them, gray and in colour."""

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from components.shared.data.pictures.wide import Numbers, read_numbers, wide_type
from tests.data.pictures.wide_files import png16, tiff

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 2**16, (11, 7, 4), dtype=np.uint16)
TYPES: dict[str, NDArray[Any]] = {
    "uint16": COLOUR[..., 0],
    "int16": RNG.integers(-(2**15), 2**15, (11, 7), dtype=np.int16),
    "uint32": RNG.integers(0, 2**32, (11, 7), dtype=np.uint32),
    "int32": RNG.integers(-(2**31), 2**31, (11, 7), dtype=np.int32),
    "float": RNG.normal(size=(11, 7)).astype(np.float32),
}
UNREADABLE = ("uint32", True)  # by Pillow


def read(data: bytes) -> tuple[str, Numbers]:
    with Image.open(io.BytesIO(data)) as image:
        return wide_type(image), read_numbers(image, data)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_of_16_bits_keeps_every_bit(channels: int) -> None:
    pixels = COLOUR[..., :channels]
    kind, numbers = read(png16(pixels))
    assert kind == "uint16"
    colours = pixels[..., : 1 if channels < 3 else 3]
    np.testing.assert_array_equal(numbers.values, colours[..., 0] if channels < 3 else colours)
    assert (numbers.alpha is not None) == (channels in (2, 4))
    if numbers.alpha is not None:
        np.testing.assert_array_equal(numbers.alpha, pixels[..., -1] >> 8)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    ("name", "big_endian"),
    [(name, big_endian) for name in TYPES for big_endian in (False, True) if (name, big_endian) != UNREADABLE],
)
def test_gray_tiff_of_each_type_keeps_every_bit(name: str, *, big_endian: bool, compressed: bool) -> None:
    kind, numbers = read(tiff(TYPES[name], big_endian=big_endian, compressed=compressed))
    assert kind == name
    np.testing.assert_array_equal(numbers.values, TYPES[name])


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("channels", [3, 4])
def test_tiff_in_16_bit_colour_keeps_every_bit(channels: int, *, big_endian: bool, compressed: bool) -> None:
    pixels = COLOUR[..., :channels]
    kind, numbers = read(tiff(pixels, big_endian=big_endian, compressed=compressed))
    assert kind == "uint16"
    np.testing.assert_array_equal(numbers.values, pixels[..., :3])
    if channels == 4:
        assert numbers.alpha is not None
        np.testing.assert_array_equal(numbers.alpha, pixels[..., 3] >> 8)


@pytest.mark.parametrize("pixels", [COLOUR[..., 0], COLOUR[..., :3]])
def test_numbers_are_turned_as_exif_says(pixels: NDArray[np.uint16]) -> None:
    _, numbers = read(tiff(pixels, orientation=6))
    np.testing.assert_array_equal(numbers.values, np.rot90(pixels, 3))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_transparent_number_of_a_png_is_seen(channels: int) -> None:
    pixels = COLOUR[..., :channels]
    _, numbers = read(png16(pixels, transparent=pixels[2, 3].astype(">u2").tobytes()))
    assert numbers.alpha is not None
    assert np.argwhere(numbers.alpha == 0).tolist() == [[2, 3]]


def test_pictures_of_8_bits_are_not_wide() -> None:
    for mode in ("1", "L", "P", "LA", "RGB", "RGBA", "CMYK"):
        file = io.BytesIO()
        Image.new(mode, (4, 4)).save(file, "TIFF")
        with Image.open(file) as image:
            assert wide_type(image) == ""
