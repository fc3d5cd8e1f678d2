"""Pictures are as large as the memory allows, and all threads together take no more than that."""

import io
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from components.shared.core.document import ValueRange
from components.shared.data.decode import BadPicture, Decoder, decoder
from components.shared.data.pictures.memory import MemoryBudget, memory_needed
from components.shared.data.pictures.wide import wide_type
from tests.data.pictures.wide_files import png16
from tests.data.test_decode import png_header
from tests.steps.test_preprocess import prepare, raw_of

INPUTS = Path(__file__).parents[1] / "inputs"
SIDE = 9000  # its square is more than ALWAYS_DECODED
MIB = 2**20


def encode(side: int, file_format: str, **options: Any) -> bytes:
    """A picture that is black on the left and white on the right."""
    pixels = np.zeros((side, side), np.uint8)
    pixels[:, side // 2 :] = 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, file_format, **options)
    return file.getvalue()


def decoded(data: bytes, memory: int) -> Any:
    with decoder(16, memory=memory) as decode_all:
        return decode_all([data])[0]


def is_right(image: Any) -> bool:
    return bool((image[0, :, :7] < 5).all() and (image[0, :, 9:] > 250).all())


@pytest.mark.slow
def test_a_png_is_as_large_as_the_memory_allows() -> None:
    data = encode(SIDE, "PNG", compress_level=1)
    assert is_right(decoded(data, 100 * MIB))
    bad = decoded(data, 50 * MIB)
    assert isinstance(bad, BadPicture)
    assert str(bad).startswith("decoding its 9,000 x 9,000 pixels takes 0.08 GiB, more than the 0.05 GiB")


@pytest.mark.slow
def test_a_jpeg_is_decoded_at_a_fraction_of_its_size() -> None:
    assert is_right(decoded(encode(SIDE, "JPEG"), 2 * MIB))
    progressive = encode(SIDE, "JPEG", progressive=True)  # of which a decoder keeps all coefficients
    assert "than the 0.10 GiB" in str(decoded(progressive, 100 * MIB))
    assert is_right(decoded(progressive, 160 * MIB))


@pytest.mark.slow
def test_what_was_always_accepted_is_with_little_memory() -> None:
    assert is_right(decoded(encode(8192, "PNG", compress_level=1), MIB))


def test_a_wide_picture_needs_the_memory_that_it_takes() -> None:
    with decoder(32, ValueRange(low=0, high=1), memory=2**20) as decode_all:
        (result,) = decode_all([png16(np.zeros((300, 300, 3), np.uint16))])
    assert isinstance(result, BadPicture)
    assert "its 300 x 300 pixels takes" in str(result)


@pytest.mark.parametrize("side", [12_000, 60_000])
def test_a_bomb_is_refused_by_its_header(side: int) -> None:
    assert "pixels takes" in str(decoded(png_header(side, side), 100 * MIB))


def test_long_text_in_a_png_is_no_damage(tmp_path: Path) -> None:
    dataset = prepare(raw_of(INPUTS / "png-metadata.zip", tmp_path), tmp_path / "dataset")
    assert sum(dataset.counts.values()) == 29


@pytest.mark.slow
def test_text_beyond_the_memory_is_refused_by_its_reason() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "x" * 65 * MIB, zip=True)
    data = encode(8, "PNG", pnginfo=text)
    assert "its text takes more memory than there is for it" in str(decoded(data, MIB))
    assert is_right(decoded(encode(16, "PNG", pnginfo=text), 2**40))


def test_pillows_limits_are_put_back() -> None:
    def limits() -> tuple[Any, ...]:
        return Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY

    before = limits()
    with decoder(8):
        assert limits() != before
    assert limits() == before


def test_threads_together_stay_within_the_budget() -> None:
    budget, used, peaks = MemoryBudget(100, 8), [0], []

    def work(needed: int) -> None:
        with budget.taken(needed):
            used[0] += min(needed, 100)
            peaks.append(used[0])
            zlib.compress(bytes(100_000))  # lets go of the interpreter's lock
            used[0] -= min(needed, 100)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [30, 60, 100, 5, 500, 45] * 50))
    assert max(peaks) <= 100
    assert used == [0]


class Recorded(MemoryBudget):
    """A budget that notes what was taken."""

    def __init__(self) -> None:
        super().__init__(MIB, threads=1)
        self.taken_bytes: list[int] = []

    def taken(self, needed: int) -> AbstractContextManager[None]:
        self.taken_bytes.append(needed)
        return super().taken(needed)


def test_each_picture_takes_its_memory_from_the_budget() -> None:
    budget = Recorded()
    pictures = [encode(200, "PNG"), encode(200, "WEBP"), encode(512, "JPEG"), encode(181, "PNG")]
    with ThreadPoolExecutor(1) as pool:
        results = Decoder(pool, budget, 16, None)(pictures)
    assert all(is_right(result) for result in results)
    assert budget.taken_bytes == [200**2, 200**2 * 16, 64**2, 0]


@pytest.mark.parametrize(
    ("modes", "expected"),
    [(("L",), 2), (("1", "P"), 6), (("RGB",), 8), (("CMYK", "LAB", "I;16"), 12), (("LA", "RGBA", "I", "F"), 20)],
)
def test_a_picture_needs_what_its_mode_takes(modes: tuple[str, ...], expected: int) -> None:
    for mode in modes:
        file = io.BytesIO()
        Image.new(mode, (1000, 1000)).save(file, "TIFF")
        with Image.open(file) as image:
            assert memory_needed(image, image.size, is_wide=bool(wide_type(image))) == expected * 10**6
