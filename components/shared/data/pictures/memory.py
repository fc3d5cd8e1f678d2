"""The memory that decoding takes: how much a picture needs, and how much all threads together may use."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from PIL import Image
from PIL import PngImagePlugin as png
from PIL.ExifTags import Base
from PIL.ImageFile import ImageFile

ALWAYS_DECODED = 2**26  # pixels: 8,192 x 8,192; such a picture of 8 bits is decoded however little memory there is
UNCOUNTED = 2**15  # pixels, which take about a MiB at most: to count them would take longer
SHARE = 0.5  # of the free memory; the rest is for encoded and prepared pictures

_TEXT_COPIES = 3  # of a PNG's text: as bytes, as characters, and what zlib has read ahead


def is_text_too_long(error: Exception) -> bool:
    """Return whether Pillow did not open a PNG because its text takes more memory than `of_pillow` allows."""
    return "MAX_TEXT_" in str(error)


class MemoryBudget:
    """Bytes that all threads together may use to decode pictures."""

    def __init__(self, total: int, threads: int) -> None:
        self.total, self.threads = total, threads
        self._left = total
        self._condition = threading.Condition()

    def taken(self, needed: int) -> AbstractContextManager[None]:
        """Take bytes of the budget, once there are enough; at most all of them."""
        return self._taken(needed) if needed else nullcontext()

    @contextmanager
    def _taken(self, needed: int) -> Iterator[None]:
        needed = min(needed, self.total)
        with self._condition:
            self._condition.wait_for(lambda: needed <= self._left)
            self._left -= needed
        try:
            yield
        finally:
            with self._condition:
                self._left += needed
                self._condition.notify_all()

    @contextmanager
    def of_pillow(self) -> Iterator[None]:
        """Let Pillow open pictures of any size, and PNGs with as much text as the budget allows."""
        before = png.MAX_TEXT_CHUNK, png.MAX_TEXT_MEMORY, Image.MAX_IMAGE_PIXELS
        text = max(png.MAX_TEXT_MEMORY, self.total // (self.threads * _TEXT_COPIES))
        png.MAX_TEXT_CHUNK, png.MAX_TEXT_MEMORY, Image.MAX_IMAGE_PIXELS = text, text, None
        try:
            yield
        finally:
            png.MAX_TEXT_CHUNK, png.MAX_TEXT_MEMORY, Image.MAX_IMAGE_PIXELS = before


def memory_needed(image: ImageFile, full_size: tuple[int, int], *, is_wide: bool) -> int:
    """Return about how many bytes decoding an opened picture takes at its peak, as was measured.

    `full_size` is that of the file, of which a JPEG is asked to decode a fraction. Small pictures count as nothing.
    """
    if full_size[0] * full_size[1] <= UNCOUNTED:
        return 0
    pixels = image.width * image.height
    if is_wide:
        return pixels * (12 if image.mode.startswith("I;16") else 20 if image.mode in ("I", "F") else 40)
    stored = 1 if image.mode in ("1", "L", "P") else 4  # bytes that Pillow keeps for each pixel
    turned = stored if _may_be_turned(image) else 0
    strip = stored if image.format == "TIFF" else 0
    if image.format in ("WEBP", "AVIF"):
        return pixels * (16 + turned)
    converted = 12 if image.has_transparency_data else 0 if image.mode in ("L", "RGB") else 4
    coefficients = 2 * len(image.getbands()) if "progressive" in image.info else 0
    return pixels * (stored + turned + strip + converted) + full_size[0] * full_size[1] * coefficients


def _may_be_turned(image: ImageFile) -> bool:
    if image.format == "PNG":  # of which getexif decodes the pixels
        return not image.info.keys().isdisjoint(("exif", "Raw profile type exif"))
    return bool(image.getexif().get(Base.Orientation, 1) != 1)
