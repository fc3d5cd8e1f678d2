"""The pictures to predict, read from raw data or a prepared dataset, and prepared as the package says.

They come always in the same order, in constant memory.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.shared.core.errors import UserError
from components.shared.data.dataset import SPLITS, Dataset, Images, open_dataset
from components.shared.data.decode import BadPicture, Decoder, decoder, fit_arrays
from components.shared.data.raw import Chunk, Raw, open_raw
from components.shared.data.samples.stored import UNLABELLED
from components.shared.evaluation.exported_model import PackageDocument
from components.shared.evaluation.inference import batch_size

# ITU-R 601, as Pillow converts colours to gray, in units of 2^-16.
GRAY_WEIGHTS, GRAY_ROUNDING, GRAY_SHIFT = np.array([19595, 38470, 7471], np.uint32), 0x8000, 16


@dataclass(frozen=True)
class Batch:
    """Some pictures in a row: `images` (uint8, N x C x H x W) are those of the rows without an error."""

    names: list[str]
    digests: list[str]  # SHA-256 of each picture file, or of its pixels if it has none
    labels: list[str | None]
    errors: list[str | None]  # why a picture cannot be used
    images: Images

    @property
    def good(self) -> NDArray[np.bool_]:
        """Return which rows have no error."""
        return np.array([error is None for error in self.errors])


class Inputs:
    """The pictures in a folder: raw data as step download leaves them, or a prepared dataset."""

    def __init__(self, folder: Path, package: PackageDocument) -> None:
        """Open the folder. Raises UserError if a prepared dataset has images of another size than the package's."""
        self._package, self._shape = package, package.input.sizes
        self._data: Raw | Dataset = open_dataset(folder) if (folder / "dataset.json").exists() else open_raw(folder)
        self.size = batch_size(self._shape)
        if isinstance(self._data, Dataset) and [*self._data.image_shape] != self._shape:
            found, wanted = (" x ".join(map(str, shape)) for shape in (self._data.image_shape, self._shape))
            raise UserError(
                f"{folder} holds images of {found}, and the model wants {wanted}",
                "give the data that it was prepared from",
            )
        if isinstance(self._data, Dataset) and (self._data.document.keep == "jpeg") != self._crops:
            raise UserError(
                f"{folder} was prepared with keep={self._data.document.keep}, and the model's data was not",
                "give the data that it was prepared from",
            )

    @property
    def digest(self) -> str:
        """Return the digest of the content."""
        return self._data.digest

    @property
    def count(self) -> int:
        """Return the number of pictures."""
        counts = self._data.counts
        return sum(counts.values())

    def batches(self, first: int = 0, end: int | None = None) -> Iterator[Batch]:
        """Yield the pictures from number `first` to before `end`, in batches of `size`; the last one may be smaller.

        Those before are not decoded, and those from `end` on, which is a multiple of `size`, are not read. A picture
        that cannot be used is a row with its error. Raises UserError if a file is missing or damaged.
        """
        with self._decoder() as decode_all:
            chunks = _regrouped(self._chunks(), first, self.size)
            for chunk in islice(chunks, None if end is None else max(end - first, 0) // self.size):
                yield self._prepared(chunk, decode_all)

    def take(self, numbers: Sequence[int]) -> Iterator[Batch]:
        """Yield the pictures of these numbers, which are sorted, each as a batch of one."""
        wanted = iter(numbers)
        number, start = next(wanted, None), 0
        with self._decoder() as decode_all:
            for chunk in self._chunks():
                while number is not None and number < start + len(chunk.names):
                    yield self._prepared(_cut(chunk, number - start, number - start + 1), decode_all)
                    number = next(wanted, None)
                start += len(chunk.names)
                if number is None:
                    return

    def _decoder(self) -> AbstractContextManager[Decoder]:
        return decoder(self._shape[1], self._package.value_range, crop=self._crops)

    @property
    def _crops(self) -> bool:
        """Return whether the model takes the centre crop of a picture."""
        preparation = self._package.preparation
        return bool(preparation and preparation.crop)

    def _chunks(self) -> Iterator[Chunk]:
        if isinstance(self._data, Raw):
            yield from self._data.chunks(self.size)
            return
        for split in SPLITS:
            start = 0
            for images, labels in self._data.batches(split, self.size):
                names = [f"{split}/{number}" for number in range(start, start + len(images))]
                yield Chunk(split, labels, names, images=images)
                start += len(images)

    def _prepared(self, chunk: Chunk, decode_all: Decoder) -> Batch:
        classes = self._data.classes
        labels = [None if label == UNLABELLED else classes[label] for label in chunk.labels.tolist()]
        if chunk.images is not None:
            images = self._of_channels(fit_arrays(chunk.images, self._shape[1]))
            digests = [hashlib.sha256(image).hexdigest() for image in np.ascontiguousarray(chunk.images)]
            return Batch(chunk.names, digests, labels, [None] * len(labels), images)
        assert chunk.encoded is not None
        errors: list[str | None] = []
        good: list[Images] = []
        for result in decode_all(chunk.encoded):
            if isinstance(result, np.ndarray):
                good.append(self._of_channels(result[None])[0])
                errors.append(None)
            else:
                errors.append(_reason(result))
        images = np.stack(good) if good else np.zeros((0, *self._shape), np.uint8)
        digests = [hashlib.sha256(content).hexdigest() for content in chunk.encoded]
        return Batch(chunk.names, digests, labels, errors, images)

    def _of_channels(self, images: Images) -> Images:
        """Return images in the colours that the model was trained on: gray or three channels."""
        if images.shape[1] == self._shape[0]:
            return images
        return np.repeat(images, 3, axis=1) if images.shape[1] == 1 else gray(images)


def gray(images: Images) -> Images:
    """Return images (uint8, N x 3 x H x W) in gray (N x 1 x H x W), each pixel as Pillow converts it."""
    weighted: NDArray[Any] = np.tensordot(GRAY_WEIGHTS, images.astype(np.uint32), axes=(0, 1))
    return ((weighted + GRAY_ROUNDING) >> GRAY_SHIFT).astype(np.uint8)[:, None]


def _reason(result: Exception | Any) -> str:
    if isinstance(result, BadPicture):
        return str(result)
    return f"its numbers are of type {result}, and the model was trained on pictures of 8 bits"


def _regrouped(chunks: Iterator[Chunk], first: int, size: int) -> Iterator[Chunk]:
    """Yield the rows from `first` on in chunks of `size`, wherever those that come end."""
    waiting: list[Chunk] = []
    for chunk in chunks:
        if first >= len(chunk.names):
            first -= len(chunk.names)
            continue
        chunk, first = _cut(chunk, first, len(chunk.names)), 0
        waiting.append(chunk)
        while sum(len(part.names) for part in waiting) >= size:
            whole = _joined(waiting)
            yield _cut(whole, 0, size)
            waiting = [_cut(whole, size, len(whole.names))] if len(whole.names) > size else []
    if waiting:
        yield _joined(waiting)


def _cut(chunk: Chunk, start: int, end: int) -> Chunk:
    return Chunk(
        chunk.split,
        chunk.labels[start:end],
        chunk.names[start:end],
        None if chunk.images is None else chunk.images[start:end],
        None if chunk.encoded is None else chunk.encoded[start:end],
    )


def _joined(chunks: Sequence[Chunk]) -> Chunk:
    first = chunks[0]
    if len(chunks) == 1:
        return first
    images = None if first.images is None else np.concatenate([c.images for c in chunks if c.images is not None])
    encoded = None if first.encoded is None else [content for c in chunks for content in c.encoded or ()]
    names = [name for chunk in chunks for name in chunk.names]
    return Chunk(first.split, np.concatenate([c.labels for c in chunks]), names, images, encoded)
