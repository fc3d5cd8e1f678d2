"""The splits of listed pictures, as they are before any is read."""

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.shared.data.dataset import SPLITS, Labels
from components.shared.data.parts.listing import PICTURES, Listing
from components.shared.data.preparation.settings import Settings
from components.shared.data.preparation.splits import TEST, TRAIN, VAL, Splitter, check_classes, held_out


def assigned(listing: Listing, settings: Settings) -> Iterator[NDArray[np.uint8]]:
    """Yield the splits of each SPLIT_ROWS pictures."""
    splitter = Splitter(_counts(listing), _fractions(settings), settings.seed)
    for labels, splits in _labels_and_splits(listing):
        yield splitter.assign(labels.astype(np.int32), splits)


def _fractions(settings: Settings) -> Mapping[int, float]:
    """Return the shares that are held out for splits that the source does not have."""
    return {VAL: settings.val_fraction, TEST: settings.test_fraction}


def check_splits(listing: Listing, settings: Settings) -> None:
    """Raise UserError if a split will have no picture of a class, even if no picture is bad or dropped as a copy."""
    counts = _counts(listing)
    taken = held_out(counts, _fractions(settings))
    counts += taken
    counts[TRAIN] -= taken.sum(axis=0)
    check_classes(listing.document.classes, counts, counts.sum(axis=0))


def _counts(listing: Listing) -> NDArray[np.int64]:
    """Return the number of pictures (split x class)."""
    counts = np.zeros((len(SPLITS), len(listing.document.classes)), np.int64)
    for labels, splits in _labels_and_splits(listing):
        np.add.at(counts, (splits, labels), 1)
    return counts


def _labels_and_splits(listing: Listing) -> Iterator[tuple[Labels, NDArray[np.uint8]]]:
    with pq.ParquetFile(listing.folder / PICTURES) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, ["label", "split"]).combine_chunks()
            named = table["split"].chunk(0)
            numbers = [SPLITS.index(name) if name in SPLITS else TRAIN for name in named.dictionary.to_pylist()]
            yield table["label"].to_numpy().astype(np.int64), np.array(numbers, np.uint8)[named.indices.to_numpy()]
