"""docs/data.md says what becomes of each mode: every row is tried."""

import io
import re
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.shared.core.document import ValueRange
from components.shared.data.decode import decode
from tests.data.pictures.wide_files import png16, tiff
from tests.repository.documents import read

BOUNDS = ValueRange(low=1000, high=3000)
SIZE = 8

Pixel = tuple[float, ...]


def rows() -> dict[str, tuple[Pixel, Pixel]]:
    """The rows of the table: the mode, a pixel of it, and what it becomes."""
    table = read("docs/data.md").split("## What becomes of each mode")[1].split("\n## ")[0]
    found = [[cell.strip() for cell in line.split("|")[1:4]] for line in table.splitlines() if line.startswith("| ")]
    return {cells[0]: (numbers(cells[1]), numbers(cells[2])) for cells in found[1:]}


def numbers(cell: str) -> Pixel:
    return tuple(map(float, cell.strip("`").split(",")))


def plain(mode: str) -> Callable[[Pixel], bytes]:
    def write(pixel: Pixel) -> bytes:
        file = io.BytesIO()
        colour: Any = tuple(map(int, pixel)) if len(pixel) > 1 else pixel[0] if mode == "F" else int(pixel[0])
        Image.new(mode, (SIZE, SIZE), colour).save(file, "TIFF")
        return file.getvalue()

    return write


def palette(pixel: Pixel) -> bytes:
    picture = Image.new("P", (SIZE, SIZE), 1)
    picture.putpalette([1, 2, 3, *map(int, pixel[:3])])
    file = io.BytesIO()
    picture.save(file, "PNG", **({"transparency": bytes([255, int(pixel[3])])} if len(pixel) > 3 else {}))
    return file.getvalue()


def wide(write: Callable[..., bytes]) -> Callable[[Pixel], bytes]:
    return lambda pixel: write(np.full((SIZE, SIZE, len(pixel)), pixel, np.uint16))


def cmyk16(pixel: Pixel) -> bytes:
    """A TIFF of four 16-bit inks: that of RGBA, with another photometric interpretation."""
    rgba = tiff(np.full((SIZE, SIZE, 4), pixel, np.uint16))
    found = rgba.replace(struct.pack("<HHIHH", 262, 3, 1, 2, 0), struct.pack("<HHIHH", 262, 3, 1, 5, 0))
    return found.replace(struct.pack("<HHIHH", 338, 3, 1, 2, 0), struct.pack("<HHIHH", 332, 3, 1, 1, 0))


WRITERS = {
    **{f"`{mode}`": plain(mode) for mode in ("1", "L", "LA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB")},
    "`P`": palette,
    "`P` with alpha": palette,
    "`I;16` (16 bits)": plain("I;16"),
    "`I` (16 bits signed, 32 bits)": plain("I"),
    "`F` (floats)": plain("F"),
    "16-bit `LA`": wide(png16),
    "16-bit `RGB`": wide(png16),
    "16-bit `RGBA`": wide(tiff),
    "16-bit `CMYK`": cmyk16,
}


def test_the_table_has_every_mode_that_is_tried() -> None:
    assert list(rows()) == sorted(WRITERS, key=list(rows()).index)


@pytest.mark.parametrize("mode", WRITERS)
def test_a_pixel_of_each_mode_becomes_what_the_table_says(mode: str) -> None:
    pixel, expected = rows()[mode]
    data = WRITERS[mode](pixel)
    with Image.open(io.BytesIO(data)) as image:
        name = re.findall("`(.+?)`", mode)[0]
        assert image.mode == ("RGBA" if mode == "16-bit `LA`" else name)  # Pillow has no wide LA
    decoded = decode(data, SIZE, BOUNDS)
    assert {tuple(row) for row in decoded.reshape(len(decoded), -1).T.tolist()} in (
        {expected},
        {expected * 3},  # gray in three channels: it is stored as one
    )
