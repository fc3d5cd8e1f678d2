"""The preparation of units from the list of a source's pictures, one after the other, into the store.

Each unit is on the disk alone. Those that are in the store are skipped.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import numpy as np
from numpy.typing import NDArray

from components.shared.core import log
from components.shared.core.document import ValueRange
from components.shared.core.errors import UserError
from components.shared.data.dataset import SPLIT_ROWS
from components.shared.data.decode import decoder
from components.shared.data.parts.listed_splits import assigned
from components.shared.data.parts.listing import Listing
from components.shared.data.parts.stored_units import StoredUnits, units_key
from components.shared.data.pictures.value_range import ValueSample
from components.shared.data.preparation.decode_buffer import DecodeBuffer
from components.shared.data.preparation.decoding import Decoding, chunk_size
from components.shared.data.preparation.settings import Settings
from components.shared.data.preparation.unit import unit_size, write_assigned
from components.shared.data.raw import encoded_chunks
from components.shared.data.samples.stored import StoredSample
from components.shared.data.sources.schemes import Listed, ListedSource, open_listed_source

READS = ("components.shared.data.sources.*",)  # modules that open_listed_source imports by name


def prepare_units(pictures: Listing, settings: Settings, part: int = 0, parts: int = 1) -> tuple[int, int]:
    """Prepare the units `part`, `part + parts` and so on; return how many they are, and how many were there.

    Raises UserError if the store cannot be used, more than `max_bad_images` pictures of a unit are bad, a picture has
    more than 8 bits and its range is not known, or one has changed since it was listed.
    """
    pod = _Pod.of(pictures, settings)
    count = pictures.document.pictures
    size = unit_size(settings.image_size, count, settings.keep)
    own = range(part, -(-count // size), parts)
    progress = log.Progress("preparing", sum(min(size, count - number * size) for number in own), "images")
    reused = 0
    for number, splits in _splits_of(pictures, settings, own, size):
        if pod.units.read(number):
            reused += 1
        else:
            pod.prepare(number, pictures.pictures(number * size, size), splits)
        progress.advance(len(splits))
    return len(own), reused


def _splits_of(
    listing: Listing, settings: Settings, units: Sequence[int], size: int
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield the number of each unit, and the splits of its pictures."""
    in_block = SPLIT_ROWS // size
    for block, splits in enumerate(assigned(listing, settings)):
        for number in range(block * in_block, (block + 1) * in_block):
            first = number * size - block * SPLIT_ROWS
            if number in units and first < len(splits):
                yield number, splits[first : first + size]


@dataclass(frozen=True)
class _Pod:
    """What prepares units, one at a time."""

    source: ListedSource
    settings: Settings
    value_range: ValueRange | None
    units: StoredUnits

    @classmethod
    def of(cls, listing: Listing, settings: Settings) -> Self:
        """Open the source and the store of a list of pictures."""
        document = listing.document
        units = StoredUnits(settings.store, units_key(document.digest, settings.determining()))
        return cls(open_listed_source(document.source), settings, document.value_range, units)

    def prepare(self, number: int, listed: Sequence[Listed], splits: NDArray[np.uint8]) -> None:
        """Prepare a unit, and store it."""
        with TemporaryDirectory() as name:
            scratch = Path(name)
            decoded = self._decode(listed, scratch)
            for rows, images in decoded.buffer.units(len(listed), chunk_size(self.settings.image_size)):
                path = scratch / "rows.parquet"
                unit = write_assigned(scratch, number, rows, splits, images, path)
                self.units.put(scratch, path, unit, decoded.bad_images, decoded.types)

    def _decode(self, listed: Sequence[Listed], scratch: Path) -> Decoding:
        size, keep = self.settings.image_size, self.settings.keep
        decoded = Decoding(DecodeBuffer(scratch, size, keep), ValueSample(), self.settings.max_bad_images)
        with decoder(size, self.value_range, crop=keep == "jpeg") as decode_all:
            for chunk in encoded_chunks(_samples(self.source, listed), chunk_size(size)):
                decoded.add(chunk, decode_all)
                if decoded.unscaled.count:
                    raise UserError(
                        f"{chunk.names[0]} or one of the next {len(chunk.names) - 1} pictures has more than 8 bits, "
                        "and none of those that were measured had",
                        "give value_range=LOW,HIGH",
                    )
        return decoded


def _samples(source: ListedSource, listed: Sequence[Listed]) -> Iterator[StoredSample]:
    for picture, content in zip(listed, source.read(listed), strict=True):
        yield StoredSample(picture.split, picture.label, picture.name, content)
