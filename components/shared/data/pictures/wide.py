"""Pictures of wide numbers: of 16 bits, 32 bits or floats, signed or not, gray or, with 16 bits, in colour."""

import io
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.ExifTags import Base
from PIL.ImageFile import ImageFile

# The number of values of each type; a float counts in units of its own.
SPANS = {"float": 0, "int16": 2**16, "int32": 2**32, "uint16": 2**16, "uint32": 2**32}

_UNSIGNED = 1  # of TIFF's SampleFormat
# Pillow decodes 16 bits in colour to 8: one raw mode takes the first byte of each number, the other one the second.
_OTHER_BYTE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_COLOURS = {f"{mode};16{order}" for mode in ("RGB", "RGBX", "RGBA") for order in _OTHER_BYTE}
_GRAY_WITH_ALPHA = "LA;16B"
# libtiff has brought numbers to this machine's order of bytes, which Pillow knows of unsigned 16 bits alone.
_IN_FILE_ORDER = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}


@dataclass(frozen=True)
class Numbers:
    """The numbers of a picture (H x W, or H x W x 3), and which pixels are transparent (uint8 alpha, H x W)."""

    values: NDArray[Any]
    alpha: NDArray[np.uint8] | None = None


def wide_type(image: Image.Image) -> str:
    """Return the type of an opened picture's numbers: a key of SPANS, or nothing if they have 8 bits or fewer."""
    if image.mode.startswith("I;16") or _raw_mode(image) in (*_COLOURS, _GRAY_WITH_ALPHA):
        return "uint16"
    if image.mode == "F":
        return "float"
    return _integer_type(image) if image.mode == "I" else ""


def read_numbers(image: ImageFile, data: bytes) -> Numbers:
    """Return the numbers of a wide picture, which was opened from `data`, as EXIF's orientation turns it."""
    raw_mode = _raw_mode(image)
    if raw_mode == _GRAY_WITH_ALPHA:
        pairs = _load(image, "RGBA")  # four bytes: the number and its alpha
        return Numbers(_combine(pairs[..., 0], pairs[..., 1]), pairs[..., 2])
    transparent = image.info.get("transparency")  # of PNG: one number, or one for each channel
    if raw_mode in _COLOURS:
        with Image.open(io.BytesIO(data), formats=[image.format or ""]) as again:
            first, second = _load(image, raw_mode), _load(again, raw_mode[:-1] + _OTHER_BYTE[raw_mode[-1]])
        values = _combine(first[..., :3], second[..., :3])
        alpha = first[..., 3] if first.shape[2] == 4 else _alpha(values, transparent)
        return Numbers(values, alpha)
    is_native = image.tile[0].codec_name == "libtiff"
    values = _load(image, _IN_FILE_ORDER.get(raw_mode, raw_mode) if is_native else raw_mode)
    if wide_type(image) == "uint32":
        values = values.view(np.uint32)
    return Numbers(values, _alpha(values, transparent))


def _integer_type(image: Image.Image) -> str:
    tags: Any = getattr(image, "tag_v2", {})  # of a TIFF
    bits, kind = (tags.get(tag, (0,))[0] for tag in (Base.BitsPerSample, Base.SampleFormat))
    return f"uint{bits or 32}" if kind == _UNSIGNED else f"int{bits or 32}"


def _raw_mode(image: Image.Image) -> str:
    """Return how Pillow's decoder unpacks an opened picture's pixels; nothing if the format's decoder does not say."""
    if not isinstance(image, ImageFile) or not image.tile:
        return ""
    args = image.tile[0].args
    return args if isinstance(args, str) else str(args[0]) if args else ""


def _load(image: ImageFile, raw_mode: str) -> NDArray[Any]:
    """Decode a picture with a raw mode of the width of its own."""
    image.tile = [tile._replace(args=_with(tile.args, raw_mode)) for tile in image.tile]
    return np.asarray(ImageOps.exif_transpose(image))


def _with(args: Any, raw_mode: str) -> Any:
    return raw_mode if isinstance(args, str) else (raw_mode, *args[1:])


def _combine(high: NDArray[np.uint8], low: NDArray[np.uint8]) -> NDArray[np.uint16]:
    values = high.astype(np.uint16)
    values <<= 8
    values |= low
    return values


def _alpha(values: NDArray[Any], transparent: Any) -> NDArray[np.uint8] | None:
    if not isinstance(transparent, int | tuple):
        return None
    same = values == np.array(transparent)
    return np.where(same if values.ndim == 2 else same.all(axis=2), 0, 255).astype(np.uint8)
