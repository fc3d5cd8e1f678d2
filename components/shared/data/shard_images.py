"""The images of a shard, read as they are indexed: pixels that are memory-mapped, or kept pictures, then decoded."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from components.shared.core.errors import CorruptDataError
from components.shared.core.resources import cpu_count
from components.shared.data.pictures.kept import centre_crop, decode_kept

Images = NDArray[np.uint8]
Places = slice | NDArray[np.int64]  # all, or some rows of a shard
_FEW = 8  # pictures that are decoded in one thread


class ShardImages:
    """The images of a shard (uint8, N x C x H x W), memory-mapped: what is indexed is read."""

    def __init__(self, mapped: Images, places: Places, channels: int) -> None:
        """Show those in some places of the file, in so many channels."""
        self._mapped, self._places, self._channels = mapped, places, channels

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._mapped) if isinstance(self._places, slice) else len(self._places)

    def __getitem__(self, chosen: slice | NDArray[np.int64]) -> Images:
        """Read some images."""
        images = self._mapped[chosen if isinstance(self._places, slice) else self._places[chosen]]
        return images if images.shape[1] == self._channels else images.repeat(self._channels, 1)


class KeptImages:
    """The pictures of a shard that are kept as JPEG, memory-mapped; what is indexed are their centre crops."""

    def __init__(
        self, mapped: Images, offsets: NDArray[np.int64], places: Places, image_shape: tuple[int, int, int]
    ) -> None:
        """Show those in some places of the file, picture n from offset n to offset n + 1, as images of a shape."""
        self._mapped, self._offsets, self._image_shape = mapped, offsets, image_shape
        self._places = np.arange(len(offsets) - 1)[places]

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self._places)

    def __getitem__(self, chosen: slice | NDArray[np.int64]) -> Images:
        """Decode some pictures, on all CPUs, to their centre crops (uint8, N x C x H x W)."""
        pictures = self.encoded(chosen)
        images = np.empty((len(pictures), *self._image_shape), np.uint8)
        with ThreadPoolExecutor(cpu_count() if len(pictures) > _FEW else 1) as pool:
            for image, crop in zip(images, pool.map(self._centre_crop, pictures), strict=True):
                image[:] = crop
        return images

    def encoded(self, chosen: slice | NDArray[np.int64]) -> list[bytes]:
        """Return the JPEGs of some pictures."""
        starts, ends = self._offsets[self._places[chosen]], self._offsets[self._places[chosen] + 1]
        return [self._mapped[start:end].tobytes() for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]

    def _centre_crop(self, data: bytes) -> Images:
        channels, size, _ = self._image_shape
        return centre_crop(decoded(data), size)[:channels]  # of one channel, all are equal


def decoded(picture: bytes) -> Images:
    """Decode a kept picture (uint8, H x W x 3). Raises CorruptDataError if it is damaged."""
    try:
        return decode_kept(picture)
    except ValueError as error:
        raise CorruptDataError(f"a picture cannot be decoded ({error})", "prepare the dataset again") from None
