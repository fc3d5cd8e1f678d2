"""Pictures like photographs, cut out of scikit-learn's two, and a dataset of them that is kept as JPEG."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from components.download import download
from components.preprocess import preprocess
from components.shared.data.dataset import Dataset, open_dataset
from components.shared.parameters.preparation import PreprocessRecipe
from tests.data.versions import READING, version_of

SIZE, SHORT = 32, 37
COUNTS = {"train": 40, "val": 12, "test": 12}


def cut(number: int, photograph: int) -> Image.Image:
    """A part of one of the two photographs, of a size of its own: of each four, one is smaller than what is kept."""
    random = np.random.default_rng(number)
    width, height = random.integers(24, 36, 2) if number % 4 == 0 else random.integers(48, 120, 2)
    left, top = random.integers(0, 640 - width), random.integers(0, 427 - height)
    return Image.fromarray(load_sample_images().images[photograph]).crop((left, top, left + width, top + height))


def write_photographs(folder: Path, *, counts: dict[str, int] = COUNTS) -> Path:
    """Write pictures of two classes in three splits: JPEGs, also gray and turned ones, and PNGs, also transparent."""
    number = 0
    for split, count in counts.items():
        for place in range(count):
            photograph = place % 2
            path = folder / split / ("temple", "flower")[photograph] / f"{place:03}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            _save(cut(number, photograph), path, place)
            number += 1
    return folder


def _save(picture: Image.Image, path: Path, place: int) -> None:
    if place % 5 == 1:
        picture.putalpha(200)
        picture.save(path.with_suffix(".png"))
    elif place % 5 == 2:
        picture.convert("L").save(path, quality=90)
    elif place % 5 == 3:
        exif = Image.Exif()
        exif[0x0112] = 6  # turned
        picture.save(path, quality=90, exif=exif)
    else:
        picture.save(path, quality=90)


def download_from(folder: Path, raw: Path) -> Path:
    """Run step download."""
    source = folder.as_uri()
    download(data=source, version=version_of(source), recipe=READING, needs_labels=True, raw=str(raw))
    return raw


def prepare_kept(raw: Path, dataset: Path, **settings: Any) -> Dataset:
    """Run step preprocess with keep=jpeg."""
    recipe = PreprocessRecipe.of(**{"image_size": SIZE, "keep": "jpeg", **settings}).text()
    preprocess(raw=str(raw), recipe=recipe, prepared_by="", dataset=str(dataset))
    return open_dataset(dataset)
