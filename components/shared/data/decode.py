"""Pictures to arrays: picture files are decoded, and images are fitted into a square of one size.

The aspect ratio is preserved. Larger images are scaled down with antialiasing; smaller ones are enlarged by whole
factors only (28 -> 32 is a border of 2, as in LeNet-5; 8 -> 32 a factor of 4), so that no pixel is interpolated. The
image is centred, and the border is zeros.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from components.shared.core.resources import cpu_count
from components.shared.data.dataset import Images

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "AVIF", "TIFF")
MAX_PIXELS = 2**26  # of one picture: 8,192 x 8,192; decoding needs four bytes of memory for each

_RUN = 8  # pictures that one thread decodes at a time: for small ones, handing them over takes longer
_ORIENTATION = 0x0112  # of EXIF
# Raised by Pillow for damaged files.
_DECODING_ERRORS = (
    Image.DecompressionBombError,
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


def decode(data: bytes, size: int) -> Images:
    """Decode a picture to uint8 (C, size, size): C is 1 for grayscale and 3 for colour.

    Transparent pictures get a white background, as in a browser; EXIF's orientation is applied; 16-bit grayscale is
    scaled to 8 bits. Raises BadPicture if the file is empty, broken, of another format, animated or too large.
    """
    if not data:
        raise BadPicture("the file is empty")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_header(image)
            image.draft(None, (2 * size, 2 * size))  # a JPEG can be decoded at 1/2, 1/4 or 1/8 of its size
            if image.getexif().get(_ORIENTATION, 1) != 1:
                return _fit(_to_8_bits(ImageOps.exif_transpose(image)), size)
            return _fit(_to_8_bits(image), size)
    except UnidentifiedImageError:
        raise BadPicture(f"it is in no supported format ({', '.join(FORMATS)})") from None
    except BadPicture:
        raise
    except _DECODING_ERRORS as error:
        raise BadPicture(f"it is broken ({error})") from None


@contextmanager
def decoder(size: int) -> Iterator[Callable[[Sequence[bytes]], list[Images | BadPicture]]]:
    """Yield a function that decodes pictures on all CPUs, in order, and returns BadPicture for one that is bad."""

    def decode_all(pictures: Sequence[bytes]) -> list[Images | BadPicture]:
        runs = [pictures[i : i + _RUN] for i in range(0, len(pictures), _RUN)]
        return [result for run in pool.map(decode_run, runs) for result in run]

    def decode_run(pictures: Sequence[bytes]) -> list[Images | BadPicture]:
        return [_attempt(data, size) for data in pictures]

    # Warning filters belong to the process, not to a thread: they are set here, around all threads.
    with warnings.catch_warnings(), ThreadPoolExecutor(cpu_count()) as pool:
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield decode_all


def fit_arrays(images: Images, size: int) -> Images:
    """Fit images (uint8, N x C x H x W, C 1 or 3) into N x C x size x size."""
    count, channels, height, width = images.shape
    if max(height, width) > size:
        pixels = images[:, 0] if channels == 1 else images.transpose(0, 2, 3, 1)
        return np.stack([_fit(Image.fromarray(np.ascontiguousarray(image)), size) for image in pixels])
    factor = size // max(height, width)
    height, width = height * factor, width * factor
    top, left = (size - height) // 2, (size - width) // 2
    fitted = np.zeros((count, channels, size, size), np.uint8)
    fitted[:, :, top : top + height, left : left + width] = images.repeat(factor, 2).repeat(factor, 3)
    return fitted


def _attempt(data: bytes, size: int) -> Images | BadPicture:
    try:
        return decode(data, size)
    except BadPicture as bad:
        return bad


def _check_header(image: Image.Image) -> None:
    """Raise BadPicture, before any pixel is decoded, if the picture is too large or not a single one."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise BadPicture(f"its {width:,} x {height:,} pixels are more than the allowed {MAX_PIXELS:,}")
    # A phone's JPEG (MPO) may hold further views after the picture.
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise BadPicture("it is animated or has several pages")


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Convert any mode to L or RGB, 8 bits a channel."""
    if image.mode in ("I", "F"):
        raise BadPicture("its pixels are 32-bit numbers without a fixed range")
    if image.mode.startswith("I;16"):
        wide = np.asarray(image).astype(np.uint32)  # Pillow's own conversion clips at 255
        return Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
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
