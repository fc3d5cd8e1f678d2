"""Decode the pictures of a source into a buffer; those of more than 8 bits give their values until they are scaled."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from components.shared.core.document import Keep
from components.shared.core.errors import UserError
from components.shared.core.resources import cpu_count
from components.shared.data.dataset import SPLITS, Images
from components.shared.data.decode import BadPicture, Decoded, Decoder, Result, fit_arrays
from components.shared.data.layout.left_out import BadImage
from components.shared.data.pictures.kept import DIGEST_BYTES, Kept
from components.shared.data.pictures.value_range import Unscaled, ValueSample
from components.shared.data.preparation.decode_buffer import DecodeBuffer
from components.shared.data.preparation.splits import TRAIN
from components.shared.data.raw import Chunk

# Of prepared pixels, of which there are several copies: few enough for the CPU's cache, but some for each CPU.
CHUNK_BYTES, MAX_CHUNK_BYTES, FOR_EACH_CPU = 2 * 2**20, 16 * 2**20, 8


def chunk_size(image_size: int) -> int:
    """Return the number of images that are decoded, or written, at a time."""
    pixels = 3 * image_size**2
    return max(1, min(MAX_CHUNK_BYTES // pixels, max(CHUNK_BYTES // pixels, FOR_EACH_CPU * cpu_count())))


@dataclass
class Decoding:
    """What came of the pictures so far; one without bounds to scale it is black in the buffer."""

    buffer: DecodeBuffer
    unscaled: ValueSample
    max_bad_images: int
    bad_images: list[BadImage] = field(default_factory=list)
    types: Counter[str] = field(default_factory=Counter)  # of their numbers

    def add(self, chunk: Chunk, decode_all: Decoder) -> None:
        """Add the pictures of a chunk.

        Raises UserError for the first that is bad, and one too many, and if what is to be kept as JPEG has no files.
        """
        is_good = np.ones(len(chunk.labels), bool)
        images: Images | list[Kept]
        if chunk.images is not None:
            check_files(self.buffer.keep)
            images = fit_arrays(chunk.images, self.buffer.size)
            sizes = np.full((len(images), 2), chunk.images.shape[:1:-1], np.int32)
        else:
            assert chunk.encoded is not None
            decoded = decode_all.each(chunk.encoded)
            results = [one.result for one in decoded]
            sizes = np.array([one.size for one in decoded], np.int32)
            is_good = np.array([not isinstance(result, BadPicture) for result in results])
            if not is_good.all():
                self.bad_images += self._bad(chunk.names, results)
            images = self._kept(decoded) if self.buffer.keep == "jpeg" else self._images(results)
        split = TRAIN if chunk.split == "all" else SPLITS.index(chunk.split)
        self.buffer.append(images, chunk.labels, split, is_good, sizes)
        self.types = decode_all.types

    def _kept(self, decoded: Sequence[Decoded]) -> list[Kept]:
        """Return good pictures as they are kept; an unscaled one is noted, and black."""
        pictures: list[Kept] = []
        for number, one in enumerate(decoded, self.buffer.count):
            if isinstance(one.result, Unscaled):
                self.unscaled.add(number, one.result)
                pictures.append(Kept(b"", bytes(DIGEST_BYTES), np.zeros((1, 1, 1), np.uint8)))
            elif one.kept:
                pictures.append(one.kept)
        return pictures

    def _images(self, results: Sequence[Result]) -> Images:
        """Return the images of good pictures as one array; an unscaled one is noted, and black."""
        size = self.buffer.size
        good: list[Images] = []
        for number, result in enumerate(results, self.buffer.count):
            if isinstance(result, np.ndarray):
                good.append(result)
            elif isinstance(result, Unscaled):
                self.unscaled.add(number, result)
                good.append(np.zeros((1, size, size), np.uint8))
        channels = max(map(len, good), default=1)
        stacked = np.empty((len(good), channels, size, size), np.uint8)
        for row, image in zip(stacked, good, strict=True):
            row[:] = image
        return stacked

    def _bad(self, names: Sequence[str], results: Sequence[Result]) -> list[BadImage]:
        found = [
            BadImage(name=name, reason=str(result))
            for name, result in zip(names, results, strict=True)
            if isinstance(result, BadPicture)
        ]
        check_bad(found, self.max_bad_images - len(self.bad_images))
        return found


def check_files(keep: Keep) -> None:
    """Raise UserError if pictures that have no files are to be kept as JPEG."""
    if keep == "jpeg":
        raise UserError("keep=jpeg, but the data set has pixels and no files of pictures", "give keep=raw")


def check_bad(bad_images: Sequence[BadImage], allowed: int) -> None:
    """Raise UserError for the first bad picture beyond the allowed number."""
    if len(bad_images) > allowed:
        bad = bad_images[allowed]
        raise UserError(
            f"picture {bad.name} cannot be used: {bad.reason}",
            "repair or remove it, or set max_bad_images to the number of pictures that may be skipped",
        )
