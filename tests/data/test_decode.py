"""Pictures of every kind are decoded as a viewer shows them, and bad ones are reported with their reason."""

import io
import struct
import tracemalloc
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from components.shared.data.decode import FORMATS, BadPicture, decode, decoder, fit_arrays

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8)
GRAY = COLOUR[:, :, 0]


def encode(image: NDArray[Any] | Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, file_format, **options)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    def block(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = block(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + block(b"IDAT", zlib.compress(b"")) + block(b"IEND", b"")


@pytest.mark.parametrize("options", [{}, {"file_format": "BMP"}, {"file_format": "TIFF"}])
def test_lossless_colour_preserves_every_pixel(options: dict[str, Any]) -> None:
    np.testing.assert_array_equal(decode(encode(COLOUR, **options), 16), COLOUR.transpose(2, 0, 1))


def test_lossless_webp_preserves_every_pixel() -> None:
    np.testing.assert_array_equal(decode(encode(COLOUR, "WEBP", lossless=True), 16), COLOUR.transpose(2, 0, 1))


def test_grayscale_has_one_channel() -> None:
    np.testing.assert_array_equal(decode(encode(GRAY), 16), GRAY[None])


def test_bilevel_becomes_black_and_white() -> None:
    np.testing.assert_array_equal(
        decode(encode(Image.fromarray(GRAY).convert("1", dither=Image.Dither.NONE)), 16)[0] // 255, GRAY >= 128
    )


def test_jpeg_is_close_to_the_original() -> None:
    smooth = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))
    decoded = decode(encode(smooth, "JPEG", quality=95), 64)
    assert np.abs(decoded[0].astype(int) - smooth).max() <= 4


@pytest.mark.parametrize("file_format", ["PNG", "GIF"])
def test_palette_is_looked_up(file_format: str) -> None:
    picture = Image.fromarray(COLOUR).quantize(16)
    expected = np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(decode(encode(picture, file_format), 16), expected)


def test_cmyk_becomes_rgb() -> None:
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    decoded = decode(encode(red, "JPEG", quality=100), 16)
    assert (decoded[0] > 240).all()
    assert (decoded[1:] < 15).all()


@pytest.mark.parametrize(("mode", "clear", "ink"), [("RGBA", (0, 0, 0, 0), (9, 8, 7, 255)), ("LA", (0, 0), (9, 255))])
def test_transparency_becomes_white(mode: str, clear: tuple[int, ...], ink: tuple[int, ...]) -> None:
    picture = Image.new(mode, (16, 16), clear)
    picture.putpixel((3, 5), ink)
    decoded = decode(encode(picture), 16)
    assert decoded[:, 0, 0].tolist() == [255, 255, 255]
    assert decoded[0, 5, 3] == 9


def test_transparent_palette_colour_becomes_white() -> None:
    picture = Image.new("P", (16, 16), 0)
    picture.putpalette([0, 0, 0, 50, 60, 70])
    picture.putpixel((2, 1), 1)
    decoded = decode(encode(picture, transparency=0), 16)
    assert decoded[:, 0, 0].tolist() == [255, 255, 255]
    assert decoded[:, 1, 2].tolist() == [50, 60, 70]


@pytest.mark.parametrize(("orientation", "turn"), [(1, 0), (3, 2), (6, 3), (8, 1)])
@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(orientation: int, turn: int, file_format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if file_format == "WEBP" else {}
    decoded = decode(encode(COLOUR, file_format, exif=exif, **options), 16)
    np.testing.assert_array_equal(decoded, np.rot90(COLOUR, turn).transpose(2, 0, 1))


def test_wide_picture_is_scaled_down_and_centred() -> None:
    white = np.full((20, 80), 255, np.uint8)
    decoded = decode(encode(white), 32)[0]
    assert (decoded[12:20] == 255).all()
    assert (decoded[:12] == 0).all()
    assert (decoded[20:] == 0).all()


def test_scaling_down_is_antialiased() -> None:
    stripes = np.zeros((256, 256), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(decode(encode(stripes), 32)[0].astype(int) - 127).max() <= 2


def test_very_thin_picture_has_at_least_a_pixel() -> None:
    assert decode(encode(np.full((1, 4000), 255, np.uint8)), 32)[0].any()


def test_28_pixels_get_a_border_of_two() -> None:
    digits = RNG.integers(0, 256, (5, 1, 28, 28), dtype=np.uint8)
    np.testing.assert_array_equal(fit_arrays(digits, 32), np.pad(digits, ((0, 0), (0, 0), (2, 2), (2, 2))))


def test_8_pixels_are_enlarged_by_four() -> None:
    digits = RNG.integers(0, 256, (5, 1, 8, 8), dtype=np.uint8)
    np.testing.assert_array_equal(fit_arrays(digits, 32), np.kron(digits, np.ones((4, 4), np.uint8)))


@pytest.mark.parametrize("channels", [1, 3])
def test_arrays_and_pictures_are_scaled_alike(channels: int) -> None:
    images = RNG.integers(0, 256, (3, channels, 30, 40), dtype=np.uint8)
    pictures = [encode(image[0] if channels == 1 else image.transpose(1, 2, 0)) for image in images]
    np.testing.assert_array_equal(fit_arrays(images, 16), np.stack([decode(data, 16) for data in pictures]))


def test_animation_is_bad() -> None:
    frames = [Image.fromarray(GRAY), Image.fromarray(GRAY.T.copy())]
    for file_format in ("GIF", "PNG", "WEBP", "TIFF"):
        with pytest.raises(BadPicture, match="animated or has several pages"):
            decode(encode(frames[0], file_format, save_all=True, append_images=frames[1:]), 16)


def test_empty_file_is_bad() -> None:
    with pytest.raises(BadPicture, match="empty"):
        decode(b"", 16)


@pytest.mark.parametrize("data", [b"<html>not found</html>", b"\x00" * 100, encode(GRAY, "PPM")])
def test_other_formats_are_bad(data: bytes) -> None:
    with pytest.raises(BadPicture, match="no supported format"):
        decode(data, 16)


def test_a_format_that_is_not_read_is_named() -> None:
    with pytest.raises(BadPicture, match=r"it is a \.heic file, in no supported format"):
        decode(b"\0\0\0\x18ftypheic" + bytes(99), 16)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "BMP", "WEBP", "TIFF"])
def test_truncated_picture_is_bad(file_format: str) -> None:
    data = encode(COLOUR, file_format)
    with pytest.raises(BadPicture, match=r"broken|no supported format"):
        decode(data[: len(data) * 2 // 3], 16)


def test_tiff_with_an_empty_second_page_is_bad() -> None:
    data = bytearray(encode(np.zeros((16, 16), np.uint8), "TIFF"))
    (tags,) = struct.unpack_from("<H", data, 8)
    struct.pack_into("<I", data, 10 + 12 * tags, len(data) - 100)  # the next page begins in the pixels
    with pytest.raises(BadPicture, match="broken"):
        decode(bytes(data), 16)


def test_results_are_in_order_with_bad_pictures_in_place() -> None:
    pictures = [encode(np.full((4, 4), n, np.uint8)) for n in range(50)]
    pictures[7] = b""
    with decoder(4) as decode_all:
        results = decode_all(pictures)
    assert isinstance(results[7], BadPicture)
    values = {n: int(r[0, 0, 0]) for n, r in enumerate(results) if isinstance(r, np.ndarray)}
    assert values == {n: n for n in range(50) if n != 7}


def test_of_a_wide_picture_only_its_levels_stay_in_memory() -> None:
    content = io.BytesIO()
    Image.fromarray(np.zeros((1000, 1000), np.uint16)).save(content, "PNG")
    with decoder(8) as decode_all:
        tracemalloc.start()
        found = decode_all([content.getvalue()] * 8)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert len(found) == 8 and held < 2_000_000, "of 2 MB of pixels each"


def test_pillows_warnings_do_not_leak() -> None:
    picture = Image.new("P", (4, 4))
    picture.putpalette([0] * 6)
    with warnings.catch_warnings(record=True) as seen, decoder(4) as decode_all:
        decode_all([encode(picture, transparency=b"\x00\x80"), png_header(12_000, 12_000)])
    assert seen == []


def test_a_line_longer_than_pillow_holds_is_bad() -> None:
    with decoder(16, memory=2**40) as decode_all:
        (found,) = decode_all([png_header(2**31 - 1, 1)])
    assert isinstance(found, BadPicture) and str(found).startswith("there is no memory for its pixels; scale it down")


SEEDS = [encode(COLOUR, file_format) for file_format in FORMATS]


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.sampled_from(SEEDS), st.data())
def test_damaged_pictures_decode_or_are_bad(picture: bytes, data: st.DataObject) -> None:
    damaged = bytearray(picture)
    for position in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=4)):
        damaged[position] = data.draw(st.integers(0, 255))
    with decoder(8) as decode_all:
        (result,) = decode_all([bytes(damaged[: data.draw(st.integers(0, len(damaged)))])])
    assert not isinstance(result, np.ndarray) or (result.shape[1:] == (8, 8) and result.dtype == np.uint8)
