"""Pictures to arrays: picture files are decoded, and images are fitted into a square of one size.

The aspect ratio is preserved. Larger images are scaled down with antialiasing; smaller ones are enlarged by whole
factors only (28 -> 32 is a border of 2, as in LeNet-5; 8 -> 32 a factor of 4), so that no pixel is interpolated. The
image is centred, and the border is zeros.

For pictures that are kept as JPEG it is the centre of the picture in place of all of it: see pictures/kept.py.
"""

import io
import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ExifTags import Base
from PIL.ImageFile import ImageFile

from components.shared.core.document import ValueRange
from components.shared.core.resources import cpu_count, free_memory
from components.shared.data.dataset import Images
from components.shared.data.layout.file_kinds import START_BYTES, kind_by_start
from components.shared.data.pictures.kept import Kept, TooLong, is_kept_as_it_is, keep, short_side
from components.shared.data.pictures.memory import ALWAYS_DECODED, SHARE, MemoryBudget, is_text_too_long, memory_needed
from components.shared.data.pictures.value_range import Unscaled, scale
from components.shared.data.pictures.wide import read_numbers, wide_type

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "AVIF", "TIFF")
NARROW = "uint8"  # the type of the numbers of all but wide pictures
_RUN = 32  # pictures that one thread decodes at a time, if there are many: handing small ones over takes longer
# On average. Threads that decode smaller ones wait for Python's lock so often that two take as long as one.
_SMALL_BYTES = 5_000
# Raised by Pillow for damaged files.
_DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    RuntimeError,  # of AVIF
    struct.error,
    zlib.error,
)


class BadPicture(ValueError):
    """A picture that cannot be used; the message is the reason."""


Result = Images | BadPicture | Unscaled


class Decoded(NamedTuple):
    """What came of a picture: its result, the type of its numbers, and its own width and height."""

    result: Result
    kind: str = ""
    size: tuple[int, int] = (0, 0)  # if it is not known
    kept: Kept | None = None  # if the result is the crop of a picture that is kept as JPEG


def decode(data: bytes, size: int, value_range: ValueRange | None = None) -> Images:
    """Decode a picture to uint8 (C, size, size): C is 1 for grayscale and 3 for colour.

    Transparent pictures get a white background, as in a browser; EXIF's orientation is applied; numbers of more than 8
    bits are scaled by `value_range`. Raises Unscaled if a picture has such numbers and there is none. Raises BadPicture
    if the file is empty, broken, of another format, animated or too large.
    """
    with decoder(size, value_range) as decode_all:
        images = decode_all.decode(data).result
        assert isinstance(images, np.ndarray)
        return images


class Decoder:
    """Decodes pictures, on all CPUs unless they are small; `types` counts the types of their numbers."""

    def __init__(
        self, pool: Executor, budget: MemoryBudget, size: int, value_range: ValueRange | None, crop: bool = False
    ) -> None:
        self._pool, self._budget, self._size, self._value_range = pool, budget, size, value_range
        self._crop = crop
        self.types = Counter[str]()

    def __call__(self, pictures: Sequence[bytes]) -> list[Result]:
        """Decode pictures, in order; the result of one that cannot be used is BadPicture or Unscaled."""
        return [decoded.result for decoded in self.each(pictures)]

    def each(self, pictures: Sequence[bytes]) -> list[Decoded]:
        """Decode pictures, in order."""
        if sum(map(len, pictures)) < _SMALL_BYTES * len(pictures):
            found = self._decode_run(pictures)
        else:
            count = max(1, min(_RUN, len(pictures) // (4 * self._budget.threads)))
            runs = [pictures[i : i + count] for i in range(0, len(pictures), count)]
            found = [decoded for run in self._pool.map(self._decode_run, runs) for decoded in run]
        self.types.update(decoded.kind for decoded in found if decoded.kind)
        return found

    def decode(self, data: bytes) -> Decoded:
        """Decode a picture. Raises as the function `decode` does."""
        if not data:
            raise BadPicture("the file is empty")
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                return self._decode(image, data)
        except UnidentifiedImageError:
            found = kind_by_start("", data[:START_BYTES])
            what = f"it is a {found.kind} file, in" if found.reason == "unreadable" else "it is in"
            raise BadPicture(f"{what} no supported format ({', '.join(FORMATS)})") from None
        except BadPicture:
            raise
        except TooLong as error:
            raise BadPicture(str(error)) from None
        except MemoryError:  # also of Pillow, for lines that are longer than it can hold
            raise BadPicture("there is no memory for its pixels; scale it down, or give more memory") from None
        except _DECODING_ERRORS as error:
            if is_text_too_long(error):
                raise BadPicture("its text takes more memory than there is for it; remove the metadata") from None
            raise BadPicture(f"it is broken ({error})") from None

    def _decode_run(self, pictures: Sequence[bytes]) -> list[Decoded]:
        return [self._attempt(data) for data in pictures]

    def _attempt(self, data: bytes) -> Decoded:
        try:
            return self.decode(data)
        except BadPicture as bad:
            return Decoded(bad)
        except Unscaled as unscaled:
            return Decoded(unscaled.with_traceback(None), str(unscaled))  # which would hold all pixels

    def _decode(self, image: ImageFile, data: bytes) -> Decoded:
        _check_single(image)
        full_size, kind = image.size, wide_type(image)
        own = data if self._crop and is_kept_as_it_is(image, self._size) else None
        least = 2 * (short_side(self._size) if self._crop else self._size)
        image.draft(None, (least, least))  # a JPEG can be decoded at 1/2, 1/4 or 1/8 of its size
        needed, total = memory_needed(image, full_size, is_wide=bool(kind)), self._budget.total
        width, height = full_size
        if needed > total and (kind or width * height > ALWAYS_DECODED):
            raise BadPicture(
                f"decoding its {width:,} x {height:,} pixels takes {needed / 2**30:,.2f} GiB, more than the "
                f"{total / 2**30:,.2f} GiB that may be used for it; scale it down, or give more memory"
            )
        with self._budget.taken(needed):
            pixels = _to_8_bits(self._scaled(image, data, kind) if kind else _turned(image))
            if not self._crop:
                return Decoded(_fit(pixels, self._size), kind or NARROW, full_size)
            kept = keep(pixels, self._size, own)
            return Decoded(kept.crop, kind or NARROW, full_size, kept)

    def _scaled(self, image: ImageFile, data: bytes, kind: str) -> Image.Image:
        numbers = read_numbers(image, data)
        if not self._value_range:
            raise Unscaled(numbers, kind)
        return Image.fromarray(scale(numbers, self._value_range))


@contextmanager
def decoder(
    size: int, value_range: ValueRange | None = None, memory: int | None = None, *, crop: bool = False
) -> Iterator[Decoder]:
    """Yield what decodes pictures as `decode` does, on all CPUs, in `memory` bytes or half of what is free.

    With `crop`, the result is the centre of a picture as it is kept as JPEG, also of one that is not stored.
    """
    threads = cpu_count()
    budget = MemoryBudget(int(SHARE * free_memory()) if memory is None else memory, threads)
    # Warning filters and Pillow's limits belong to the process, not to a thread: they are set here, around all threads.
    with warnings.catch_warnings(), budget.of_pillow(), ThreadPoolExecutor(threads) as pool:
        warnings.simplefilter("ignore", UserWarning)
        yield Decoder(pool, budget, size, value_range, crop)


def fit_arrays(images: Images, size: int) -> Images:
    """Fit images (uint8, N x C x H x W, C 1 or 3) into N x C x size x size."""
    count, channels, height, width = images.shape
    if max(height, width) > size:
        pixels = images[:, 0] if channels == 1 else images.transpose(0, 2, 3, 1)
        return np.stack([_fit(Image.fromarray(np.ascontiguousarray(image)), size) for image in pixels])
    factor = size // max(height, width)
    enlarged = images if factor == 1 else images.repeat(factor, 2).repeat(factor, 3)
    height, width = enlarged.shape[2:]
    if height == width == size:
        return np.array(enlarged, order="C")
    top, left = (size - height) // 2, (size - width) // 2
    fitted = np.zeros((count, channels, size, size), np.uint8)
    fitted[:, :, top : top + height, left : left + width] = enlarged
    return fitted


def _check_single(image: ImageFile) -> None:
    """Raise BadPicture, before any pixel is decoded, if there are several pictures."""
    # A phone's JPEG (MPO) may hold further views after the picture.
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise BadPicture("it is animated or has several pages")


def _turned(image: ImageFile) -> Image.Image:
    return ImageOps.exif_transpose(image) if image.getexif().get(Base.Orientation, 1) != 1 else image


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Convert any mode of 8 bits a channel to L or RGB."""
    if image.has_transparency_data:
        page = Image.new("RGBA", image.size, "white")
        page.alpha_composite(image.convert("RGBA"))
        return page.convert("RGB")
    if image.mode in ("L", "RGB"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _fit(image: Image.Image, size: int) -> Images:
    longest = max(image.size)
    if longest > size:
        width, height = (max(1, round(edge * size / longest)) for edge in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)
    pixels = np.asarray(image)
    planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    fitted: Images = fit_arrays(planes[None], size)[0]
    return fitted
