"""Pictures that are kept as JPEG, of which networks read crops: how they are made, judged and cropped.

A picture that is a JPEG already, upright, gray or RGB, and of a short side of at most `short_side`, is kept as it is.
Any other is scaled down to that short side, never enlarged, and encoded. Where a JPEG has a fault, Pillow says whether
the picture is bad, as for all others. Two pictures are copies if their JPEGs are decoded to the same pixels,
whatever else is in the files. They are decoded by simplejpeg, in 0.56 of the time that Pillow takes
(bench/jpeg_decoders.py), while other threads run.
"""

import hashlib
import io
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import Base
from PIL.ImageFile import ImageFile

QUALITY, SUBSAMPLING = 95, "4:2:0"  # the subsampling of cameras
LONGEST = 65_500  # pixels, of a side of a JPEG
JPEG_SHARE = 4  # a JPEG takes about one part in four of the pixels of its image
DIGEST_BYTES = 16

_STEP = 16  # pixels, of which one tells first that most pictures are not gray
Pixels = NDArray[np.uint8]


class TooLong(ValueError):
    """A picture that is too long for a JPEG; the message says how long it is."""


class Kept(NamedTuple):
    """A picture as it is kept."""

    data: bytes  # of the JPEG
    digest: bytes  # of its pixels (one channel if all are equal) and its size
    crop: Pixels  # (C, size, size) from its centre: C is 1 if all its channels are equal, else 3


def short_side(size: int) -> int:
    """Return the short side to which a picture is scaled down, of which crops have `size`: 256 for 224."""
    return round(size * 8 / 7)


def is_kept_as_it_is(image: ImageFile, size: int) -> bool:
    """Return whether the file of an opened picture is kept."""
    is_plain = image.format == "JPEG" and image.mode in ("L", "RGB") and min(image.size) <= short_side(size)
    return is_plain and image.getexif().get(Base.Orientation, 1) == 1


def keep(image: Image.Image, size: int, data: bytes | None) -> Kept:
    """Return a picture (L or RGB) as it is kept; `data` is its file if that is kept as it is.

    Raises TooLong if a JPEG cannot be so long, and Pillow's errors if the picture is broken.
    """
    pixels = None if data is None else _decode_file(data, image)
    if data is None or pixels is None:
        data = _encoded(_scaled_down(image, short_side(size)))
        pixels = decode_kept(data)
    is_gray = _is_gray(pixels[::_STEP, ::_STEP]) and _is_gray(pixels)
    content = hashlib.blake2b(repr(pixels.shape[:2]).encode(), digest_size=DIGEST_BYTES)
    content.update(np.ascontiguousarray(pixels[:, :, 0] if is_gray else pixels).data)
    return Kept(data, content.digest(), centre_crop(pixels, size)[: 1 if is_gray else 3])


def decode_kept(data: bytes) -> Pixels:
    """Decode a kept picture by its JPEG alone (uint8, H x W x 3): EXIF and colour profiles change nothing.

    Raises ValueError if it is damaged.
    """
    from simplejpeg import decode_jpeg

    pixels: Pixels = decode_jpeg(data, strict=False)  # as Pillow, which does not mind warnings either
    return pixels


def centre_crop(pixels: Pixels, size: int) -> Pixels:
    """Return the centre of a kept picture (uint8, H x W x 3) as an image (uint8, 3 x size x size).

    It is 7/8 of the short side wide; of a picture that is too small for that, it is enlarged (bicubic).
    """
    height, width = pixels.shape[:2]
    short = min(height, width)
    if short == short_side(size):
        top, left = (height - size) // 2, (width - size) // 2
        crop = pixels[top : top + size, left : left + size]
    else:
        side = short * size / short_side(size)
        x, y = (width - side) / 2, (height - side) / 2
        box = (x, y, x + side, y + side)
        crop = np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC, box=box))
    return np.ascontiguousarray(crop.transpose(2, 0, 1))


def _decode_file(data: bytes, image: Image.Image) -> Pixels | None:
    """Decode the file of an opened picture; return None if `decode_kept` would give other pixels than Pillow.

    Raises Pillow's errors if the picture is broken.
    """
    from simplejpeg import decode_jpeg

    try:
        sound: Pixels = decode_jpeg(data)
        return sound
    except ValueError:  # also of what does no harm, such as needless bytes
        image.load()
    try:
        pixels = decode_kept(data)  # fills what is missing with gray
    except ValueError:  # of a subsampling that simplejpeg does not know
        return None
    return pixels if np.array_equal(pixels, np.asarray(image.convert("RGB"))) else None


def _is_gray(pixels: Pixels) -> bool:
    return bool((pixels == pixels[:, :, :1]).all())


def _scaled_down(image: Image.Image, short: int) -> Image.Image:
    if min(image.size) > short:
        width, height = (max(1, round(edge * short / min(image.size))) for edge in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)
    if max(image.size) > LONGEST:
        raise TooLong(f"scaled down, it is {max(image.size):,} pixels long, and a JPEG has at most {LONGEST:,}")
    return image


def _encoded(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.info = {}  # else comments were written, too
    image.save(file, "JPEG", quality=QUALITY, subsampling=SUBSAMPLING)
    return file.getvalue()
