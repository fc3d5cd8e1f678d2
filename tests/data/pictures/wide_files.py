"""Writers of the wide pictures that Pillow reads but does not write."""

import struct
import zlib
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

KINDS = {"u": 1, "i": 2, "f": 3}  # of TIFF's SampleFormat


def png16(pixels: NDArray[np.uint16], transparent: bytes = b"") -> bytes:
    """Return a PNG of 16 bits a channel: H x W x C, C is 1 (gray), 2 (and alpha), 3 (RGB) or 4 (RGBA)."""
    height, width, channels = pixels.shape
    # The filter `up`, so that a wrong width of a pixel or a row would show.
    rows = pixels.astype(">u2").reshape(height, -1).view(np.uint8)
    filtered = np.diff(rows, axis=0, prepend=np.zeros_like(rows[:1]))
    lines = b"".join(b"\2" + row.tobytes() for row in filtered)
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    if transparent:
        chunks.insert(1, (b"tRNS", transparent))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def tiff(pixels: NDArray[Any], *, big_endian: bool = False, compressed: bool = False, orientation: int = 1) -> bytes:
    """Return a TIFF of one strip: H x W, or H x W x C."""
    order: Literal[">", "<"] = ">" if big_endian else "<"
    height, width, *channels = pixels.shape
    samples = channels[0] if channels else 1
    strip = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    strip = zlib.compress(strip) if compressed else strip
    bits = 8 * pixels.dtype.itemsize
    lists = struct.pack(f"{order}{2 * samples}H", *[bits] * samples, *[KINDS[pixels.dtype.kind]] * samples)
    at = 8 + len(strip)
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, samples, bits if samples == 1 else at),
        (259, 3, 1, 8 if compressed else 1),
        (262, 3, 1, 2 if samples > 1 else 1),
        (273, 4, 1, 8),
        (274, 3, 1, orientation),
        (277, 3, 1, samples),
        (278, 4, 1, height),
        (279, 4, 1, len(strip)),
        (339, 3, samples, KINDS[pixels.dtype.kind] if samples == 1 else at + 2 * samples),
    ]
    if samples == 4:
        tags.insert(-1, (338, 3, 1, 2))  # the fourth is alpha
    entries = b"".join(_entry(order, *tag) for tag in tags)
    start = struct.pack(f"{order}2sHI", b"MM" if big_endian else b"II", 42, at + len(lists))
    return start + strip + lists + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)


def _entry(order: str, tag: int, kind: int, count: int, value: int) -> bytes:
    is_short = kind == 3 and count == 1
    return struct.pack(f"{order}HHI" + ("HH" if is_short else "I"), tag, kind, count, value, *([0] if is_short else []))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
