"""The contact sheet: a few images of each class on one picture, to check a dataset at a glance."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from components.shared.core.files import new_file
from components.shared.data.dataset import Images, Labels
from components.shared.data.decode import fit_arrays

CLASSES = 20
COLUMNS = 10

_CELL = 64  # pixels
_GAP = 4
_FONT = 14
_NAME = 170  # pixels, of the longest name


class ContactSheet:
    """Collects the first ten images of each of the first twenty classes, one class a row."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = list(classes[:CLASSES])
        self._cells: list[list[Images]] = [[] for _ in self._classes]

    def add(self, images: Images, labels: Labels) -> None:
        """Add the images (uint8, N x C x H x W, labels N) that are still needed, scaled to a cell."""
        for label, cells in enumerate(self._cells):
            if missing := COLUMNS - len(cells):
                chosen = np.flatnonzero(labels == label)[:missing]
                if len(chosen):
                    cells.extend(fit_arrays(images[chosen], _CELL))

    def save(self, path: Path) -> None:
        """Draw the sheet to a PNG file."""
        font = ImageFont.load_default(_FONT)
        names = [_shortened(name, font) for name in self._classes]
        left = 2 * _GAP + math.ceil(max(map(font.getlength, names)))
        step = _CELL + _GAP
        sheet = Image.new("RGB", (left + COLUMNS * step, len(names) * step + _GAP), "white")
        draw = ImageDraw.Draw(sheet)
        for row, (name, cells) in enumerate(zip(names, self._cells, strict=True)):
            top = _GAP + row * step
            draw.text((_GAP, top + (_CELL - _FONT) // 2), name, "black", font)
            for column, cell in enumerate(cells):
                picture = Image.fromarray(np.broadcast_to(cell, (3, _CELL, _CELL)).transpose(1, 2, 0))
                sheet.paste(picture, (left + column * step, top))
        with new_file(path) as file:
            sheet.save(file, "PNG")


def _shortened(name: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Return the part of a name that fits in its column."""
    ends = (n for n in range(len(name), 0, -1) if font.getlength(name[:n]) <= _NAME)
    return name[: next(ends, 0)]
