"""A data set that is prepared in parts, or by one pod: the steps, called as the graphs call them."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.bigdata.partition import partition
from components.bigdata.prepare import prepare
from components.bigdata.settle import settle
from components.download import download
from components.preprocess import preprocess
from components.shared.data.dataset import Dataset, DatasetDocument, open_dataset
from components.shared.parameters.common import PartRecipe
from components.shared.parameters.preparation import PreprocessRecipe
from tests.data.versions import READING, version_of

SIZE = 8
UNIT = 8  # pictures
NUMBERS = itertools.count()  # of folders
SETTINGS: dict[str, Any] = {"image_size": SIZE, "test_fraction": 0.2, "val_fraction": 0.2, "max_bad_images": 1}


def listed(source: str, store: str, folder: Path, **changes: Any) -> Path:
    recipe = PreprocessRecipe.of(**{**SETTINGS, **changes}, store=store).text()
    partition(data=source, version=version_of(source), reading=READING, recipe=recipe, listing=str(folder))
    return folder


def prepare_part(listing: Path, part: int, parts: int) -> str:
    """Prepare a part; return the folder that tells what was done."""
    folder = listing.parent / f"part{next(NUMBERS)}"
    prepare(
        listing=str(listing),
        planned=PartRecipe.of(part=part, parts=parts).text(),
        part=str(folder),
    )
    return str(folder)


def prepared(listing: Path, order: Sequence[int], dataset: Path) -> Dataset:
    """Prepare all parts, in an order, and join them."""
    parts = [prepare_part(listing, part, len(order)) for part in order]
    settle(listing=str(listing), parts=parts, dataset=str(dataset))
    return open_dataset(dataset)


def without_seconds(data: Dataset) -> DatasetDocument:
    """Return the document as it would be of steps that took no time."""
    return data.document.model_copy(update={"seconds": {}}).sealed()


def prepared_alone(source: str, folder: Path, **changes: Any) -> Dataset:
    """Prepare the pictures in one pod."""
    raw, dataset = folder / "raw", folder / "alone"
    download(data=source, version=version_of(source), recipe=READING, needs_labels=True, raw=str(raw))
    preprocess(
        raw=str(raw), recipe=PreprocessRecipe.of(**SETTINGS, **changes).text(), prepared_by="", dataset=str(dataset)
    )
    return open_dataset(dataset)
