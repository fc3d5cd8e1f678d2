"""The contact sheet: a few images of each class on one picture, to check a dataset at a glance."""

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from components.shared.core.files import new_file
from components.shared.data.dataset import Dataset
from components.shared.data.decode import fit_arrays

CLASSES = 20
COLUMNS = 10

_CELL = 64  # pixels
_GAP = 4
_FONT = 14
_NAME = 170  # pixels, of the longest name


def save_contact_sheet(data: Dataset, path: Path) -> None:
    """Draw the first ten training images of each of the first twenty classes to a PNG file, one class a row."""
    font = ImageFont.load_default(_FONT)
    names = [_shortened(name, font) for name in data.classes[:CLASSES]]
    left = 2 * _GAP + math.ceil(max(map(font.getlength, names)))
    step = _CELL + _GAP
    sheet = Image.new("RGB", (left + COLUMNS * step, len(names) * step + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (name, numbers) in enumerate(zip(names, _first_of_each(data, len(names)), strict=True)):
        top = _GAP + row * step
        draw.text((_GAP, top + (_CELL - _FONT) // 2), name, "black", font)
        for column, cell in enumerate(fit_arrays(data.take("train", numbers), _CELL) if numbers else ()):
            picture = Image.fromarray(np.broadcast_to(cell, (3, _CELL, _CELL)).transpose(1, 2, 0))
            sheet.paste(picture, (left + column * step, top))
    with new_file(path) as file:
        sheet.save(file, "PNG")


def _first_of_each(data: Dataset, classes: int) -> list[list[int]]:
    """Return the numbers of the first images of each class in the training split."""
    first: list[list[int]] = [[] for _ in range(classes)]
    start = 0
    for labels in data.shard_labels("train"):
        for numbers, label in zip(first, range(classes), strict=True):
            numbers += (start + np.flatnonzero(labels == label)[: COLUMNS - len(numbers)]).tolist()
        if all(len(numbers) == COLUMNS for numbers in first):
            break
        start += len(labels)
    return first


def _shortened(name: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Return the part of a name that fits in its column."""
    ends = (n for n in range(len(name), 0, -1) if font.getlength(name[:n]) <= _NAME)
    return name[: next(ends, 0)]
