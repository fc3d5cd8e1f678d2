"""The bounds of pictures of more than 8 bits, measured before the pods prepare them.

At most MAX_PICTURES are read, evenly spread over the source, and none whose name says that it is a JPEG.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from components.shared.core import log
from components.shared.core.document import ValueRange
from components.shared.data.decode import decoder
from components.shared.data.layout.file_kinds import JPEG_START
from components.shared.data.parts.listed_splits import assigned
from components.shared.data.parts.listing import Listing
from components.shared.data.pictures.value_range import Unscaled, ValueSample, remarks_on, spread
from components.shared.data.preparation.decoding import chunk_size
from components.shared.data.preparation.settings import Settings
from components.shared.data.preparation.splits import TEST
from components.shared.data.raw import in_batches
from components.shared.data.sources.schemes import ListedSource

JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")  # which have 8 bits


def bounds(source: ListedSource, listing: Listing, settings: Settings) -> ValueRange | None:
    """Return the bounds of pictures of more than 8 bits, given or measured; None if no picture that is read has more.

    They are measured of those outside the test split.
    """
    if settings.given_range:
        return settings.given_range
    sample = ValueSample()
    progress = log.Progress("measuring", len(_numbers(listing)), "pictures")
    with decoder(settings.image_size) as decode_all:
        for batch in in_batches(_pictures(source, listing, progress), chunk_size(settings.image_size)):
            found = decode_all.each([content for _, content in batch])
            for (number, _), decoded in zip(batch, found, strict=True):
                if isinstance(decoded.result, Unscaled):
                    sample.add(number, decoded.result)
        if not sample.count:
            return None
        value_range = sample.measure(_outside_test(listing, settings))
        for line in remarks_on(value_range, decode_all.types):
            log.info(line)
    return value_range


def _outside_test(listing: Listing, settings: Settings) -> NDArray[np.bool_]:
    is_outside: NDArray[np.bool_] = np.concatenate([*assigned(listing, settings)]) != TEST
    return is_outside


def _numbers(listing: Listing) -> range:
    return range(0, listing.document.pictures, spread(listing.document.pictures))


def _pictures(source: ListedSource, listing: Listing, progress: log.Progress) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of the pictures to measure, without those that a name or a start says to be JPEGs."""
    numbers, first = _numbers(listing), 0
    for block in listing.blocks():
        chosen = [number for number in range(first, first + len(block)) if number in numbers]
        wide = [number for number in chosen if not block[number - first].name.lower().endswith(JPEG)]
        progress.advance(len(chosen) - len(wide))
        contents = source.read([block[number - first] for number in wide])
        for number, content in zip(wide, contents, strict=True):
            progress.advance(1)
            if not content.startswith(JPEG_START):
                yield number, content
        first += len(block)
