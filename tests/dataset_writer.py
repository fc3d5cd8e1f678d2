"""Write a prepared dataset from images, as step preprocess does, without dropping copies."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Unpack

import numpy as np

from components.shared.data.dataset import SPLITS, DatasetDocument, Images, Labels, Origin, write_document
from components.shared.data.preparation.rows import ROW, Rows, describe
from components.shared.data.preparation.settle import document_of, settle
from components.shared.data.preparation.unit import UNIT_BYTES, write_unit


class DatasetWriter:
    """Collects the images of each split; each unit has as many of each split as `shard_bytes` hold."""

    def __init__(
        self,
        folder: Path,
        *,
        classes: Sequence[str],
        image_shape: tuple[int, ...],
        counts: Mapping[str, int],
        shard_bytes: int = UNIT_BYTES,
    ) -> None:
        self.folder, self.classes, self.image_shape = folder, list(classes), image_shape
        self.counts, self.shard_rows = counts, max(1, shard_bytes // math.prod(image_shape))
        self.images: dict[str, list[Images]] = {split: [np.empty((0, *image_shape), np.uint8)] for split in SPLITS}
        self.labels: dict[str, list[Labels]] = {split: [np.empty(0, np.int64)] for split in SPLITS}

    def append(self, split: str, images: Images, labels: Labels) -> None:
        self.images[split].append(images)
        self.labels[split].append(labels)

    def finish(self, **origin: Unpack[Origin]) -> DatasetDocument:
        images = {split: np.concatenate(parts) for split, parts in self.images.items()}
        labels = {split: np.concatenate(parts) for split, parts in self.labels.items()}
        assert {split: len(found) for split, found in labels.items()} == dict(self.counts)
        units, rows = [], []
        for number, (part, pixels) in enumerate(self._units(images, labels)):
            units.append(write_unit(self.folder, number, part, [pixels]))
            rows.append(part)
        height, width = self.image_shape[1:]
        content = settle(self.folder, units, rows, (height, width), len(self.classes))
        return write_document(self.folder, document_of(self.folder, content, self.classes, **origin))

    def _units(self, images: Mapping[str, Images], labels: Mapping[str, Labels]) -> Iterator[tuple[Rows, Images]]:
        for start in range(0, max(self.counts.values()), self.shard_rows):
            part = slice(start, start + self.shard_rows)
            content = np.concatenate([images[split][part] for split in SPLITS])
            rows = np.zeros(len(content), ROW)
            describe(rows, content)
            rows["label"] = np.concatenate([labels[split][part] for split in SPLITS])
            rows["split"] = np.repeat(range(len(SPLITS)), [len(labels[split][part]) for split in SPLITS])
            yield rows, content
