"""A batch that is put together from the shards of a split, in any order of these."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.shared.data.dataset import Labels, Readable
from components.shared.data.shard_images import KeptImages
from components.shared.training.reading.crops import RandomCrops


class Gathered:
    """The images at some indices of a split: pixels, or with `crops` random crops of pictures that are kept as JPEG."""

    def __init__(
        self, indices: NDArray[np.int64], image_shape: tuple[int, int, int], crops: RandomCrops | None
    ) -> None:
        count = len(indices)
        self._indices, self._crops = indices, crops
        self._images = np.empty((0 if crops else count, *image_shape), np.uint8)
        self._pictures = [b""] * (count if crops else 0)
        self._labels = np.empty(count, np.int64)

    def add(self, found: NDArray[np.bool_], shard: tuple[Readable, Labels], rows: NDArray[np.int64]) -> None:
        """Add some rows of a shard, at the places (bool, N) that are found to be of it."""
        images, labels = shard
        self._labels[found] = labels[rows]
        if not self._crops:
            self._images[found] = images[rows]
            return
        assert isinstance(images, KeptImages)
        for place, picture in zip(np.flatnonzero(found).tolist(), images.encoded(rows), strict=True):
            self._pictures[place] = picture

    def batch(self, epoch: int) -> tuple[Tensor, Tensor]:
        """Return images (uint8, N x C x H x W) and labels (int64, N) of an epoch."""
        labels = torch.from_numpy(self._labels)
        if not self._crops:
            return torch.from_numpy(self._images), labels
        return self._crops.decode(self._pictures, self._indices.tolist(), epoch), labels
